"""The commands themselves: speed of --help, names, versions, no side effects at import."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from click import Command
from click.testing import CliRunner
from support import EXAMPLES

import recinet_ase
from recinet_ase.cli.analyze import analyze
from recinet_ase.cli.evaluate import evaluate
from recinet_ase.cli.main import main
from recinet_ase.cli.phonons import phonons
from recinet_ase.cli.progress import training_display
from recinet_ase.cli.screen import screen
from recinet_ase.cli.train import train
from recinet_ase.errors import UnknownNameError
from recinet_ase.pretrained import (
    available_ensembles,
    available_force_models,
    available_models,
)


def test_the_conversion_to_graphs_is_seen_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line every tenth of the way, and never half a minute without one."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with training_display() as (_, on_store, _):
        for done in range(1, 1001):
            now += 0.2 if done <= 500 else 1.0
            on_store(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["100 of 1,000 structures read", "200 of 1,000 structures read"]
    assert len(lines) == 5 + 500 // 30
    with training_display() as (_, on_store, _):
        for done in range(1, 51):
            on_store(done, 50)
    assert capsys.readouterr().err == "", "what takes no time needs no lines"


@pytest.mark.parametrize("name", ["", *main.commands])
def test_every_command_tells_its_version(name: str) -> None:
    done = CliRunner().invoke(main, [*name.split(), "--version"], prog_name="recinet")
    assert done.exit_code == 0
    assert done.output.split()[-1] == recinet_ase.__version__


@pytest.mark.parametrize(
    "command", ["main", "embed", "screen", "train", "evaluate", "analyze", "phonons"]
)
def test_help_needs_no_heavy_import(command: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']\n"
        f"from recinet_ase.cli.{command} import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ase', 'pymatgen', 'numpy', 'rich', 'torch_geometric'}\n"
        "heavy |= {'matplotlib', 'phonopy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert time.perf_counter() - start < 5, "a loaded CI machine; 0.15 s when idle"


def test_import_changes_nothing() -> None:
    code = (
        "import torch; before = torch.get_default_dtype(), torch.get_num_threads()\n"
        "from recinet_ase import ReciNetCalculator, Predictor, load_model, PROPERTIES\n"
        "import recinet_ase.training.run, recinet_ase.screening.execution.chunk\n"
        "assert before == (torch.get_default_dtype(), torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "", done.stderr


def test_every_export_exists() -> None:
    for name in recinet_ase.__all__:
        assert getattr(recinet_ase, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ReciNetCalc'"):
        recinet_ase.ReciNetCalc  # noqa: B018


def test_group() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert all(
        name in result.stdout for name in ("screen", "train", "evaluate", "analyze", "models")
    )
    assert recinet_ase.__version__ in CliRunner().invoke(main, ["--version"]).stdout


def test_models_of_some_properties() -> None:
    found = CliRunner().invoke(main, ["models", "--props", "kv,ehull"])
    rows = [line.split() for line in found.stdout.splitlines()[1:]]
    assert {(row[0], row[1]) for row in rows} >= {
        ("jarvis-bulk", "bulk_modulus"), ("mp-bulk", "bulk_modulus"), ("jarvis-eform", "ehull"),
    }  # fmt: skip
    assert {row[1] for row in rows} == {"bulk_modulus", "ehull"}


def test_models_lists_what_is_shipped() -> None:
    result = CliRunner().invoke(main, ["models"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    names = list(dict.fromkeys(line.split()[0] for line in lines[1:]))  # a line a property
    properties = sorted([*available_models(), *available_ensembles()])
    assert names == [*properties, *available_force_models()]


def test_recipes_are_listed_and_shown() -> None:
    result = CliRunner().invoke(main, ["recipes"])
    assert result.exit_code == 0 and "paper/jarvis-mbj" in result.stdout
    result = CliRunner().invoke(main, ["recipes", "paper/jarvis-mbj"])
    assert "learning_rate = 0.001" in result.stdout
    result = CliRunner().invoke(main, ["recipes", "paper/jarvis"])
    assert result.exit_code == 2 and "did you mean" in result.stderr


@pytest.mark.parametrize("command", [analyze, evaluate, phonons, screen, train])
def test_examples_in_the_help_keep_their_lines(command: Command) -> None:
    lines = CliRunner().invoke(command, ["--help"]).stdout.splitlines()
    text = "\n".join(lines)
    assert "\\b" not in text and "\b" not in text
    examples = [line.strip() for line in lines if line.startswith("  recinet-")]
    written = [line.strip() for line in (command.help or "").splitlines()]
    assert len(examples) >= 3 and examples == [x for x in written if x.startswith("recinet-")]
    assert [line.endswith("\\") for line in examples] == [
        command is screen and "--where" in line for line in examples
    ]


def test_a_reader_that_leaves_early_is_no_error(model_folder: Path) -> None:
    """``recinet-screen ... | head``: the rows that nobody reads end the screen without a word."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "recinet_ase.cli.screen", str(EXAMPLES)),
            *("--model", str(model_folder), "--workers", "1", "--device", "cpu", "--quiet"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    assert process.wait() == 1
    assert "error" not in said.lower() and "pipe" not in said.lower(), said


def test_unknown_names() -> None:
    near = str(UnknownNameError("model", "jarvis-mjb", ["jarvis-mbj"]))
    assert near == "unknown model 'jarvis-mjb'; did you mean 'jarvis-mbj'? (known: jarvis-mbj)"
    far = str(UnknownNameError("model", "xyz", ["jarvis-mbj"]))
    assert far == "unknown model 'xyz' (known: jarvis-mbj)"
    assert str(UnknownNameError("model", "x", [])) == "unknown model 'x' (none are available)"


def test_a_file_where_a_model_folder_is_meant(model_folder: Path, tmp_path: Path) -> None:
    for arguments in (
        ["analyze", str(model_folder / "config.json"), "-o", str(tmp_path / "a")],
        ["screen", str(EXAMPLES), "--model", str(model_folder / "config.json")],
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert "config.json is a file; name the folder that holds it" in done.stderr
        assert f"({model_folder})" in done.stderr and "no such" not in done.stderr
