"""Reading structures: the one reader under screening, training, evaluation and analysis.

Where a format is read:

- ``.cif``, ``.mcif``, ``.mmcif``: `cif` (the blocks of a file), `cif_block` (what a block says);
- SHELX and AIRSS ``.res``: `shelx`; POSCAR: `poscar`; xyz: `xyz`; ASE databases: `databases`;
- csv, tsv, parquet: `tables`; json of every kind: `json_documents`; the structures in both:
  `convert`;
- every other format: `ase_files`, and `ase_checks` for what ASE would pass over.

`symmetry` fills a cell: which of the stated symmetries counts, and what it makes of the sites.
`find` recognises what an input is, `reading` makes chunks of it and reads them, `records`
knows the names of keys and columns, and `rows` gives training its rows.
"""

from recinet_ase.io.cif import parse_cif
from recinet_ase.io.find import find_sources
from recinet_ase.io.fingerprints import fingerprint
from recinet_ase.io.reading import (
    chunks,
    count_entries,
    entries_of,
    read_chunk,
    read_entries,
    read_structure,
)

__all__ = [
    "chunks",
    "count_entries",
    "entries_of",
    "find_sources",
    "fingerprint",
    "parse_cif",
    "read_chunk",
    "read_entries",
    "read_structure",
]
