"""CIF, magnetic and macromolecular CIF, block by block: a broken one costs no other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.io.base import Found, counted_if_small, each_alone
from recinet_ase.io.cif_block import crystal_of
from recinet_ase.io.compression import open_text
from recinet_ase.io.entries import Source

if TYPE_CHECKING:
    import gemmi
    from ase import Atoms

_CRYSTAL = re.compile(r"(?:^|\s)_(?:cell[_.](?:length|angle)|atom_site[_.])", re.IGNORECASE).search
_POSITION = re.compile(r"^[^:]*:(\d+):\d+(?:\(\d+\))?:\s*")


def items(source: Source) -> Iterator[Any]:
    """The texts of the blocks that hold a crystal, errors for what is damaged."""
    with open_text(source.path) as lines:
        yield from blocks(lines)


def read(source: Source, items: Sequence[str]) -> Iterator[Found]:
    """Each block on its own."""
    return each_alone(_crystal, items)


def count(source: Source) -> int | None:
    """Counted by reading a small file, unknown for others."""
    return counted_if_small(source, items)


def blocks(lines: Iterable[str]) -> Iterator[str | Exception]:
    """The data blocks of a CIF with a cell or atoms, and an error for any that is damaged.

    (Publications, powder patterns and reflections stand in blocks of their own.)
    """
    block: list[str] = []
    crystal = in_text = False
    for line in lines:
        if line[:1] == ";":
            in_text = not in_text
        elif not in_text:
            if line.lstrip()[:5].lower() == "data_":
                yield from _kept(block, crystal)
                block, crystal = [], False
            crystal = crystal or ("_" in line and bool(_CRYSTAL(line)))
        block.append(line)
    yield from _kept(block, crystal)


def _kept(block: list[str], crystal: bool) -> Iterator[str | Exception]:
    text = "".join(block)
    if crystal:
        yield text
    elif text.strip():
        try:
            _parsed(text)
        except StructureError as error:
            yield error


def parse_cif(text: str) -> Atoms:
    """The one crystal of a CIF given as text; blocks without cell and atoms do not count.

    Raises:
        ReciNetError: If it cannot be read, or holds none or several.
    """
    if text[:5] != "data_" and not re.search(r"^\s*data_", text, re.MULTILINE | re.IGNORECASE):
        raise StructureError("the text is no CIF: it has no line that begins with data_")
    if text.lower().count("data_") == 1 and _CRYSTAL(text):
        return _crystal(text)
    crystals = list(blocks(StringIO(text)))
    if len(crystals) != 1:
        number = "several" if crystals else "no"
        raise ReciNetError(f"the CIF holds {number} structures, not one")
    (block,) = crystals
    if isinstance(block, Exception):
        raise block
    return _crystal(block)


def _crystal(text: str) -> Atoms:
    document = _parsed(text)
    if len(document) != 1:
        raise StructureError("the CIF cannot be parsed (two blocks begin in one line)")
    return crystal_of(document[0])


def _parsed(text: str) -> gemmi.cif.Document:
    import gemmi

    try:
        return gemmi.cif.read_string(text, 0)
    except ValueError as error:
        where = _POSITION.sub(r"line \1: ", str(error))
        raise StructureError(f"the CIF cannot be parsed ({where})") from None
