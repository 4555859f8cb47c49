"""The blocks of docs/integrations.md and the example scripts run, and say what is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8").split("\n## ")[1:]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ARGUMENTS = {"phonons.py": ("emt", "Cu")}


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matgl")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for section in SECTIONS:
        for block in re.findall(r"```python\n(.*?)```", section, flags=re.S):
            exec(block, space)
    assert {p.name for p in tmp_path.iterdir()} >= {"salt.extxyz", "salt.db", "volumes"}


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_run(script: Path, tmp_path: Path) -> None:
    for package in ("matgl", "phonopy"):
        if package in script.read_text(encoding="utf-8"):
            pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, str(script), *ARGUMENTS.get(script.name, ())],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
