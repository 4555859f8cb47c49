"""Train, validation and test ids, and the rule that keeps them apart."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recinet_ase.errors import ReciNetError


@dataclass(frozen=True)
class Split:
    """One task's split: labels by id.

    Attributes:
        train: Value of each training id.
        val: Value of each validation id.
        test: Ids of the test set (labels, where known, are never read by training).
    """

    train: dict[str, float]
    val: dict[str, float]
    test: tuple[str, ...]

    @property
    def held_out(self) -> set[str]:
        """Ids that no model of this property may see as a training label of any property."""
        return set(self.val) | set(self.test)

    def without(self, ids: Iterable[str]) -> Split:
        """The same split with ids removed from training (not from validation or test)."""
        ids = set(ids)
        kept = {key: value for key, value in self.train.items() if key not in ids}
        return Split(kept, self.val, self.test)


def read_json_zip(path: Path) -> object:
    """The single json document of a ``.json.zip`` as JARVIS publishes them.

    Raises:
        ReciNetError: If the file is missing or broken.
    """
    if not path.exists():
        raise ReciNetError(f"no such file: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(".json")]
            if len(names) != 1:
                raise ReciNetError(f"{path} holds {len(names)} json files, expected one")
            return json.loads(archive.read(names[0]))
    except (zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise ReciNetError(f"{path} is not a readable json.zip ({error}); fetch it again") from None


def leaderboard_split(path: Path) -> Split:
    """A JARVIS-Leaderboard benchmark file ``dft_3d_<property>.json.zip``.

    An id that the file lists for training and for validation or test as well is taken out
    of training.

    Raises:
        ReciNetError: If the file is missing, broken or lacks a part.
    """
    data = read_json_zip(path)
    if not isinstance(data, dict) or not {"train", "val", "test"} <= set(data):
        raise ReciNetError(f"{path} lacks one of 'train', 'val' and 'test'")

    def labelled(part: str) -> dict[str, float]:
        values = {str(key): value for key, value in data[part].items()}
        empty = [key for key, value in values.items() if value is None]
        if empty:
            raise ReciNetError(f"{path}: {part} id {empty[0]} has no value")
        return {key: float(value) for key, value in values.items()}

    split = Split(labelled("train"), labelled("val"), tuple(map(str, data["test"])))
    # Two official files repeat an id in train and test (JVASP-96735) or validation.
    return split.without(split.held_out)


def ids_digest(ids: Iterable[str]) -> str:
    """sha256 of a set of ids (sorted, one a line): what a model card records of its training."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
