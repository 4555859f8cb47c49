"""What every family of formats gives: `Found`, by three functions.

A family is a module of this package with

    items(source)        in the main process: one picklable item an entry, lazily
    read(source, items)  in a worker: what each item stands for, as `Found`
    count(source)        the number of entries where it is cheap, or None

The items are cheap to make; parsing is done by ``read``. A structure that cannot be read
is handed on as an error, never as an end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from recinet_ase.errors import InternalError, ReciNetError, fault_of, reason_of
from recinet_ase.io.entries import InputUnavailableError, Source

if TYPE_CHECKING:
    from ase import Atoms


_SMALL = 1 << 20  # bytes of a file that is read to count its structures


class Found(NamedTuple):
    """What an item stands for.

    Attributes:
        key: The input's own identity for it, or None.
        atoms: The structure, or the error met while reading it.
        values: What stands beside the structure.
    """

    key: str | None
    atoms: Atoms | Exception
    values: Mapping[str, Any]


class Family(Protocol):
    """The functions of a family's module."""

    def items(self, source: Source) -> Iterator[Any]:
        """One item an entry; an exception stands for an entry that cannot be had."""

    def read(self, source: Source, items: Sequence[Any]) -> Iterable[Found]:
        """As many results as items, none of which is an exception."""

    def count(self, source: Source) -> int | None:
        """Number of entries, where it is cheap."""


def each_alone(parse: Callable[[str], Atoms], texts: Iterable[str]) -> Iterator[Found]:
    """What each text holds, or the error met in its place."""
    for text in texts:
        try:
            atoms = parse(text)
            yield Found(None, atoms, atoms.info)
        except Exception as error:
            yield Found(None, error, {})


def counted_if_small(source: Source, items: Callable[[Source], Iterable[Any]]) -> int | None:
    """The number of entries of a small file, by reading it; None for a larger one."""
    try:
        if Path(source.path).stat().st_size > _SMALL:
            return None
        return sum(1 for _ in items(source)) or 1
    except Exception:  # it becomes an entry with its error
        return None


def family_of(source: Source) -> Family:
    """The module that reads a source."""
    return cast(Family, import_module(f"recinet_ase.io.{source.family}"))


def unread(error: Exception, reason: str) -> ReciNetError:
    """What was met while reading, as the error of a row: memory that ran out is no one's input."""
    if isinstance(error, MemoryError):
        return InternalError(f"internal error: {reason_of(error)}", fault_of(error))
    return ReciNetError(reason)


def vanished(source: Source, error: OSError) -> ReciNetError:
    """A file that was there when the work began and cannot be read now.

    Readers also raise such errors, without a number, for what is no file of their format.

    Raises:
        InputUnavailableError: If it is the whole input or a database of many rows, and gone: rows
            of errors would not help, and when it is back the screen can go on.
    """
    if error.errno is None:
        return ReciNetError(f"{source.title} cannot be read ({reason_of(error)})")
    if (source.alone or (source.count or 0) > 1) and not Path(source.path).exists():
        raise InputUnavailableError(
            f"{source.title} is gone ({error.strerror or reason_of(error)}); when it is back, go "
            "on with --resume"
        )
    return ReciNetError(
        f"{source.title} could not be read any more ({error.strerror or reason_of(error)})"
    )
