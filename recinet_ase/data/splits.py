"""Train, validation and test ids, and the rules that make them.

All rules are deterministic, and none depends on the order of the rows unless it says so.
"""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recinet_ase.errors import ReciNetError, UnknownNameError

KINDS = ("published", "random", "composition", "fold")
FOLDS = 5
PUBLISHED_SEED = 123


@dataclass(frozen=True)
class SplitRule:
    """How crystals are divided into training, validation and test.

    Attributes:
        kind: ``"published"`` (the dataset's own), ``"random"``, ``"composition"`` (all crystals
            of one reduced formula on one side) or ``"fold"`` (one of five parts is the test).
        fold: Which part is the test, 0 to 4 (kind ``"fold"``).
        seed: Seed of the shuffle; of the validation part alone where the test is published.
        shares: Shares of training, validation and test. With folds the test is a fifth and the
            first two are the proportion in which the rest is divided.
    """

    kind: str = "random"
    fold: int = 0
    seed: int = PUBLISHED_SEED
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("split", self.kind, KINDS)
        if self.fold not in range(FOLDS):
            raise ReciNetError(f"fold {self.fold} is none of 0 to {FOLDS - 1}")
        train, val, test = self.shares
        if min(train, val) <= 0 or test < 0 or abs(train + val + test - 1) > 1e-9:
            raise ReciNetError(
                f"shares {self.shares} must add up to 1, with training and validation above 0"
            )

    @classmethod
    def parse(cls, text: str, seed: int = PUBLISHED_SEED) -> SplitRule:
        """The rule that a command line names: ``published``, ``random``, ``fold:2``, ...

        Raises:
            ReciNetError: If there is no such rule.
        """
        kind, _, fold = text.strip().partition(":")
        if fold and (kind != "fold" or not fold.isdecimal()):
            raise ReciNetError(f"split {text!r}: only folds are numbered, as in 'fold:2'")
        return cls(kind, fold=int(fold or 0), seed=seed)

    def __str__(self) -> str:
        return f"{self.kind}:{self.fold}" if self.kind == "fold" else self.kind


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


def joined_split(splits: Sequence[Split]) -> Split:
    """Splits of several sets of crystals as one; what one of them holds out is never trained on."""
    train = {key: value for split in splits for key, value in split.train.items()}
    val = {key: value for split in splits for key, value in split.val.items()}
    joined = Split(train, val, tuple(dict.fromkeys(key for s in splits for key in s.test)))
    return joined.without(joined.held_out)


def published_recipe(
    labels: Mapping[str, float],
    sizes: tuple[int, int, int] | None = None,
    seed: int = PUBLISHED_SEED,
) -> Split:
    """The split that ALIGNN and the papers after it make when they read a release.

    Ids in file order are shuffled by Python's ``random``; training comes first, test last,
    validation just before it.

    Args:
        labels: Value of each id, in the order of the release's file.
        sizes: Crystals in training, validation and test; 80, 10 and 10 % (rounded down) if None.
        seed: Seed of the shuffle.

    Raises:
        ReciNetError: If there are fewer crystals than sizes ask for.
    """
    ids = list(labels)
    random.Random(seed).shuffle(ids)
    n_train, n_val, n_test = sizes or tuple(int(s * len(ids)) for s in (0.8, 0.1, 0.1))
    if n_train + n_val + n_test > len(ids) or min(n_train, n_val, n_test) < 1:
        raise ReciNetError(f"{len(ids)} labels cannot be split into {n_train} + {n_val} + {n_test}")
    return _split(labels, ids[:n_train], ids[-n_val - n_test : -n_test], ids[-n_test:])


def random_split(labels: Mapping[str, float], rule: SplitRule) -> Split:
    """A random split: every crystal is used, and each part has at least one.

    Raises:
        ReciNetError: If there are fewer than three crystals.
    """
    ids = _shuffled(labels, rule.seed)
    _require_three(len(ids), "crystals")
    n_val, n_test = (
        max(share > 0, round(share * len(ids))) for share in (rule.shares[1], rule.shares[2])
    )
    n_train = max(1, len(ids) - n_val - n_test)
    n_test = min(n_test, len(ids) - n_train - 1)
    at = len(ids) - n_test
    return _split(labels, ids[:n_train], ids[n_train:at], ids[at:])


