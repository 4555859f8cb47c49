"""The example scripts and notebooks run, and say what is true."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TOUR = {
    "calculator.py": "recinet_bandgap_model",
    "matgl_trainer.py": "mean error on the training crystals",
    "phonons.py": "heat capacity at 300 K",
    "screening.py": "shortlist.html",
}
"""The example scripts, and what each of them says."""

FILES = {
    "calculator.py": ["salt.extxyz"],
    "phonons.py": ["phonons-Si/band.png", "phonons-Si/phonopy.yaml"],
    "screening.py": ["shortlist.csv", "shortlist.html"],
}
"""What they leave behind."""


@pytest.mark.parametrize(
    ("script", "package", "extra"),
    [("phonons.py", "phonopy", "phonopy"), ("matgl_trainer.py", "lightning", "matgl")],
)
def test_an_example_without_its_extra_ends_in_one_line(
    script: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    said = str(caught.value.code)
    assert said.startswith("error: ") and f"pip install 'recinet-ase[{extra}]'" in said
    assert "\n" not in said and not list(tmp_path.iterdir())


def test_git_passes_over_what_the_examples_write() -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no checkout")
    names = [
        f"{folder}{name}"
        for files in FILES.values()
        for name in files
        for folder in ("", "examples/")
    ]
    done = subprocess.run(
        ["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == names, done.stderr


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_run(script: Path, tmp_path: Path) -> None:
    for package in ("matgl", "phonopy"):
        if package in script.read_text(encoding="utf-8"):
            pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert TOUR[script.name] in done.stdout
    for name in FILES.get(script.name, ()):
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples" / "crystals.json", tmp_path)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    space: dict[str, object] = {"__name__": "__main__"}
    for i, cell in enumerate(cells):
        assert not cell.get("outputs"), "notebooks are kept without their output"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {i}", "exec"), space)
    if path.name == "first_hour.ipynb":
        shortlist = space["shortlist"]
        assert 0 < len(shortlist) <= 10 and (shortlist.bandgap > 3.1).all()  # type: ignore
        assert (tmp_path / "shortlist.html").stat().st_size > 10_000
