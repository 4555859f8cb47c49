"""Databases behind an address, on a real PostgreSQL server of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ase import Atoms
from ase.db import connect

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.io import (
    chunks,
    count_entries,
    databases,
    find_sources,
    fingerprint,
    read_chunk,
    read_entries,
)

pytest.importorskip("psycopg2")
pytest.importorskip("ase_db_backends")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of an empty database."""
    if not (shutil.which("initdb") and shutil.which("postgres")):
        pytest.skip("needs PostgreSQL's server programs")
    user: list[str] = []
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:  # the server refuses to run as root
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if subprocess.run([*user, "true"], capture_output=True, check=False).returncode:
            pytest.skip("runs as root, and there is no user postgres")
        shutil.chown(root, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = root / "data"
    subprocess.run(
        [*user, "initdb", "-D", data, "-U", "me", "--auth=trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=root,
    )
    command = [*user, "postgres", "-D", data, "-p", str(port), "-k", root, "-F"]
    server = subprocess.Popen(
        [*map(str, command), "-c", "listen_addresses=127.0.0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=root,
    )
    try:
        import psycopg2

        url = f"postgresql://me:secret@127.0.0.1:{port}/postgres"
        for _ in range(100):
            try:
                psycopg2.connect(url).close()
                break
            except psycopg2.OperationalError:
                time.sleep(0.1)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)
        shutil.rmtree(root, ignore_errors=True)


def test_a_server(
    address: str, crystals: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = list(crystals.values())[:9]
    with connect(address) as database:
        for i, atoms in enumerate(wanted):
            database.write(atoms, gap=0.5 * i, jid=f"j{i}")
    sources = find_sources([address])
    assert count_entries(sources) == 9 and "secret" not in repr(sources)
    for size in (2, 100):
        entries = [e for chunk in chunks(sources, size) for e in read_chunk(chunk)]
        assert [e.id for e in entries] == [str(i) for i in range(1, 10)]
        for entry, atoms in zip(entries, wanted, strict=True):
            assert entry.atoms == atoms
    picked = find_sources([address], selection="gap>=2,natoms<20")
    rows = [row.jid for row in connect(address).select("gap>=2,natoms<20")]
    assert [e.id for e in read_entries(picked, "jid")] == rows != []
    assert fingerprint(picked) != fingerprint(sources)
    with pytest.raises(UnknownNameError, match="did you mean 'gap'"):
        find_sources([address], selection="gapp>1")
    monkeypatch.setattr(databases, "PATIENCE", 0.2)
    closed = address.replace(address.rsplit(":", 1)[1], "1/postgres")
    with pytest.raises(ReciNetError, match="locked or unreachable") as caught:
        find_sources([closed])
    assert "secret" not in str(caught.value)
