"""Names that moved to `recinet_ase.data.published` and `recinet_ase.data.dataset`."""

from recinet_ase.data.dataset import data_root
from recinet_ase.data.published import (
    DATASETS,
    JARVIS,
    MATERIALS_PROJECT,
    PublishedDataset,
    get_dataset,
)

__all__ = [
    "DATASETS",
    "JARVIS",
    "MATERIALS_PROJECT",
    "PublishedDataset",
    "data_root",
    "get_dataset",
]
