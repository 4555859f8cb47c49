"""What a screen reads: sources, chunks of them, and the entries that a chunk holds."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from recinet_ase.io.frames import Frames


def encodable(text: str) -> str:
    """A text without what UTF-8 cannot hold (bytes of undecodable file names), escaped."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Source:
    """An input and how to read it.

    Attributes:
        name: The file (or the address of a database, without its password), as in ids; can be
            encoded, which the path need not be.
        family: Module of `recinet_ase.io` that reads it.
        kind: Layout or ASE's name of the format, as the family understands it.
        path: What is opened: the file, or the full address of a database.
        prefix: Put before the ids that come from the input itself, so that several inputs
            cannot give the same one.
        selection: ASE selection string of a database.
        column: Column or key of a table or of records that holds the structures.
        count: Number of entries, where it is known without reading everything.
        alone: Whether it is all there is to read, named by the user.
        fault: Why it cannot be read (its one entry is this error), or None.
        frames: Which of its structures are read (``relax.traj@-1``), or None for all.
        spooled: Whether it is a copy of standard input.
    """

    name: str
    family: str
    kind: str
    path: str = field(repr=False, default="")
    prefix: str = ""
    selection: str | None = None
    column: str | None = None
    count: int | None = None
    alone: bool = False
    fault: ReciNetError | None = None
    frames: Frames | None = None
    spooled: bool = False

    @property
    def title(self) -> str:
        """What messages call it."""
        name = "standard input" if self.spooled else self.name
        return name if self.frames is None else f"{name}@{self.frames.text}"

    def told(self, error: ReciNetError) -> ReciNetError:
        """An error in words that every output can hold, and that name no temporary file."""
        text = str(error).replace(self.path, self.title) if self.spooled else str(error)
        text = encodable(text)
        return error if text == str(error) else ReciNetError(text)


@dataclass(frozen=True)
class Entry:
    """One structure of an input.

    Attributes:
        id: Row id of a database, the input's own identity (``jid``, ``material_id``), else
            ``file#index``; or the value of the user's id key.
        atoms: The structure, or the error met while reading it.
        has_key: Whether the user's id key was found.
        values: ``info`` of a file's structure, key-value pairs and data of a database row,
            the other columns of a table.
    """

    id: str
    atoms: Atoms | Structure | Exception
    has_key: bool = True
    values: Mapping[str, Any] = field(default_factory=dict)


def structure_digest(structure: Atoms | Structure | Exception) -> int | None:
    """A number that tells whether a structure that is read again is the same; None for none."""
    if isinstance(structure, Exception):
        return None
    if hasattr(structure, "numbers"):
        parts = (structure.numbers, structure.positions, structure.cell.array)
        return zlib.crc32(b"".join(part.tobytes() for part in parts))
    text = repr([str(site.species) for site in structure]).encode()
    numbers = structure.lattice.matrix.tobytes() + structure.frac_coords.tobytes()
    return zlib.crc32(numbers + text)


class InputUnavailableError(ReciNetError):
    """An input that is locked, cannot be reached or is gone: the same call may work later."""


class InputChangedError(ReciNetError):
    """A structure that was screened is not in the input any more."""


@dataclass(frozen=True)
class Piece:
    """Consecutive entries of one source, not yet parsed.

    Attributes:
        source: Where they come from.
        start: Index of the first in the source.
        items: One an entry, as the source's family understands it: a row id, a text, a
            record, ``Atoms``; or the error that stands in its place.
    """

    source: Source
    start: int
    items: tuple[Any, ...]


@dataclass(frozen=True)
class Chunk:
    """A part of the input that a worker can read alone; small, and can be pickled.

    Attributes:
        number: 0, 1, 2 ... over the whole input; the boundaries depend on the input and the
            chunk size alone.
        pieces: Its parts, in order.
    """

    number: int
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        """Number of entries."""
        return sum(len(piece.items) for piece in self.pieces)