def composition_split(
    labels: Mapping[str, float], formulas: Mapping[str, str], rule: SplitRule
) -> Split:
    """A random split of formulas: all crystals of one formula are on the same side.

    A formula goes to the test, then to validation, if it still fits into that part's share,
    and else to training; the shares are met as nearly as the sizes of the groups allow.

    Args:
        labels: Value of each id.
        formulas: Reduced formula of each id.
        rule: Seed and shares.

    Raises:
        ReciNetError: If there are fewer than three formulas.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for key in sorted(labels):
        groups[formulas[key]].append(key)
    _require_three(len(groups), "different formulas")
    room = {part: rule.shares[part] * len(labels) for part in (1, 2)}
    parts: list[list[str]] = [[], [], []]
    order = _shuffled(groups, rule.seed)
    for formula in order:
        group = groups[formula]
        part = next((p for p in (2, 1) if len(parts[p]) + len(group) <= room[p]), 0)
        parts[part] += group
    # Few or large groups may fit nowhere: the smallest then fill what must not be empty.
    spare = sorted(order, key=lambda formula: len(groups[formula]))
    for part in (1, 2):
        if not parts[part] and rule.shares[part] > 0:
            formula = next(f for f in spare if groups[f][0] in parts[0])
            spare.remove(formula)
            parts[0] = [key for key in parts[0] if formulas[key] != formula]
            parts[part] += groups[formula]
    return _split(labels, *parts)


def fold_split(labels: Mapping[str, float], test: Iterable[str], rule: SplitRule) -> Split:
    """A fold: the test is given, and validation is carved out of the rest by seed.

    Args:
        labels: Value of each id.
        test: Ids of the test part; their labels are in no part of the result.
        rule: Seed, and shares of training and validation.

    Raises:
        ReciNetError: If fewer than two crystals remain.
    """
    test = tuple(test)
    rest = _shuffled(set(labels) - set(test), rule.seed)
    if len(rest) < 2:
        raise ReciNetError(f"{len(rest)} crystals outside the test fold; two are needed")
    train, val, _ = rule.shares
    n_val = min(max(1, round(val / (train + val) * len(rest))), len(rest) - 1)
    return _split(labels, rest[n_val:], rest[:n_val], test)


def kfold(ids: Sequence[str], seed: int) -> list[list[str]]:
    """The five test parts of scikit-learn's ``KFold(5, shuffle=True, random_state=seed)``.

    Args:
        ids: Identifiers in file order.
        seed: Seed; MatBench's is 18012019.

    Returns:
        Ids of each part, in file order.

    Raises:
        ReciNetError: If there are fewer ids than parts.
    """
    if len(ids) < FOLDS:
        raise ReciNetError(f"{len(ids)} crystals cannot be divided into {FOLDS} folds")
    order = np.arange(len(ids))
    np.random.RandomState(seed).shuffle(order)
    return [[ids[i] for i in sorted(part)] for part in np.array_split(order, FOLDS)]


def _shuffled(ids: Iterable[str], seed: int) -> list[str]:
    """Ids in an order that depends on the set of ids and the seed alone."""
    shuffled = sorted(ids)
    random.Random(seed).shuffle(shuffled)
    return shuffled


def _require_three(n: int, what: str) -> None:
    if n < 3:
        raise ReciNetError(
            f"{n} {what} with a label: training, validation and test need at least one each"
        )


def _split(
    labels: Mapping[str, float], train: Iterable[str], val: Iterable[str], test: Iterable[str]
) -> Split:
    return Split({k: labels[k] for k in train}, {k: labels[k] for k in val}, tuple(test))


def ids_digest(ids: Iterable[str]) -> str:
    """sha256 of a set of ids (sorted, one a line): what a model card records of its training."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
