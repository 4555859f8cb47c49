"""A condition that keeps nothing says why, and what came nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support import EXAMPLES

from recinet_ase.cli.screen import screen
from recinet_ase.screening.selection.misses import rejections, told
from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import ListTable

COLUMNS = ["id", "formula", "natoms", "gap_x", "gap_x_low", "gap_x_high", "in_domain", "error"]


@pytest.fixture
def table() -> ListTable:
    values = [
        ("a", 1.5, 0.9, 2.1, True, ""),  # too wide
        ("b", 1.5, 1.4, 1.6, False, ""),  # unlike the training data
        ("c", 5.0, 4.9, 5.1, True, ""),
        ("d", 0.0, 0.0, 0.1, True, ""),
        ("e", None, None, None, None, "overlapping atoms"),
    ]
    names = ("id", "gap_x", "gap_x_low", "gap_x_high", "in_domain", "error")
    rows = [dict(zip(names, row, strict=True)) | {"formula": "MgO"} for row in values]
    return ListTable(COLUMNS, rows, {"gap_x": "eV"})


def test_each_condition_is_counted_by_itself(table: ListTable) -> None:
    found = rejections(table, Selection(where="1 < gap_x < 2", confident=True))
    assert found.parts == (
        ("1 < gap_x on the whole interval", 2),
        ("gap_x < 2 on the whole interval", 2),
        ("inside the domain", 1),
    )
    assert found.nearest == (1, 2, 3), "those that fail one of three, in input order"
    assert found.failed[0] == ("inside the domain",)
    assert "e" not in [list(table.rows())[i]["id"] for i in found.nearest]


def test_without_confident(table: ListTable) -> None:
    found = rejections(table, Selection(where="gap_x > 6"))
    assert found.parts == (("gap_x > 6", 4),)
    text = "\n".join(told(table, Selection(where="gap_x > 6")))
    assert "4 are not: gap_x > 6" in text and "a MgO: gap_x 1.5 [0.9, 2.1]" in text


def test_the_command_says_it(tmp_path: Path) -> None:
    words = [
        str(EXAMPLES),
        "--props",
        "bandgap",
        "--confident",
        "-q",
        "-o",
        str(tmp_path / "a.csv"),
    ]
    done = CliRunner().invoke(screen, [*words, "--where", "2.0 < bandgap < 2.01"])
    assert done.exit_code == 0
    assert "nothing is selected" in done.stderr and "nearest misses" in done.stderr
    assert "are not: bandgap < 2.01 on the whole interval" in done.stderr
