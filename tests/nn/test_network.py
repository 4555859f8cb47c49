"""The network's blocks: element features, factored products, norms, sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_masses
from pymatgen.core import Composition
from support import full_graphs, random_model
from torch import nn
from torch.nn import functional

from recinet_ase import ReciNetError
from recinet_ase.elements import MAX_Z, N_FEATURES, element_features, symbols
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.composition import formula_atoms
from recinet_ase.nn.local import LocalBlock
from recinet_ase.nn.norm import WeightedBatchNorm
from recinet_ase.nn.pooling import AttentionPooling, PeakPooling
from recinet_ase.nn.radial import fading
from recinet_ase.nn.recinet import SIZES, ReciNet, ReciNetConfig
from recinet_ase.nn.reciprocal import crystal_mean


def test_element_features_are_92_and_unique() -> None:
    table = element_features()
    assert table.shape == (MAX_Z + 1, N_FEATURES) == (104, 92)
    assert not table[0].any()
    distance = np.abs(table[1:, None] - table[None, 1:]).sum(-1) + 10 * np.eye(MAX_Z)
    assert distance.min() > 0.5, "two elements look the same to the network"


def test_element_table_matches_pymatgen() -> None:
    from pymatgen.core import Element

    assert symbols()[26] == "Fe"
    oxygen = element_features()[8]
    assert oxygen[16 - 1] == 1 and oxygen[18 + 2 - 1] == 1  # group 16, period 2
    for z in range(1, MAX_Z + 1):
        assert symbols()[z] == Element.from_Z(z).symbol
        assert element_features()[z, Element.from_Z(z).group - 1] == 1


def test_parameter_count_of_the_paper_size() -> None:
    # Table 5 states 3.3 M for four blocks. Equations (5)-(25) with 256 features give
    # 2.46 M; the text does not say where the remaining weights are.
    model = ReciNet(SIZES["paper"])
    assert SIZES["paper"].width == 256 and SIZES["paper"].blocks == 4
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 2.3e6 < count < 3.4e6


def test_sizes_are_ordered() -> None:
    counts = [
        sum(p.numel() for p in ReciNet(SIZES[s]).parameters()) for s in ("tiny", "small", "paper")
    ]
    assert counts == sorted(counts)


def test_factored_product_is_the_concatenated_one(crystals: dict[str, Atoms]) -> None:
    """Equations (22)-(25) with an explicit concatenation give the same features."""
    torch.manual_seed(0)
    d = 16
    block = LocalBlock(d, d, "batch", edge_update=True).double().eval()
    batch = full_graphs(list(crystals.values())[:5], torch.float64)
    h = torch.randn(len(batch.z), d, dtype=torch.float64)
    v = torch.randn(len(batch.centre), d, dtype=torch.float64)
    ones = torch.ones(len(v), dtype=torch.float64)
    z = torch.cat((h[batch.centre], h[batch.neighbour], v), dim=1)
    weight = torch.cat(
        (block.from_centre.weight, block.from_neighbour.weight, block.from_edge.weight), dim=1
    )
    hidden = functional.silu(functional.linear(z, weight, block.from_centre.bias))
    opening = block.gate_norm(block.gate(hidden[:, :d]), ones)
    message = torch.sigmoid(opening) * block.message(hidden[:, d:])
    total = torch.stack([message[batch.centre == i].sum(0) for i in range(len(h))])
    expected = functional.relu(h + block.node_norm(total, batch.atom_weight))
    new_h, new_v = block(h, v, batch, ones)
    torch.testing.assert_close(new_h, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(new_v, v + functional.silu(opening), rtol=1e-10, atol=1e-12)


def test_weighted_norm_is_batch_norm_on_repeated_rows() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5, dtype=torch.float64) * 3 + 1
    counts = torch.tensor([1, 2, 1, 4, 3, 1])
    weighted = WeightedBatchNorm(5).double()
    reference = nn.BatchNorm1d(5).double()
    repeated = reference(x.repeat_interleave(counts, 0))
    ours = weighted(x, counts.double()).repeat_interleave(counts, 0)
    torch.testing.assert_close(ours, repeated, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(weighted.running_mean, reference.running_mean)
    weighted.eval()
    alone = weighted(x[:1], torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(alone, weighted(x, counts.double())[:1])


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ReciNetError, match="unknown normalisation 'group'"):
        ReciNetConfig(norm="group")
    with pytest.raises(ReciNetError, match="did you mean 'lattice'"):
        ReciNetConfig(reciprocal="latice")
    with pytest.raises(ReciNetError, match="unknown pooling 'max'"):
        ReciNetConfig(pooling="max")
    with pytest.raises(ReciNetError, match='"moe" has no gate'):
        ReciNetConfig(multitask="moe", gate=True)
    with pytest.raises(ReciNetError, match="leave out gate"):
        ReciNetConfig(pooling="peak", gate=True)
    with pytest.raises(ReciNetError, match='multitask = "shared"'):
        ReciNetConfig(pooling="peak", multitask="linear")
    with pytest.raises(ReciNetError, match="envelope is -1"):
        ReciNetConfig(envelope=-1.0)
    with pytest.raises(ReciNetError, match="newer version"):
        ReciNetConfig.from_dict({"width": 8, "attention_heads": 4})


@pytest.mark.parametrize("mode", ["lattice", "mean", "literal", "ewald"])
def test_the_reciprocal_block_matters(mode: str, crystals: dict[str, Atoms]) -> None:
    model = random_model(reciprocal=mode)
    batch = full_graphs(list(crystals.values())[20:30])
    with torch.no_grad():
        value = model.network(batch)
        for block in model.network.reciprocal_blocks:
            block.up.weight.zero_()
        assert (model.network(batch) - value).abs().max() > 1e-2


def test_far_atoms_are_seen_through_the_lattice_only() -> None:
    """Two chains of neighbours that never meet: only long-range terms can join them."""
    # Far-apart metal slabs; swapping elements of one slab must change the other's atoms.
    atoms = Atoms(
        "Cu2",
        scaled_positions=[[0, 0, 0], [0, 0, 0.5]],
        cell=[2.5, 2.5, 30.0],
        pbc=True,
    )
    other = atoms.copy()
    other.numbers[1] = 79
    for mode, expected in (("none", False), ("lattice", True)):
        network = random_model(reciprocal=mode).network
        kept: list[torch.Tensor] = []
        network.local_blocks[-1].register_forward_hook(
            lambda *a, kept=kept: kept.append(a[-1][0][0])
        )
        with torch.no_grad():
            for structure in (atoms, other):
                network(full_graphs([structure]))
        changed = bool((kept[0] - kept[1]).abs().max() > 1e-4)
        assert changed is expected


def test_atoms_of_the_reduced_formula(crystals: dict[str, Atoms]) -> None:
    some = list(crystals.values())
    expected = [
        sum(Composition(a.get_chemical_formula()).reduced_composition.values()) for a in some
    ]
    batch = full_graphs(some)
    assert formula_atoms(batch).tolist() == expected
    repeated = full_graphs(a.repeat((1, 2, 1)) for a in some[:10])
    assert formula_atoms(repeated).tolist() == expected[:10]


def test_the_composition_branch_starts_as_the_answer_per_formula(
    crystals: dict[str, Atoms],
) -> None:
    plain, branched = (random_model(composition=c).network for c in (False, True))
    branched.load_state_dict(plain.state_dict(), strict=False)
    batch = full_graphs(list(crystals.values())[:8])
    with torch.no_grad():
        expected = plain(batch) / formula_atoms(batch)[:, None]
        torch.testing.assert_close(branched(batch), expected)


def test_attention_starts_as_the_mean_and_can_choose_one_atom(crystals: dict[str, Atoms]) -> None:
    batch = full_graphs(list(crystals.values())[:8])
    h = torch.randn(len(batch.z), 4, dtype=torch.float64)
    pool = AttentionPooling(4).double()
    with torch.no_grad():
        torch.testing.assert_close(pool(h, batch), crystal_mean(h, batch))
        pool.score.weight.copy_(1e4 * torch.eye(4))
        for i, pooled in enumerate(pool(h, batch)):
            torch.testing.assert_close(pooled, h[batch.crystal == i].amax(0))


def test_messages_fade_with_the_distance(crystals: dict[str, Atoms]) -> None:
    """Level at both ends, and edges beyond the cutoff say nothing to the network."""
    d = torch.tensor([0.0, 4.0, 8.0, 12.0], dtype=torch.float64, requires_grad=True)
    value = fading(d, 8.0)
    (slope,) = torch.autograd.grad(value.sum(), d)
    torch.testing.assert_close(value, torch.tensor([1.0, 0.85546875, 0.0, 0.0]).double())
    torch.testing.assert_close(slope[[0, 2, 3]], torch.zeros(3, dtype=torch.float64))
    assert slope[1] < 0

    model = random_model(envelope=3.0)
    batch = full_graphs(list(crystals.values())[:8])
    far = batch.distance > 3.0
    assert far.any() and not far.all()
    moved = replace(batch, distance=torch.where(far, batch.distance + 1.0, batch.distance))
    with torch.no_grad():
        torch.testing.assert_close(model(batch), model(moved), rtol=1e-6, atol=1e-6)
        assert not torch.allclose(random_model()(batch), random_model()(moved))


def test_a_closed_gate_gives_one_value(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    batch = full_graphs(list(crystals.values())[:8])
    random_model(gate=True).save(tmp_path, half=False)
    network = PropertyModel.load(tmp_path).network
    with torch.no_grad():
        assert network(batch).unique().numel() == 8
        network.head.gate.bias.fill_(-1e4)
        torch.testing.assert_close(network(batch), network.head.floor.expand(8, 1))


def test_the_peak_is_the_largest_of_the_atoms_values(crystals: dict[str, Atoms]) -> None:
    batch = full_graphs(list(crystals.values())[:8], torch.float64)
    h = torch.randn(len(batch.z), 6, dtype=torch.float64)
    pool = PeakPooling(6, 1).double()
    with torch.no_grad():
        pool.sharpness.fill_(1e4)
        peak = pool(h, batch)[:, -1]
        for i in range(8):
            atoms = batch.crystal == i
            inner = functional.silu(pool.atom(h[atoms]) + pool.crystal(pool(h, batch)[i, :6]))
            mass = torch.tensor(atomic_masses)[batch.z[atoms], None]
            values = (30.0 / mass).sqrt() * (pool.last(inner) + 1.5) - 1.5
            torch.testing.assert_close(peak[i], values.max())


def test_a_lighter_isotope_vibrates_faster() -> None:
    """Where all else is equal a value above zero goes with the inverse root of the mass."""
    pool = PeakPooling(4, 1).double()
    light, heavy = (full_graphs([Atoms(s, cell=[3, 3, 3], pbc=True)]) for s in ("H", "Fe"))
    h = torch.ones(1, 4, dtype=torch.float64)
    with torch.no_grad():
        pool.last.bias.fill_(1.0)
        ratio = (pool(h, light)[:, -1] + 1.5) / (pool(h, heavy)[:, -1] + 1.5)
    assert float(ratio) == pytest.approx((atomic_masses[26] / atomic_masses[1]) ** 0.5)
