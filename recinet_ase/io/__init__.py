"""Reading structures: the one reader under screening, training, evaluation and analysis.

Where a format is read:

- ``.cif``, ``.mcif``, ``.mmcif``: `cif` (blocks of a file), `cif_block` (a block's sites and
  symmetry), `space_group` (which symmetry counts), `unit_cell` and `operations` (all atoms of
  the cell);
- xyz: `xyz`; ASE databases and servers: `databases`; csv, tsv, parquet: `tables`; json of
  every kind: `json_documents`; SHELX and AIRSS ``.res``: `shelx`; every other format:
  `ase_files`.

`find` recognises what an input is, `reading` makes chunks of it and reads them, `records`
knows the names of keys and columns, `convert` makes structures of dictionaries and texts, and
`rows` gives training its rows.
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
