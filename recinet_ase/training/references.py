"""Elements' energies taken from a property before a network learns the rest.

A total energy is a formation energy plus a sum of elements' energies, linear in the
composition. Fitted to the training labels and handed to the model's configuration
(`recinet_ase.models.property_model.ModelConfig.references`), that sum need not be learnt, and what
remains of the total energy is the formation energy: two properties pull the network the same way.
"""

from __future__ import annotations

import torch

from recinet_ase.data.store import PackedStore
from recinet_ase.elements import MAX_Z, symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.training.labels import Targets

_DECIMALS = 5
_CRYSTALS_AN_ELEMENT = 10


def composition(store: PackedStore, index: torch.Tensor) -> torch.Tensor:
    """Share of each atomic number in the crystals at ``index``, float64 ``[n, MAX_Z + 1]``."""
    a = store.arrays
    count = a["atom_ptr"].diff()
    owner = torch.repeat_interleave(torch.arange(len(store), device=count.device), count)
    total = torch.zeros(len(store), MAX_Z + 1, dtype=torch.float64, device=count.device)
    total.index_put_((owner, a["z"].long()), a["atom_weight"].double(), accumulate=True)
    chosen = total[index]
    return chosen / chosen.sum(1, keepdim=True)


def fit_references(
    store: PackedStore, train: Targets, properties: tuple[str, ...], chosen: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Energies of the elements by least squares, by property and symbol.

    Where the formation energy is learnt too, those of the total energy are fitted to the
    difference from it, on the crystals that have both labels.

    Args:
        store: The crystals.
        train: Training labels.
        properties: The run's properties.
        chosen: Those to fit energies for.

    Raises:
        ReciNetError: If one of these is not a property of the run, or too few crystals have it.
    """
    references: dict[str, dict[str, float]] = {}
    for name in chosen:
        if name not in properties or name == "formation_energy":
            raise ReciNetError(
                f"the setting 'references' names {name}, but elements' energies are taken from "
                "properties that the run learns, other than the formation energy; add it to "
                "--props or leave it out of the recipe"
            )
        values = train.values[:, properties.index(name)].double()
        # The difference of both energies is linear by definition and cannot be overfitted.
        partner = name.replace("total_energy", "formation_energy", 1)
        exact = partner != name and partner in properties
        if exact:
            values = values - train.values[:, properties.index(partner)].double()
        known = ~torch.isnan(values)
        shares = composition(store, train.index[known])
        present = (shares > 0).any(0)
        if known.sum() < (1 if exact else _CRYSTALS_AN_ELEMENT * present.sum()):
            raise ReciNetError(
                f"{int(known.sum())} crystals are too few to fit the energies of "
                f"{int(present.sum())} elements to {name}; leave it out of references"
            )
        energies = torch.linalg.lstsq(
            shares[:, present].cpu(), values[known].cpu()[:, None], driver="gelsd"
        ).solution
        numbers = torch.nonzero(present).ravel().tolist()
        references[name] = {
            symbols()[z]: round(float(mu), _DECIMALS)
            for z, mu in zip(numbers, energies.ravel(), strict=True)
        }
    return references
