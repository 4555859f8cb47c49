"""JARVIS and the Materials Project's MEGNet set: structures, labels and official splits.

The files are the publishers' own downloads. Where one is missing and jarvis-tools is
installed, it is fetched into the data folder; nothing is shipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.extraction import FUNCTIONAL_TASKS, Extraction
from recinet_ase.data.faults import JARVIS_MBJ_GAPS
from recinet_ase.data.fetch import data_root, fetch_jarvis
from recinet_ase.data.splits import (
    Split,
    SplitRule,
    joined_split,
    leaderboard_split,
    published_recipe,
    read_json_zip,
)
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.properties import PropertyInfo, get_property_info

_SUFFIX = ".json.zip"


@dataclass(frozen=True)
class PublishedDataset:
    """A dataset with official splits, read from its publisher's files.

    Attributes:
        name: Name for ``--dataset``, and the folder under the data root.
        archive: File name of the structures, a json.zip of records with ``atoms``.
        id_key: Key of a record's id.
        tasks: File stem of each property's split, by canonical property name.
        functional: Level of theory (and what average, where there are several), by property;
            ``""`` is that of all others.
        faults: Ids whose label is known to be wrong, by property.
        keys: Key of each property's label in a record.
        derived: How the label follows from a record, for properties that are no plain column;
            their split files say which crystals belong where, the records give the labels.
        additions: What stands before the suffix in the names of further files with crystals of the
            same release and their splits, e.g. ``"cells-2025"``; they are read where they are.
        release: jarvis-tools' name of the archive.
        size: Crystals in the release.
        labelled: Crystals with a label in the release, by property, where published.
        sizes: Crystals in training, validation and test by the published recipe, if not 80,
            10 and 10 %, by property.
    """

    name: str
    archive: str
    id_key: str
    tasks: Mapping[str, str]
    functional: Mapping[str, str]
    faults: Mapping[str, frozenset[str]] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, Extraction] = field(default_factory=dict)
    additions: tuple[str, ...] = ()
    release: str = ""
    size: int = 0
    labelled: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def archive_path(self, data_dir: str | Path | None = None) -> Path:
        """Path of the structures, in ``<data>/<name>`` or ``<data>`` itself, fetched if missing.

        Raises:
            ReciNetError: If the file is in neither and cannot be fetched.
        """
        root = data_root(data_dir)
        for candidate in (root / self.name / self.archive, root / self.archive):
            if candidate.exists():
                return candidate
        return fetch_jarvis(self.release, root / self.name / self.archive)

    def source_files(self, data_dir: str | Path | None = None) -> list[Path]:
        """The files of the structures: the archive, and the additions that are at hand.

        Raises:
            ReciNetError: If the archive is missing and cannot be fetched.
        """
        archive = self.archive_path(data_dir)
        stem = archive.name.removesuffix(_SUFFIX)
        further = (archive.parent / f"{stem}-{name}{_SUFFIX}" for name in self.additions)
        return [archive, *(path for path in further if path.exists())]

    def records(self, data_dir: str | Path | None = None) -> dict[str, dict[str, Any]]:
        """All entries by id, in file order; of two with one id, the archive's.

        Raises:
            ReciNetError: If a file is missing, broken or of another kind.
        """
        by_id: dict[str, dict[str, Any]] = {}
        for path in self.source_files(data_dir):
            entries = read_json_zip(path)
            if not isinstance(entries, list) or not entries or self.id_key not in entries[0]:
                raise ReciNetError(f"{path} is not the {self.name} archive")
            for entry in entries:
                by_id.setdefault(str(entry[self.id_key]), entry)
        return by_id

    def check_hull(self, name: str) -> None:
        """Tell whoever asks for JARVIS' ``ehull`` what it is called here.

        Raises:
            ReciNetError: If that is what ``name`` asks for.
        """
        if name == "ehull" and "ehull_label" in self.tasks:
            raise ReciNetError(
                f"the key 'ehull' of {self.name} is a faulty label, no distance to the hull "
                "(docs/concepts/limits.md); it is kept for the benchmark as ehull_label. The "
                "property ehull is computed from formation energies"
            )

    def split_name(self, info: PropertyInfo) -> str:
        """File stem of a property's split.

        Raises:
            UnknownNameError: If the dataset has no such property.
        """
        self.check_hull(info.name)
        if info.name not in self.tasks:
            raise UnknownNameError(f"{self.name} property", info.name, self.tasks)
        return self.tasks[info.name]

    def split(
        self,
        info: PropertyInfo,
        data_dir: str | Path | None = None,
        labels: Mapping[str, float] | None = None,
    ) -> Split:
        """The official split of a property, known faults taken out of training.

        It is read from the leaderboard's file; where there is none it is made by the published
        recipe (`recinet_ase.data.splits.published_recipe`), which needs the whole release.

        Args:
            info: The property.
            data_dir: Data folder.
            labels: The property's labels in the records, if they are already read.

        Raises:
            UnknownNameError: If the dataset has no such property.
            ReciNetError: If the file is missing or broken, and the archive is not the whole
                release.
        """
        split = self.listed_split(info, data_dir)
        from_file = split is not None
        if split is None:
            split = self._by_recipe(info, data_dir)
        if from_file and info.name in self.derived:
            if labels is None:
                labels = self.record_labels(self.records(data_dir))[info.name]
            train, val = (
                {key: labels[key] for key in part if key in labels}
                for part in (split.train, split.val)
            )
            split = Split(train, val, split.test)
        return split.without(self.faults.get(info.name, ()))

    def listed_split(self, info: PropertyInfo, data_dir: str | Path | None = None) -> Split | None:
        """The split in the leaderboard's file and in those of the additions at hand.

        Returns:
            None if the leaderboard's file is missing.

        Raises:
            UnknownNameError: If the dataset has no such property.
            ReciNetError: If a file is broken.
        """
        name = self.split_name(info)
        archive, *further = self.source_files(data_dir)
        stem = archive.name.removesuffix(_SUFFIX)
        parts = []
        for path in (archive, *further):
            file = f"{name}{path.name.removesuffix(_SUFFIX).removeprefix(stem)}{_SUFFIX}"
            at = next(
                (f for f in (path.parent / "splits" / file, path.parent / file) if f.exists()), None
            )
            if at is not None:
                parts.append(leaderboard_split(at))
            elif path is archive:
                return None
        return joined_split(parts)

    def _by_recipe(self, info: PropertyInfo, data_dir: str | Path | None) -> Split:
        """The split that the published recipe makes of a whole release."""
        if info.name in self.derived:
            folder = self.archive_path(data_dir).parent
            raise ReciNetError(
                f"{self.split_name(info)}.json.zip is neither in {folder / 'splits'} nor in "
                f"{folder}, and which labels it leaves out cannot be told from the archive. Put "
                "the leaderboard's split file there, or choose --split-by random"
            )
        records = self.records(data_dir)
        labels = self.record_labels(records)[info.name]
        expected = self.labelled.get(info.name, len(labels))
        if len(records) != self.size or len(labels) != expected:
            folder = self.archive_path(data_dir).parent
            raise ReciNetError(
                f"{self.split_name(info)}.json.zip is neither in {folder / 'splits'} nor in "
                f"{folder}, and the split cannot be made anew: that needs the whole release of "
                f"{self.size} crystals with all labels, and {self.archive} has {len(records)} "
                f"crystals and {len(labels)} labels of {info.name}. Put the leaderboard's split "
                "file there"
            )
        return published_recipe(labels, self.sizes.get(info.name))

    def record_labels(
        self, records: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, float]]:
        """The labels in the records, by property and id, in file order."""
        labels: dict[str, dict[str, float]] = {name: {} for name in self.tasks}
        rules = {name: Extraction((column,)) for name, column in self.keys.items()}
        for key, record in records.items():
            for name, rule in {**rules, **self.derived}.items():
                value = rule.label(record)
                if value is not None:
                    labels[name][key] = value
        return labels

    def functional_of(self, info: PropertyInfo) -> str:
        """Level of theory of a property."""
        return self.functional.get(info.name, self.functional[""])


_JARVIS_KEYS = {
    "formation_energy": "formation_energy_peratom",
    "total_energy": "optb88vdw_total_energy",
    "ehull_label": "ehull",
    "bandgap": "mbj_bandgap",
    "bandgap_opt": "optb88vdw_bandgap",
    "bulk_modulus": "bulk_modulus_kv",
    "shear_modulus": "shear_modulus_gv",
    "exfoliation_energy": "exfoliation_energy",
}
_MEGNET_SIZES = (60_000, 5_000, 4_239)

JARVIS = PublishedDataset(
    name="jarvis",
    archive="jdft_3d-8-18-2021.json.zip",
    id_key="jid",
    tasks={
        name: f"dft_3d_{key}"
        for name, key in (
            *_JARVIS_KEYS.items(),
            *((name, task) for name, (task, _) in FUNCTIONAL_TASKS.items()),
        )
    },
    functional={
        "": "OptB88vdW",
        **dict.fromkeys(("bandgap", "dielectric", "slme"), "TB-mBJ"),
        **dict.fromkeys(("bulk_modulus", "shear_modulus"), "OptB88vdW, Voigt average"),
    },
    faults={"bandgap": JARVIS_MBJ_GAPS},
    keys=_JARVIS_KEYS,
    derived={name: rule for name, (_, rule) in FUNCTIONAL_TASKS.items()},
    release="dft_3d_2021",
    size=55_723,
    labelled={
        **dict.fromkeys(("formation_energy", "total_energy", "bandgap_opt"), 55_723),
        "ehull_label": 55_371,
        "bandgap": 18_172,
    },
)
"""JARVIS-DFT 3D, 2021 release, with the JARVIS-Leaderboard splits (Choudhary 2020)."""

MATERIALS_PROJECT = PublishedDataset(
    name="mp",
    archive="megnet.json.zip",
    id_key="id",
    tasks={
        "formation_energy": "megnet_e_form",
        "bandgap": "megnet_gappbe",
        "bulk_modulus": "megnet_bulk_modulus",
        "shear_modulus": "megnet_shear_modulus",
    },
    functional={
        "": "PBE",
        **dict.fromkeys(("bulk_modulus", "shear_modulus"), "PBE, Voigt-Reuss-Hill average"),
    },
    keys={
        "formation_energy": "e_form",
        "bandgap": "gap pbe",
        "bulk_modulus": "bulk modulus",
        "shear_modulus": "shear modulus",
    },
    additions=("cells-2025",),
    release="megnet",
    size=69_239,
    labelled={"formation_energy": 69_239, "bandgap": 69_239},
    sizes={"formation_energy": _MEGNET_SIZES, "bandgap": _MEGNET_SIZES},
)
"""Materials Project, MEGNet 2018.6.1 set (Chen 2019)."""

DATASETS = {dataset.name: dataset for dataset in (JARVIS, MATERIALS_PROJECT)}


def get_dataset(name: str) -> PublishedDataset:
    """A dataset by name.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    try:
        return DATASETS[name]
    except KeyError:
        raise UnknownNameError("dataset", name, DATASETS) from None


