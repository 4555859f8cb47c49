"""Files as text or bytes, compressed or not, with a limit against compression bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

from recinet_ase.errors import ReciNetError

MAXIMUM_BYTES = 16 << 30
"""Most that a compressed file may unpack to."""

MAXIMUM_RATIO = 200
"""Most that a compressed file may grow beyond its first 64 MB (json and CIF grow 5 to 30 times)."""

MAXIMUM_LINE = 64 << 20
"""Longest line of a text file, in characters (a structure's json of 100,000 atoms is 20 MB)."""

FREE_BYTES = 64 << 20
"""What every compressed file may unpack to."""

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip")


def split_suffix(name: str) -> tuple[str, str]:
    """The format's suffix (with its dot, lower case) and the compression's, ``""`` if none."""
    path = Path(name.lower())
    if path.suffix in COMPRESSIONS:
        return Path(path.stem).suffix, path.suffix
    return path.suffix, ""


class _Limited(io.RawIOBase):
    """A decompressed stream that stops where the output is out of proportion."""

    def __init__(self, raw: IO[bytes], path: str) -> None:
        self._raw, self._path, self._read = raw, path, 0
        size = Path(path).stat().st_size
        self._limit = min(MAXIMUM_BYTES, max(FREE_BYTES, size * MAXIMUM_RATIO))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer, as long as the output is in proportion."""
        try:
            data = self._raw.read(len(buffer))
        except MemoryError:
            raise
        except Exception as error:  # zlib.error has no common base with the others
            raise ReciNetError(f"{self._path} is damaged ({error})") from None
        self._read += len(data)
        if self._read > self._limit:
            raise ReciNetError(
                f"{self._path} unpacks to more than {self._limit >> 20} MB, which no file of "
                "structures does; unpack it yourself if you trust it"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


@contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """A file for reading, decompressed by its suffix (gz, bz2, xz, a zip of one file).

    Raises:
        ReciNetError: If it is damaged, or unpacks to too much.
        OSError: If it cannot be opened.
    """
    compression = split_suffix(path)[1]
    if not compression:
        with Path(path).open("rb") as handle:
            yield handle
        return
    with Path(path).open("rb") as packed:
        raw = _decompressed(packed, compression, path)
        with io.BufferedReader(_Limited(raw, path), 1 << 18) as limited:
            yield cast(IO[bytes], limited)


def _decompressed(packed: IO[bytes], compression: str, path: str) -> IO[bytes]:
    """The stream behind a compressed one."""
    if compression == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=packed))
    if compression == ".bz2":
        return bz2.BZ2File(packed)
    if compression == ".xz":
        return lzma.LZMAFile(packed)
    try:
        archive = zipfile.ZipFile(packed)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise ReciNetError(f"{path} holds {len(names)} files, not one")
        return archive.open(names[0])
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise ReciNetError(f"{path} is damaged ({error})") from None


@contextmanager
def open_text(path: str, errors: str = "replace") -> Iterator[Iterator[str]]:
    """The lines of a text file in UTF-8, decompressed by its suffix.

    Lines beyond `MAXIMUM_LINE` end it with an error: they are no text.

    Raises:
        ReciNetError: If it is damaged, or unpacks to too much.
        OSError: If it cannot be opened.
    """
    with open_bytes(path) as raw:
        handle = io.TextIOWrapper(raw, encoding="utf-8-sig", errors=errors)
        yield _lines(handle, path)
        handle.detach()


def _lines(handle: TextIO, path: str) -> Iterator[str]:
    while line := handle.readline(MAXIMUM_LINE):
        if len(line) == MAXIMUM_LINE:
            raise ReciNetError(f"{path} has a line of more than {MAXIMUM_LINE >> 20} MB")
        yield line


def read_all(path: str) -> bytes:
    """All bytes of a file, decompressed."""
    with open_bytes(path) as handle:
        return handle.read()
