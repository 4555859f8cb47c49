"""A trained force model: network, energy references, units, provenance; folder on disk.

A folder like any other model's: ``config.json`` and ``model.safetensors`` (here in single
precision: forces are differences). Loading checks a sha256 and never unpickles.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recinet_ase.elements import MAX_Z, symbols
from recinet_ase.errors import StructureError
from recinet_ase.forces.batch import ForceBatch, ForceGraph
from recinet_ase.forces.domain import ForceDomain
from recinet_ase.forces.network import ForceNetwork, ForceNetworkConfig
from recinet_ase.graph.crystal import Crystal
from recinet_ase.models.files import (
    CONFIG_FILE,
    check_version,
    known_fields,
    parsing,
    read_config,
    read_weights,
    refuse_properties,
    save_weights,
    take_weights,
    write_atomic,
)

FORMAT_VERSION = 1
_LATENT = ("latent_mean", "latent_scale")
KIND = "forces"


@dataclass(frozen=True)
class ForceModelConfig:
    """Everything about a force model except its weights.

    Attributes:
        name: The model's name.
        network: Architecture.
        elements: Atomic numbers in the training data, ascending.
        pairs: Pairs of elements that occur together in a training cell, ascending.
        references: Energy of an atom of each element by symbol, eV.
        scale: Energies of the network are multiplied by this, eV.
        functional: Level of theory.
        caution: What a user must know before trusting the numbers, in one sentence.
        training: Provenance: data, split, settings, errors.
        domain: Extent of the training cells, None where it was not measured.
        kind: What tells this layout from a property model's.
        format_version: Version of this layout.
        sha256: Hash of the weights file.
    """

    name: str
    network: ForceNetworkConfig
    elements: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    references: dict[str, float]
    scale: float
    functional: str = ""
    caution: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    domain: ForceDomain | None = None
    kind: str = KIND
    format_version: int = FORMAT_VERSION
    sha256: str = ""

    def to_json(self) -> str:
        """The text of ``config.json``."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> ForceModelConfig:
        """Parse ``config.json``.

        Args:
            text: The file's text.
            source: Where it came from, for messages.

        Raises:
            ReciNetError: If it is broken, of another kind, or written by a newer version.
        """
        with parsing(source):
            data = json.loads(text)
            refuse_properties(data, data.get("name", source))
            check_version(data["format_version"], FORMAT_VERSION, source)
            values = known_fields(cls, data)
            values["network"] = ForceNetworkConfig.from_dict(data["network"])
            if data.get("domain") is not None:
                values["domain"] = ForceDomain.from_dict(data["domain"])
            values["elements"] = tuple(data["elements"])
            values["pairs"] = tuple((int(a), int(b)) for a, b in data["pairs"])
            config = cls(**values)
        return config


@dataclass(frozen=True)
class ForceResult:
    """Energies and their derivatives for a batch (N atoms, B cells).

    Attributes:
        energy: Energy of each cell in eV ``[B]``.
        energies: Energy of each atom in eV ``[N]``.
        forces: In eV/angstrom ``[N, 3]``.
        stress: ``dE/d(strain) / V`` in eV/angstrom^3 ``[B, 3, 3]``: positive under tension, as
            ASE has it.
        latent: The network's features of each atom ``[N, d]``.
    """

    energy: torch.Tensor
    energies: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor
    latent: torch.Tensor