class Published(Dataset):
    """A published dataset in a data folder.

    Args:
        definition: Which one.
        data_dir: Data folder, else ``RECINET_DATA_DIR``.
    """

    default_rule = SplitRule("published")

    def __init__(self, definition: PublishedDataset, data_dir: str | Path | None = None) -> None:
        self.definition, self.data_dir = definition, data_dir
        self.name, self.properties = definition.name, tuple(definition.tasks)

    def info(self, name: str) -> PropertyInfo:
        """What one of the properties is."""
        with suppress(UnknownNameError):
            self.definition.check_hull(get_property_info(name).name)
        return super().info(name)

    def source_files(self) -> list[Path]:
        """The archive of the structures, fetched if it is missing, and its additions."""
        return self.definition.source_files(self.data_dir)

    def structures(self) -> Iterator[tuple[str, Any]]:
        """Id and JARVIS record of every crystal, in file order."""
        yield from self.definition.records(self.data_dir).items()

    def ids(self) -> set[str]:
        """Ids of all records."""
        return self._contents[0]

    def functional_of(self, info: PropertyInfo) -> str:
        """Level of theory of a property."""
        return self.definition.functional_of(info)

    def labels(self, info: PropertyInfo) -> dict[str, float]:
        """Labels in the records, and those of the split file where a record has none."""
        name = self.info(info.name).name
        labels = dict(self._record_labels[name])
        split = self.definition.listed_split(info, self.data_dir)
        if split is not None and name not in self.definition.derived:
            for key, value in {**split.train, **split.val}.items():
                labels.setdefault(key, value)
        return labels

    def published_split(self, info: PropertyInfo, rule: SplitRule) -> Split:
        """The leaderboard's split."""
        info = self.info(info.name)
        derived = info.name in self.definition.derived
        labels = self._record_labels[info.name] if derived else None
        return self.definition.split(info, self.data_dir, labels)

    def split(self, info: PropertyInfo, rule: SplitRule | None = None) -> Split:
        """A split, labels that are known to be wrong taken out of training."""
        return super().split(info, rule).without(self.definition.faults.get(info.name, ()))

    @cached_property
    def _contents(self) -> tuple[set[str], dict[str, dict[str, float]]]:
        # The records themselves are not kept: they take a gigabyte.
        records = self.definition.records(self.data_dir)
        return set(records), self.definition.record_labels(records)

    @property
    def _record_labels(self) -> dict[str, dict[str, float]]:
        return self._contents[1]
