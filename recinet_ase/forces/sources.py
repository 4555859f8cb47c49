"""Where labelled cells come from: mlearn, or one's own files as ASE reads them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.data.conversion import ConversionStopped
from recinet_ase.data.mlearn import NAMES as MLEARN
from recinet_ase.data.mlearn import MLearn
from recinet_ase.data.rejected import check_share
from recinet_ase.data.splits import (
    Split,
    SplitRule,
    composition_split,
    fold_split,
    kfold,
    random_split,
)
from recinet_ase.data.store import cache_dir
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.forces.labels import (
    KBAR,
    UNITS,
    Collector,
    LabelledCells,
    check_stress,
)
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.formula import reduced_counts
from recinet_ase.graph.adapters import to_crystal

if TYPE_CHECKING:
    from ase import Atoms

PREFIXES = ("REF_", "dft_", "DFT_")
"""Prefixes that MACE's files and others give the keys of labels, which ASE does not know."""

_FILES = (".xyz", ".extxyz", ".db", ".json", ".traj", ".xml", ".gz")
_CACHE_FROM = 2_000  # cells
_VERSION = 1


def read_labelled(
    config: ForceTrainingConfig,
    network: ForceNetworkConfig,
    data_dir: str | Path | None = None,
    cache: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    message: Callable[[str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[LabelledCells, dict[str, str]]:
    """The cells of a run's data.

    Args:
        config: Settings of the run.
        network: The network that they are for.
        data_dir: Folder of the named datasets, else ``RECINET_DATA_DIR``.
        cache: Folder where large sets are kept once read.
        progress: Called with the number of cells read, and that of all if known.
        message: Called with what the user should know.
        stop: Asked after each configuration whether to stop.

    Returns:
        The cells, and the rows left out, by id, with the reason.

    Raises:
        ConversionStopped: If it was time to stop.
        ReciNetError: If the data are missing, no force data, too many of them bad, or their
            stresses are no derivatives of their energies.
    """
    if config.units not in UNITS:
        raise UnknownNameError("units", config.units, UNITS)
    if config.dataset in MLEARN:
        found, rejected = _mlearn(config.dataset, network, data_dir), dict[str, str]()
    else:
        path = Path(config.dataset).expanduser()
        if not path.exists():
            raise ReciNetError(
                f"{config.dataset} is neither mlearn nor a file or folder with forces"
            )
        found, rejected = _own(path, config, network, cache, progress, message, stop)
    check_share(rejected, len(found) + len(rejected), config.max_bad)
    if "energy" not in config.properties:
        found = replace(found, energy=np.full_like(found.energy, np.nan))
    if "stress" not in config.properties:
        return replace(found, stress=np.full_like(found.stress, np.nan)), rejected
    return check_stress(found, config.units), rejected


def _mlearn(name: str, network: ForceNetworkConfig, data_dir: str | Path | None) -> LabelledCells:
    collector = Collector(network)
    for c in MLearn(name, data_dir).configurations():
        crystal = to_crystal(c.structure)
        energy = c.energy * len(crystal)
        collector.add(c.id, crystal, energy, c.forces, stress_of(c.stress))
    return collector.cells()


def stress_of(vasp: np.ndarray) -> np.ndarray:
    """Mlearn's six numbers as a stress tensor in eV/angstrom^3.

    The files state neither unit, sign nor order. The data do
    (``benchmarks/forces/mlearn_stress.py``): kilobar, positive under compression as VASP prints
    them, in the order xx, yy, zz, xy, zx, yz.
    """
    xx, yy, zz, xy, zx, yz = -KBAR * np.asarray(vasp, dtype=np.float64)
    return np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])


def _own(
    path: Path,
    config: ForceTrainingConfig,
    network: ForceNetworkConfig,
    cache: str | Path | None,
    progress: Callable[[int, int], None] | None,
    message: Callable[[str], None] | None,
    stop: Callable[[], bool],
) -> tuple[LabelledCells, dict[str, str]]:
    """Labelled cells of a file or folder of one's own, kept in the cache where there is one."""
    files = sorted(f for f in path.rglob("*") if f.suffix in _FILES) if path.is_dir() else [path]
    if not files:
        raise ReciNetError(f"{path} has no files with forces ({', '.join(_FILES)})")
    digest = hashlib.sha256(
        repr((_VERSION, network.cutoff, network.k_max, config.target, config.units)).encode()
    )
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    kept = cache_dir(cache) / f"{path.name.split('.')[0]}-forces-{digest.hexdigest()[:16]}.npz"
    if kept.exists():
        return LabelledCells.load(kept)
    collector = Collector(network)
    prefix = config.target
    many = len(files) > 1
    for file in files:
        for number, atoms in _frames(file, collector.rejected):
            if prefix is None:
                prefix = _prefix(atoms)
                if message is not None:
                    message(
                        f"{path.name}: labels are {prefix}energy, {prefix}forces and "
                        f"{prefix}stress, stresses in the units of {config.units}"
                    )
            key = _id(atoms, f"{file.name}:{number}" if many else str(number))
            _add(collector, key, atoms, prefix, UNITS[config.units])
            if progress is not None:
                progress(number + 1, 0)
            if stop():
                raise ConversionStopped(f"stopped while reading {file.name}")
    cells = collector.cells()
    if len(cells) >= _CACHE_FROM:
        cells.save(kept, collector.rejected)
    return cells, collector.rejected


def _frames(file: Path, rejected: dict[str, str]) -> Iterator[tuple[int, Atoms]]:
    """The structures of a file; where it cannot be read on, that is noted."""
    import ase.io

    number = 0
    try:
        for atoms in ase.io.iread(file, ":"):
            yield number, atoms
            number += 1
    except ReciNetError:
        raise
    except Exception as error:
        rejected[f"{file.name}:{number}"] = (
            f"the file cannot be read from here on ({type(error).__name__}: {error})"
        )


def _prefix(atoms: Atoms) -> str:
    """The prefix of the labels' keys, by the first structure: one of `PREFIXES`, or none."""
    return next((p for p in PREFIXES if f"{p}forces" in atoms.arrays), "")


def _id(atoms: Atoms, number: str) -> str:
    for key in ("id", "material_id", "jid", "mp_id"):
        if isinstance(atoms.info.get(key), str):
            return f"{atoms.info[key]}:{number}"
    return number


def _add(collector: Collector, key: str, atoms: Atoms, prefix: str, unit: float) -> None:
    """Hand a structure with its labels to the collector."""
    results = {} if atoms.calc is None else atoms.calc.results
    known = atoms.info.get("data") or {}  # of an ASE database's row
    energy, forces, stress, virial = (
        next(
            (
                source[f"{prefix}{name}"]
                for source in (atoms.info, atoms.arrays, results, known)
                if f"{prefix}{name}" in source
            ),
            None,
        )
        for name in ("energy", "forces", "stress", "virials")
    )
    part = str(atoms.info.get("split", ""))
    try:
        if forces is None:
            raise ReciNetError(f"has no {prefix}forces")
        crystal = to_crystal(atoms)
        if stress is not None:
            stress = unit * _tensor(stress)
        elif virial is not None:
            stress = -_tensor(virial) / crystal.volume
    except (ReciNetError, ValueError) as error:
        collector.rejected[key] = str(error)
        return
    value: Any = None if energy is None else float(np.asarray(energy))
    collector.add(
        key, crystal, value, np.asarray(forces), stress,
        part if part in ("train", "val", "test") else "",
    )  # fmt: skip


def _tensor(stress: Any) -> np.ndarray:
    """A stress as ``[3, 3]``, from that, nine numbers, or six in Voigt order.

    Raises:
        ValueError: If it is something else.
    """
    values = np.asarray(stress, dtype=np.float64).ravel()
    if values.size == 9:
        tensor = values.reshape(3, 3)
        return 0.5 * (tensor + tensor.T)
    if values.size == 6:
        return np.asarray(values[[0, 5, 4, 5, 1, 3, 4, 3, 2]]).reshape(3, 3)
    raise ValueError(f"a stress of {values.size} numbers")


def divide(
    cells: LabelledCells, config: ForceTrainingConfig
) -> tuple[list[int], list[int], list[int]]:
    """Positions of the training, validation and test cells.

    The data's own division is taken unless the run asks for another; a random one otherwise.

    Raises:
        ReciNetError: If there is no such division.
    """
    said = any(cells.parts)
    rule = config.rule or SplitRule("published" if said else "random", seed=config.split_seed)
    position = {key: i for i, key in enumerate(cells.ids)}
    split: Split
    labels = dict.fromkeys(cells.ids, 0.0)
    if rule.kind == "published":
        parts = {
            part: [i for i, p in enumerate(cells.parts) if p == part] for part in set(cells.parts)
        }
        if not parts.get("train") or not parts.get("val"):
            raise ReciNetError(
                f"{config.dataset} does not say which cells are for training and which for "
                "validation (split=train, split=val); choose --split-by random or composition"
            )
        train, val, test = parts["train"], parts["val"], parts.get("test", [])
    else:
        if rule.kind == "composition":
            formulas = {
                key: _formula(cells.numbers[a:b])
                for key, a, b in zip(cells.ids, cells.start[:-1], cells.start[1:], strict=True)
            }
            split = composition_split(labels, formulas, rule)
        elif rule.kind == "fold":
            split = fold_split(labels, kfold(sorted(labels), rule.seed)[rule.fold], rule)
        else:
            split = random_split(labels, rule)
        train, val, test = (
            [position[key] for key in part] for part in (split.train, split.val, split.test)
        )
    if config.limit is not None:
        rng = np.random.default_rng(config.seed)
        train = [train[i] for i in sorted(rng.permutation(len(train))[: config.limit])]
    return train, val, test


def _formula(numbers: np.ndarray) -> str:
    counts = reduced_counts(Counter(numbers.tolist()))
    return " ".join(f"{z}:{n}" for z, n in sorted(counts.items()))