class ForceModel(nn.Module):
    """A force network with its references and scale.

    Args:
        config: The model's configuration.
    """

    reference: torch.Tensor
    latent_mean: torch.Tensor
    latent_scale: torch.Tensor

    def __init__(self, config: ForceModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = ForceNetwork(config.network)
        reference = torch.zeros(MAX_Z + 1)
        for z, symbol in enumerate(symbols()):
            reference[z] = config.references.get(symbol, 0.0)
        self.register_buffer("reference", reference, persistent=False)
        width = config.network.width
        for name in _LATENT:
            self.register_buffer(name, torch.zeros(MAX_Z + 1, width), persistent=False)

    def graph(self, crystal: Crystal) -> ForceGraph:
        """The graph of a crystal, after a look at its elements.

        Raises:
            StructureError: For elements that the model never saw, or never in a mixture, and
                for overlapping or isolated atoms.
        """
        self.check_elements(crystal)
        network = self.config.network
        return ForceGraph.build(crystal, network.cutoff, network.wave_cutoff)

    def check_elements(self, crystal: Crystal) -> None:
        """Refuse what the model cannot know.

        Raises:
            StructureError: For unknown elements, and for mixtures of elements of which one was
                only seen pure.
        """
        config, names = self.config, symbols()
        present = sorted(set(crystal.numbers.tolist()))
        unseen = [names[z] for z in present if z not in config.elements]
        if unseen:
            known = ", ".join(names[z] for z in config.elements)
            raise StructureError(
                f"{config.name} was not trained on {', '.join(unseen)}; it knows {known}"
            )
        mixed = {z for pair in config.pairs for z in pair}
        for i, a in enumerate(present):
            for b in present[i + 1 :]:
                if (a, b) not in config.pairs and not {a, b} <= mixed:
                    raise StructureError(
                        f"{config.name} never saw {names[a]} and {names[b]} together, and one of "
                        "them in no compound at all; its energies of their mixtures would be "
                        "guesses"
                    )

    def forward(self, batch: ForceBatch, training: bool = False) -> ForceResult:
        """Energies, forces and stresses.

        Args:
            batch: The graphs.
            training: Keep what is needed to differentiate by the weights.
        """
        with torch.enable_grad():
            positions = batch.positions.detach().requires_grad_()
            strain = batch.lattice.new_zeros(batch.lattice.shape).requires_grad_()
            # The network's numbers are small; references are added in double precision.
            part, latent = self.network(batch, positions, strain)
            part = self.config.scale * part
            by_position, by_strain = torch.autograd.grad(
                part.sum(), (positions, strain), create_graph=training
            )
        energies = part.double() + self.reference.double()[batch.z]
        energy = energies.new_zeros(len(batch.n_atoms)).index_add(0, batch.cell, energies)
        if not training:
            energies, energy = energies.detach(), energy.detach()
        stress = 0.5 * (by_strain + by_strain.mT) / batch.volume[:, None, None]
        return ForceResult(energy, energies, -by_position, stress, latent.detach())

    def novelty(self, latent: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """How far atoms' features are from those of training atoms of their element ``[N]``.

        Root mean square of the deviations in units of the usual ones, divided by a limit: above one
        an atom is unlike all that the model has seen. Zero where that was not measured.

        Args:
            latent: Features ``[N, d]``.
            z: Atomic numbers ``[N]``.
        """
        away = (latent - self.latent_mean[z].to(latent)) * self.latent_scale[z].to(latent)
        return away.square().mean(1).sqrt()

    def save(self, folder: str | Path, half: bool = False) -> None:
        """Write ``config.json`` and ``model.safetensors``, each atomically.

        Args:
            folder: The model's folder.
            half: Store weights in half precision. Forces are differences: look at the errors.
        """
        folder = Path(folder)
        dtype = torch.float16 if half else torch.float32
        state = {
            k: v.detach().to(dtype).cpu().contiguous() for k, v in self.network.state_dict().items()
        }
        if self.config.domain is not None:
            known = list(self.config.elements)
            state |= {name: getattr(self, name)[known].float().cpu() for name in _LATENT}
        config = replace(self.config, sha256=save_weights(folder, state))
        write_atomic(folder / CONFIG_FILE, config.to_json().encode())

    @classmethod
    def load(cls, folder: str | Path) -> ForceModel:
        """Read a folder.

        Raises:
            ReciNetError: If it is missing, damaged, or no force model.
        """
        folder = Path(folder)
        config = ForceModelConfig.from_json(read_config(folder), str(folder / CONFIG_FILE))
        model = cls(config)
        weights = read_weights(folder, config.sha256)
        for name in _LATENT:
            if name in weights:
                table = getattr(model, name)
                table[list(config.elements)] = weights.pop(name).to(table)
        take_weights(model.network, weights, folder)
        return model.eval()
