"""A trained network with everything needed to turn its outputs into properties.

On disk a model is a folder: ``config.json`` (architecture, properties, units,
normalisation, graph rule, elements, provenance) and ``model.safetensors``. Loading
checks a sha256 and never unpickles.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.models.files import (
    CONFIG_FILE,
    check_version,
    known_fields,
    parsing,
    read_config,
    read_weights,
    save_weights,
    take_weights,
    write_atomic,
)
from recinet_ase.nn.recinet import ReciNet, ReciNetConfig, ReciNetMT
from recinet_ase.nn.reciprocal import LatticeOperator, LatticeSums, crystal_mean
from recinet_ase.properties import PropertyInfo, property_of, source_of
from recinet_ase.uncertainty import calibration as calibrations
from recinet_ase.uncertainty.calibration import Bounds, Calibration

FORMAT_VERSION = 3


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a model except its weights.

    Attributes:
        name: The model's name.
        properties: Canonical property names, one an output; names that are not in the registry
            are custom properties.
        units: Their units (for registered properties a copy of the registry's, checked when
            loading; for custom ones the only statement of the unit).
        mean, std: Normalisation: prediction = mean + std * output.
        elements: Atomic numbers that occur in the training data, ascending.
        network: Architecture.
        graph: Neighbour rule.
        functional: Level of theory of each property, e.g. ``"TB-mBJ"``.
        references: Energy of an atom of each element, by property and symbol, in the
            property's unit per atom: their mean over the atoms is added to a prediction.
        logarithmic: Properties whose network output is the decimal logarithm:
            prediction = 10^(mean + std * output).
        caution: What a user must know before trusting the numbers, in one sentence.
        training: Provenance: data, split, recipe, digests of the ids seen, errors.
        format_version: Version of this layout.
        sha256: Hash of the weights file.
    """

    name: str
    properties: tuple[str, ...]
    units: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    elements: tuple[int, ...]
    network: ReciNetConfig
    graph: GraphSettings = field(default_factory=GraphSettings)
    functional: tuple[str, ...] = ()
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    logarithmic: tuple[str, ...] = ()
    caution: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    sha256: str = ""

    @property
    def infos(self) -> list[PropertyInfo]:
        """What the properties are: the registry's entries, and custom ones by name and unit."""
        return [property_of(n, unit) for n, unit in zip(self.properties, self.units, strict=True)]

    @property
    def bounds(self) -> tuple[Bounds, ...]:
        """What values of each property can be."""
        return tuple(
            Bounds(
                -math.inf if info.minimum is None else info.minimum,
                math.inf if info.maximum is None else info.maximum,
                info.name in self.logarithmic,
            )
            for info in self.infos
        )

    def functional_of(self, name: str) -> str:
        """Level of theory of one property or of what follows from one, ``""`` if not stated."""
        at = self.properties.index(source_of(name, self.properties) or name)
        return self.functional[at] if at < len(self.functional) else ""

    def to_json(self) -> str:
        """The text of ``config.json``."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelConfig:
        """Parse ``config.json``.

        Args:
            text: The file's text.
            source: Where it came from, for messages.

        Raises:
            ReciNetError: If it is broken, or written by a newer version.
        """
        with parsing(source):
            data = json.loads(text)
            version = data["format_version"]
            check_version(version, FORMAT_VERSION, source)
            values = known_fields(cls, data)
            for key in ("properties", "units", "mean", "std", "elements", "functional"):
                values[key] = tuple(values[key])
            values["logarithmic"] = tuple(values.get("logarithmic", ()))
            if version < 2:  # lattice sums were divided by the number of atoms
                values["network"]["wave_norm"] = "atom"
            values["format_version"] = FORMAT_VERSION
            values["network"] = ReciNetConfig.from_dict(values["network"])
            values["graph"] = GraphSettings(**values["graph"])
            config = cls(**values)
            units = tuple(info.unit for info in config.infos)
            outputs = {len(config.mean), len(config.std), config.network.outputs}
            if outputs != {len(units)} or not all(map(math.isfinite, config.mean + config.std)):
                raise ReciNetError(
                    f"{source}: mean and std must hold one finite number for each property"
                )
        if units != config.units:
            raise ReciNetError(f"{source} states units {config.units}, expected {units}")
        return config


class ModelOutput(NamedTuple):
    """What a model makes of a batch (B crystals, P properties).

    Attributes:
        output: Unclipped properties in their units ``[B, P]``.
        latent: Representation of each crystal ``[B, d]``.
        spread: Standard deviation of an ensemble's members, in units ``[B, P]``; of a
            single network ``[B, 0]``.
    """

    output: torch.Tensor
    latent: torch.Tensor
    spread: torch.Tensor


class PropertyModel(nn.Module):
    """A network whose outputs are properties in their units.

    Args:
        config: The model's configuration.

    Attributes:
        calibration: Intervals and domain of its predictions, or None.
        fingerprint: sha256 of weights and normalisation as they were last read or written;
            what a calibration belongs to.
    """

    mean: torch.Tensor
    std: torch.Tensor
    minimum: torch.Tensor
    maximum: torch.Tensor
    reference: torch.Tensor
    logarithms: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.calibration: Calibration | None = None
        self.fingerprint = ""
        self.network = (
            ReciNetMT(config.network, config.properties)
            if config.network.multitask == "moe"
            else ReciNet(config.network)
        )
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)
        for name, ends in (("minimum", 0), ("maximum", 1)):
            limits = torch.tensor([bounds[ends] for bounds in config.bounds])
            self.register_buffer(name, limits, persistent=False)
        reference = torch.zeros(len(symbols()), len(config.properties))
        for column, name in enumerate(config.properties):
            for symbol, value in config.references.get(name, {}).items():
                reference[symbols().index(symbol), column] = value
        self.register_buffer("reference", reference, persistent=False)
        logarithms = torch.tensor([name in config.logarithmic for name in config.properties])
        self.register_buffer("logarithms", logarithms, persistent=False)

    def __repr__(self) -> str:
        """``<PropertyModel jarvis-mbj: bandgap (eV), 510,913 parameters>``."""
        count = sum(weights.numel() for weights in self.parameters())
        outputs = zip(self.config.properties, self.config.units, strict=True)
        told = ", ".join(f"{name} ({unit or '1'})" for name, unit in outputs)
        return f"<{type(self).__name__} {self.config.name}: {told}, {count:,} parameters>"

    @property
    def members(self) -> tuple[PropertyModel, ...]:
        """The models that are asked: this one (an ensemble has several)."""
        return (self,)

    def outcome(self, batch: CrystalBatch, sums: LatticeSums | None = None) -> ModelOutput:
        """What the network makes of a batch.

        Args:
            batch: The crystals.
            sums: Their lattice sums, where several networks share them.
        """
        known = None
        if sums is not None and self.config.network.reciprocal == "lattice":
            known = sums.of(self.network.wave_basis)
        output, latent = self.unclipped(batch, known)
        return ModelOutput(output, latent, output[:, :0])

    def forward(
        self, batch: CrystalBatch, lattice_sum: LatticeOperator | None = None
    ) -> torch.Tensor:
        """Properties in their units ``[B, outputs]``, clipped to their physical bounds."""
        return self.unclipped(batch, lattice_sum)[0].clamp(self.minimum, self.maximum)

    def unclipped(
        self, batch: CrystalBatch, lattice_sum: LatticeOperator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unclipped properties ``[B, outputs]`` and the representations behind them ``[B, d]``."""
        latent = self.network.encode(batch, lattice_sum)
        values = self.mean + self.std * self.network.decode(latent, batch)
        if self.config.references:
            values = values + crystal_mean(self.reference[batch.z], batch)
        if self.config.logarithmic:
            values = torch.where(self.logarithms, 10.0**values, values)
        return values, latent

    def standardise(self, values: torch.Tensor) -> torch.Tensor:
        """Targets in units to the network's scale ``[B, outputs]``; NaN where there is none."""
        return (as_learnt(values, self.logarithms) - self.mean) / self.std

    def save(self, folder: str | Path, half: bool = True) -> None:
        """Write ``config.json`` and ``model.safetensors``, each atomically.

        The calibration is written too if it belongs to the weights as they are stored; any
        other that the folder may hold is deleted.

        Args:
            folder: Target folder, made if needed.
            half: Store floating point weights in half precision.
        """
        folder = Path(folder)
        state = {}
        for key, value in self.network.state_dict().items():
            # Running variances span more than half precision can hold.
            kind = torch.float16 if half and "running_" not in key else torch.float32
            state[key] = value.detach().cpu().to(kind).contiguous()
        config = replace(self.config, sha256=save_weights(folder, state))
        write_atomic(folder / CONFIG_FILE, config.to_json().encode())
        self.fingerprint = _fingerprint(self.config, state)
        calibrations.keep_only(folder, self.fingerprint, self.calibration)

    @classmethod
    def load(cls, folder: str | Path, calibrated: bool = True) -> PropertyModel:
        """Read a model folder, in evaluation mode, float32, on the CPU.

        Args:
            folder: The folder.
            calibrated: Read its calibration too, if it has one.

        Raises:
            ReciNetError: If a file is missing, damaged or not what the configuration says.
        """
        folder = Path(folder)
        config = ModelConfig.from_json(read_config(folder), str(folder / CONFIG_FILE))
        model = cls(config)
        state = read_weights(folder, config.sha256)
        _drop_gate_biases(state, config.network.norm)
        take_weights(model.network, state, folder)
        model.fingerprint = _fingerprint(config, state)
        if calibrated and calibrations.present(folder):
            calibration = Calibration.load(folder, model.fingerprint)
            model.calibration = replace(calibration, bounds=config.bounds)
        return model.eval()


def as_learnt(values: torch.Tensor, logarithms: torch.Tensor) -> torch.Tensor:
    """Values ``[n, outputs]`` with the decimal logarithm of the columns that are learnt so.

    NaN where there is no logarithm.
    """
    return torch.where(logarithms, torch.log10(values.where(values > 0, torch.nan)), values)


def _fingerprint(config: ModelConfig, state: dict[str, torch.Tensor]) -> str:
    """sha256 of what predictions follow from, the same for full and half precision files."""
    digest = hashlib.sha256()
    scale: tuple[Any, ...] = (config.properties, config.mean, config.std, config.references)
    if config.logarithmic:
        scale = (*scale, config.logarithmic)
    digest.update(json.dumps(scale, sort_keys=True).encode())
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _drop_gate_biases(state: dict[str, torch.Tensor], norm: str) -> None:
    """Weights of format 1 have a bias before batch normalisation: move it into the mean."""
    biases = [k for k in state if k.startswith("local_blocks.") and k.endswith(".gate.bias")]
    for key in biases if norm == "batch" else []:
        state[key.replace(".gate.bias", ".gate_norm.running_mean")] -= state.pop(key)
