"""A model's calibration: intervals and the domain it can be trusted in, as files and in use.

On disk it is ``calibration.safetensors`` (arrays) and ``calibration.json`` (figures, the
sha256 of the arrays, and the fingerprint of the model it belongs to), beside the model's
weights. A model without these files gives no intervals.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from recinet_ase.errors import ReciNetError
from recinet_ase.models.files import write_atomic
from recinet_ase.uncertainty.descriptors import GEOMETRY, Descriptors
from recinet_ase.uncertainty.difficulty import Difficulty, features
from recinet_ase.uncertainty.reference import EXPECTED, Placement, Reference
from recinet_ase.uncertainty.strain import StrainEstimate
from recinet_ase.uncertainty.widths import Widths

CALIBRATION_FILE = "calibration.json"
ARRAYS_FILE = "calibration.safetensors"
CALIBRATION_VERSION = 2

JUDGED = ("distance", *EXPECTED, "mean_coordination", "strain")
"""What the domain is judged by: each has a lower and an upper limit."""

_T = TypeVar("_T", Reference, StrainEstimate, Difficulty, Widths)


class Bounds(NamedTuple):
    """What values of a property, and the ends of its intervals, can be.

    Attributes:
        low, high: Physical bounds, infinite where there is none.
        positive: Whether the logarithm was learnt, so that no value is 0 or less.
    """

    low: float = -math.inf
    high: float = math.inf
    positive: bool = False


_LEAST_SHARE = 0.01  # of a value whose logarithm was learnt, for the lower end of its interval


@dataclass(frozen=True)
class Assessment:
    """What is known of one prediction besides its value.

    Attributes:
        intervals: 90 % interval of each property, in the model's order.
        warnings: How the crystal differs from those the model was trained on.
    """

    intervals: tuple[tuple[float, float], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PropertyCalibration:
    """The interval of one property.

    Attributes:
        difficulty: Predicts the scale of the error.
        widths: Turns it into a half-width.
        scale: Spread of the predictions, in the property's unit ``[1]``.
    """

    difficulty: Difficulty
    widths: Widths
    scale: torch.Tensor

    def half_widths(
        self, found: Descriptors, place: Placement, column: int, minimum: float | None
    ) -> torch.Tensor:
        """Half-width of each interval ``[B]``."""
        inputs = features(found, place, column, float(self.scale), minimum)
        log_scale = self.difficulty(inputs, found.composition)
        return self.widths(found.output[:, column], log_scale)


@dataclass(frozen=True)
class Calibration:
    """Intervals and domain of a model.

    Attributes:
        reference: Summary of the training crystals.
        strain: By how much a crystal's volume differs from that at rest.
        limits: Lower and upper limit of each of `JUDGED` ``[len(JUDGED), 2]``.
        properties: Calibration of each property, in the model's order, by name.
        minimum: Physical lower bound of each property, or None.
        model: Fingerprint of the model it was fitted for.
        figures: Cross-fitted coverage and other figures, for people and tests.
        bounds: What values can be, in the model's order, from the model; not stored.
    """

    reference: Reference
    strain: StrainEstimate
    limits: torch.Tensor
    properties: dict[str, PropertyCalibration]
    minimum: tuple[float | None, ...]
    model: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    bounds: tuple[Bounds, ...] = ()

    def assess(self, found: Descriptors) -> list[Assessment]:
        """Intervals and warnings for a batch of crystals."""
        place = placed(found, self.reference, self.strain)
        columns = []
        for column, (part, minimum) in enumerate(
            zip(self.properties.values(), self.minimum, strict=True)
        ):
            half = part.half_widths(found, place, column, minimum)
            bounds = self.bounds[column] if self.bounds else Bounds()
            low = max(bounds.low, -math.inf if minimum is None else minimum)
            value = found.output[:, column].clamp(low, bounds.high)
            lower, upper = (end.clamp(low, bounds.high) for end in (value - half, value + half))
            if bounds.positive:
                lower = torch.maximum(lower, _LEAST_SHARE * value)
            columns.append(list(zip(lower.tolist(), upper.tolist(), strict=True)))
        judged = judged_by(found, place)
        limits = self.limits.double()
        flagged = outside(judged, limits).tolist()
        return [
            Assessment(
                intervals=tuple(column[i] for column in columns),
                warnings=self._warnings(judged[i].tolist()) if flagged[i] else (),
            )
            for i in range(len(found))
        ]

    def _warnings(self, judged: list[float]) -> tuple[str, ...]:
        return tuple(
            _warning(name, value, low, high)
            for name, value, (low, high) in zip(JUDGED, judged, self.limits.tolist(), strict=True)
            if not low <= value <= high
        )

    @property
    def digest(self) -> str:
        """sha256 of all that intervals and warnings follow from."""
        return hashlib.sha256(self._payload() + repr(self.minimum).encode()).hexdigest()

    def _payload(self) -> bytes:
        """The arrays as they are stored."""
        arrays = {f"reference.{k}": v for k, v in self.reference.tensors().items()}
        arrays |= {f"strain.{k}": v for k, v in self.strain.tensors().items()}
        arrays["limits"] = self.limits
        for name, part in self.properties.items():
            arrays[f"{name}.scale"] = part.scale
            for kind, piece in (("difficulty", part.difficulty), ("widths", part.widths)):
                arrays |= {f"{name}.{kind}.{k}": v for k, v in piece.tensors().items()}
        return save_tensors({key: value.contiguous() for key, value in arrays.items()})

    def save(self, folder: Path) -> None:
        """Write both files, the arrays first, each whole or not at all."""
        payload = self._payload()
        document = {
            "format_version": CALIBRATION_VERSION,
            "model": self.model,
            "sha256": hashlib.sha256(payload).hexdigest(),
            "properties": list(self.properties),
            "minimum": list(self.minimum),
            "judged": list(JUDGED),
            "figures": self.figures,
        }
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        write_atomic(folder / ARRAYS_FILE, payload)
        write_atomic(folder / CALIBRATION_FILE, text.encode())

    @classmethod
    def load(cls, folder: Path, model: str) -> Calibration:
        """Read the calibration of a model folder.

        Args:
            folder: Model folder.
            model: Fingerprint of the model that was loaded from it.

        Raises:
            ReciNetError: If a file is missing, damaged, of a newer version, or belongs to
                other weights.
        """
        path, arrays = folder / CALIBRATION_FILE, folder / ARRAYS_FILE
        again = "run 'recinet calibrate' on the folder, or delete both calibration files"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            payload = arrays.read_bytes()
            version = document["format_version"]
            if version > CALIBRATION_VERSION:
                raise ReciNetError(
                    f"{path} has format version {version}; this recinet-ase reads up to "
                    f"{CALIBRATION_VERSION}. Upgrade recinet-ase"
                )
            if hashlib.sha256(payload).hexdigest() != document["sha256"]:
                raise ReciNetError(
                    f"{arrays} is damaged: its sha256 differs from {CALIBRATION_FILE}; copy the "
                    f"model again, {again}"
                )
            if document["model"] != model:
                raise ReciNetError(f"{path} was made for other weights than the folder's; {again}")
            if tuple(document["judged"]) != JUDGED:
                raise ReciNetError(f"{path} judges by other descriptors than this version; {again}")
            tensors = load_tensors(payload)
            return cls(
                reference=_build(Reference, tensors, "reference"),
                strain=_build(StrainEstimate, tensors, "strain"),
                limits=tensors["limits"],
                properties={
                    name: PropertyCalibration(
                        _build(Difficulty, tensors, f"{name}.difficulty"),
                        _build(Widths, tensors, f"{name}.widths"),
                        tensors[f"{name}.scale"],
                    )
                    for name in document["properties"]
                },
                minimum=tuple(document["minimum"]),
                model=model,
                figures=document["figures"],
            )
        except FileNotFoundError as error:
            raise ReciNetError(
                f"{error.filename} is missing: a calibration is two files; {again}"
            ) from None
        except ReciNetError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ReciNetError(f"{path} is not a calibration ({error!r}); {again}") from None


def present(folder: Path) -> bool:
    """Whether a folder holds a calibration, or a part of one."""
    return any((folder / name).exists() for name in (CALIBRATION_FILE, ARRAYS_FILE))


def keep_only(folder: Path, model: str, calibration: Calibration | None) -> None:
    """Leave a folder with the calibration that belongs to its model, or with none.

    Args:
        folder: Model folder.
        model: Fingerprint of the model stored there.
        calibration: To be written if it belongs to that model.
    """
    if calibration is not None and calibration.model == model:
        calibration.save(folder)
    elif present(folder):
        try:
            Calibration.load(folder, model)
        except ReciNetError:
            for name in (CALIBRATION_FILE, ARRAYS_FILE):
                (folder / name).unlink(missing_ok=True)


def _build(kind: type[_T], tensors: dict[str, torch.Tensor], prefix: str) -> _T:
    return kind(**{f.name: tensors[f"{prefix}.{f.name}"] for f in fields(kind)})


def outside(judged: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Whether each crystal is outside any of the limits ``[B]``."""
    return ((judged < limits[:, 0]) | (judged > limits[:, 1])).any(1)


