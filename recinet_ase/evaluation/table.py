"""Predictions beside their targets, in memory and as the csv that JARVIS-Leaderboard reads."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recinet_ase.errors import ReciNetError

FloatArray = npt.NDArray[np.float64]
COLUMNS = ("id", "target", "prediction")


@dataclass(frozen=True)
class PredictionTable:
    """Targets and predictions of n crystals.

    Attributes:
        ids: Id of each crystal.
        targets: True values ``[n]`` in the property's unit, NaN where withheld.
        predictions: Predicted values ``[n]``, NaN where the model refused.
        elements: Chemical symbols that each crystal contains, ``()`` where unknown.
        n_atoms: Atoms in each cell ``[n]``, 0 where unknown.
        errors: Why a prediction is missing, ``""`` where it is not.
    """

    ids: tuple[str, ...]
    targets: FloatArray
    predictions: FloatArray
    elements: tuple[tuple[str, ...], ...]
    n_atoms: npt.NDArray[np.int64]
    errors: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(part) for part in self.__dict__.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        targets: npt.ArrayLike,
        predictions: npt.ArrayLike,
        elements: Sequence[Sequence[str]] | None = None,
        n_atoms: npt.ArrayLike | None = None,
        errors: Sequence[str] | None = None,
    ) -> PredictionTable:
        """A table from sequences; what is not given is unknown."""
        n = len(ids)
        return cls(
            tuple(ids),
            np.asarray(targets, dtype=np.float64).reshape(-1),
            np.asarray(predictions, dtype=np.float64).reshape(-1),
            tuple(map(tuple, elements)) if elements is not None else ((),) * n,
            np.zeros(n, np.int64) if n_atoms is None else np.asarray(n_atoms, dtype=np.int64),
            tuple(errors) if errors is not None else ("",) * n,
        )

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which targets are known ``[n]``."""
        return np.isfinite(self.targets)

    @property
    def refused(self) -> npt.NDArray[np.bool_]:
        """Which crystals have no prediction ``[n]``."""
        return ~np.isfinite(self.predictions)

    @property
    def absolute_errors(self) -> FloatArray:
        """Distance of prediction and target ``[n]``, NaN where either is missing."""
        return np.abs(self.predictions - self.targets)

    def select(self, chosen: npt.NDArray[np.bool_]) -> PredictionTable:
        """The rows where ``chosen`` is true."""
        at = np.flatnonzero(chosen)
        return PredictionTable(
            tuple(self.ids[i] for i in at),
            self.targets[at],
            self.predictions[at],
            tuple(self.elements[i] for i in at),
            self.n_atoms[at],
            tuple(self.errors[i] for i in at),
        )

    def scored(self) -> PredictionTable:
        """The rows with both a target and a prediction."""
        return self.select(self.labelled & ~self.refused)

    def to_csv(self) -> str:
        """``id,target,prediction``; numbers in full, so that reading gives them back exactly."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key, target, prediction in zip(
            self.ids, self.targets.tolist(), self.predictions.tolist(), strict=True
        ):
            writer.writerow(
                [key, *("" if math.isnan(x) else repr(x) for x in (target, prediction))]
            )
        return text.getvalue()

    @classmethod
    def from_csv(cls, path: Path) -> PredictionTable:
        """Read a prediction file (``.csv`` or ``.csv.zip``) with ``id`` and ``prediction``.

        Raises:
            ReciNetError: If the file is missing, has other columns, repeats an id or holds
                something that is no number.
        """
        rows = csv.DictReader(_text(path).splitlines())
        if not {"id", "prediction"} <= set(rows.fieldnames or ()):
            raise ReciNetError(
                f"{path} is no prediction file: its first line must name the columns "
                f"{','.join(COLUMNS)} (target may be left out)"
            )
        ids: dict[str, None] = {}
        columns: dict[str, list[float]] = {"target": [], "prediction": []}
        for number, row in enumerate(rows, 2):
            key = (row["id"] or "").strip()
            if not key or key in ids:
                problem = f"the id {key!r} occurs twice" if key else "the id is missing"
                raise ReciNetError(f"{path}, line {number}: {problem}")
            ids[key] = None
            for name, values in columns.items():
                text = (row.get(name) or "").strip()
                try:
                    values.append(float(text) if text else math.nan)
                except ValueError:
                    raise ReciNetError(
                        f"{path}, line {number}: {name} {text!r} is no number"
                    ) from None
        return cls.of(list(ids), columns["target"], columns["prediction"])


def _text(path: Path) -> str:
    """The text of a csv, or of the one csv in a zip archive.

    Raises:
        ReciNetError: If it cannot be read.
    """
    try:
        if path.suffix != ".zip":
            return path.read_text(encoding="utf-8-sig")
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".csv")]
            if len(names) != 1:
                raise ReciNetError(f"{path} holds {len(names)} csv files, expected one")
            return archive.read(names[0]).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise ReciNetError(f"cannot read {path}: {error}") from None
