"""Datasets by name or path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recinet_ase.data.dataset import Dataset
from recinet_ase.errors import ReciNetError, UnknownNameError


def dataset_names() -> list[str]:
    """Names that `open_dataset` knows."""
    from recinet_ase.data.matbench import MATBENCH
    from recinet_ase.data.mlearn import NAMES
    from recinet_ase.data.published import DATASETS
    from recinet_ase.data.unlabelled import UNLABELLED

    return [*DATASETS, *UNLABELLED, *MATBENCH, *NAMES]


def open_dataset(
    spec: str,
    data_dir: str | Path | None = None,
    *,
    target: str | None = None,
    prop: str | None = None,
    unit: str | None = None,
    labels: Sequence[str] = (),
) -> Dataset:
    """A dataset by name, or one's own data by path.

    Args:
        spec: A name (`dataset_names`), or the path of an ASE database, an extended xyz file, a
            trajectory, a csv or json table, or a folder with ``id_prop.csv``. A name wins over
            a path; write ``./jarvis`` for a folder of that name. Several names joined by ``+``
            are one dataset (`recinet_ase.data.joint`).
        data_dir: Folder of the named datasets, else ``RECINET_DATA_DIR``.
        target: Key or column of the labels (own data); found by itself if there is one choice.
        prop: Property that the labels are of; the target's own name if that is a property.
        unit: Unit of the labels; the property's own if None. A property that is not in the
            registry needs one.
        labels: Further labels from files, ``PROPERTY[SOURCE]=PATH`` each.

    Raises:
        UnknownNameError: If ``spec`` is neither, or names no property.
        ReciNetError: If the data, the target or the unit cannot be used.
    """
    from recinet_ase.data.joint import SEPARATOR, JointDataset, Labels
    from recinet_ase.data.matbench import MATBENCH, MatBench
    from recinet_ase.data.mlearn import NAMES, MLearn
    from recinet_ase.data.own import open_own
    from recinet_ase.data.published import DATASETS, Published
    from recinet_ase.data.unlabelled import UNLABELLED, Unlabelled

    names = spec.split(SEPARATOR)
    if labels or (len(names) > 1 and set(names) & set(dataset_names())):
        if target is not None or unit is not None:
            raise ReciNetError("--target and --unit are for your own data, alone")
        members = [open_dataset(name, data_dir) for name in names]
        return JointDataset(members, [Labels(text) for text in labels])
    named: Dataset
    if spec in DATASETS:
        named = Published(DATASETS[spec], data_dir)
    elif spec in UNLABELLED:
        named = Unlabelled(spec, data_dir)
    elif spec in MATBENCH:
        named = MatBench(MATBENCH[spec], data_dir)
    elif spec in NAMES:
        named = MLearn(spec, data_dir)
    elif Path(spec).expanduser().exists():
        return open_own(
            Path(spec).expanduser(), target=target, prop=prop, unit=unit, taken=dataset_names()
        )
    elif "/" in spec or Path(spec).suffix:
        raise ReciNetError(f"no such dataset, file or folder: {spec}")
    else:
        raise UnknownNameError("dataset", spec, dataset_names())
    if target is not None:
        raise ReciNetError(f"{spec} has its own labels; --target is for your own data")
    if prop is not None:
        info = named.info(prop)
        if unit is not None and unit != info.unit:
            raise ReciNetError(f"{spec} gives {info.name} in {info.unit or '1'}, not {unit!r}")
    return named