def placed(found: Descriptors, reference: Reference, strain: StrainEstimate) -> Placement:
    """Crystals seen from the training set, with their strain."""
    place = reference.place(found)
    return replace(place, strain=strain(found, place.deviation))


def judged_by(found: Descriptors, place: Placement) -> torch.Tensor:
    """The quantities that have limits ``[B, len(JUDGED)]``."""
    coordination = found.geometry[:, GEOMETRY.index("mean_coordination")]
    columns = (place.distance[:, None], place.deviation, coordination[:, None])
    return torch.cat((*columns, place.strain[:, None]), dim=1)


_WORDS = {
    "log_volume": "volume per atom",
    "shortest_bond": "shortest bond",
    "mean_bond": "mean bond length",
    "loneliest_bond": "largest distance to a nearest neighbour",
}


def _warning(name: str, value: float, low: float, high: float) -> str:
    """What is unusual about a crystal, in words."""
    if name == "distance":
        return f"unlike the training crystals (latent distance {value:.1f}, usual up to {high:.1f})"
    if name == "strain":
        kind = "larger" if value > 0 else "smaller"
        percent = 100 * abs(math.expm1(value))
        return f"its volume seems {percent:.0f} % {kind} than at rest; relax it first"
    if name == "mean_coordination":
        return f"effective coordination number {value:.1f}, usual {low:.1f} to {high:.1f}"
    return (
        f"{_WORDS[name]} {math.exp(value):.2f} times what its elements suggest, usual "
        f"{math.exp(low):.2f} to {math.exp(high):.2f}"
    )
