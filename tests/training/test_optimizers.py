"""Muon and AdamW side by side."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recinet_ase.errors import UnknownNameError
from recinet_ase.nn.recinet import SIZES, ReciNet
from recinet_ase.training.optimizers import Muon, make_optimizers, orthogonal


@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 3), st.integers(0, 99))
def test_steps_go_along_all_directions_alike(rows: int, columns: int, n: int, seed: int) -> None:
    matrices = torch.randn(n, rows, columns, generator=torch.Generator().manual_seed(seed))
    found = orthogonal(matrices).double()
    left, _, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    stretched = torch.linalg.svdvals(found)
    large = torch.linalg.svdvals(matrices.double()) > 0.05 * matrices.norm(dim=(1, 2))[:, None]
    assert stretched[large].min() > 0.5 and stretched.max() < 1.35
    # The directions are the matrix' own: U^T found V is diagonal.
    inside = left.mT @ found @ right.mT
    assert (inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))).abs().max() < 0.1


def test_it_is_the_step_of_torch() -> None:
    torch.manual_seed(0)
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5)]
    ours = [nn.Parameter(torch.randn(s)) for s in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    mine = Muon(ours, 0.01, weight_decay=0.1)
    its = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        mine.step()
        its.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0.02, atol=0.003)  # both iterate in bfloat16


def test_every_parameter_has_one_optimiser() -> None:
    network = ReciNet(SIZES["tiny"])
    adam, muon = make_optimizers("muon", network, 1e-3, 0.0)
    names = {id(p): name for name, p in network.named_parameters()}
    both = [
        [names[id(p)] for group in part.param_groups for p in group["params"]]
        for part in (adam, muon)
    ]
    assert sorted(both[0] + both[1]) == sorted(names.values())
    assert {"embed_atom.weight", "head.3.weight", "reciprocal_blocks.0.filter"} <= set(both[0])
    assert {"head.0.weight", "local_blocks.1.gate.weight"} <= set(both[1])
    assert len(make_optimizers("adamw", network, 1e-3, 0.0)) == 1
    with pytest.raises(UnknownNameError, match="muon"):
        make_optimizers("muom", network, 1e-3, 0.0)
