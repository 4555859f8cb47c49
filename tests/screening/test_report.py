"""The report page: complete, self-contained, escaped, small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from recinet_ase.errors import ReciNetError
from recinet_ase.screening.output.report import write_report
from recinet_ase.screening.output.report.cell import draw_cell, find_symmetry, svg
from recinet_ase.screening.output.report.charts import histogram, scatter, ticks
from recinet_ase.screening.output.report.markup import link
from recinet_ase.screening.output.statistics import error_kinds, property_figures
from recinet_ase.screening.output.terminal import print_summary
from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import ListTable

NUMBERS = [f"{name}{end}" for name in ("bandgap", "ehull") for end in ("", "_low", "_high")]
COLUMNS = ["id", "formula", "natoms", *NUMBERS, "in_domain", "error"]
UNITS = {"natoms": "", **{n: "eV" if n.startswith("b") else "eV/atom" for n in NUMBERS}}
HOSTILE = (
    "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>\u2028'\"&{{ 7*7 }}"
)


def screened(structures: list[Atoms], count: int, hostile: str = "") -> ListTable:
    """Result rows for the structures, over and over; every 50th is an error."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    atoms: list[Atoms | Exception] = []
    for i in range(count):
        crystal = structures[i % len(structures)]
        gap, hull = rng.exponential(2), rng.exponential(0.3)
        row: dict[str, Any] = {"id": f"{hostile}JVASP-{i}", "natoms": len(crystal), "error": ""}
        row |= {"formula": crystal.get_chemical_formula(), "in_domain": bool(rng.random() > 0.1)}
        row |= {"bandgap": gap, "bandgap_low": gap * 0.8, "bandgap_high": gap * 1.3}
        row |= {"ehull": hull, "ehull_low": hull * 0.5, "ehull_high": hull * 1.5}
        if i % 50 == 49:
            row |= dict.fromkeys([*NUMBERS, "in_domain"])
            row["error"] = f"atoms {i} and {i + 1} overlap: 0.{i} A apart{hostile}"
        rows.append(row)
        atoms.append(ValueError(f"gone{hostile}") if i % 97 == 96 else crystal)
    return ListTable(COLUMNS, rows, UNITS, atoms)


@pytest.fixture(scope="module")
def small(crystals: dict[str, Atoms]) -> ListTable:
    return screened(list(crystals.values()), 200)


SELECTION = Selection("gap > 1 and gap < 4 and ehull < 0.4", sort=("-gap",), top=40)


def written(path: Path, table: ListTable, **options: Any) -> str:
    selection = options.pop("selection", SELECTION)
    indices = selection.indices(table) if selection else None
    write_report(path, table, indices, selection=selection, **options)
    return path.read_text("utf-8")


def test_everything_is_on_the_page(small: ListTable, tmp_path: Path) -> None:
    page = written(
        tmp_path / "report.html",
        small,
        sources=["data/candidates.db"],
        command="recinet-screen candidates.db --top 40",
        provenance=["bandgap: band gap in eV, model jarvis-mbj (TB-mBJ)", "caution, x: beware"],
        seconds=2.0,
        created="2026-01-02 03:04 UTC",
        versions={"recinet-ase": "9.9"},
    )
    indices = SELECTION.indices(small)
    for index, row in zip(indices, small.rows(indices), strict=True):
        shown = link(row["id"])
        assert f'<td class="id" data-v="{row["id"]}">{shown}</td>' in page
        assert f"{small.column('bandgap')[index]:.4g}" in page
    for text in (
        "<h1>candidates.db</h1>", "model jarvis-mbj (TB-mBJ)", "</strong> x: beware",
        "recinet-ase 9.9", "2.0 s, 100 structures/s", "2026-01-02 03:04 UTC",
        "where bandgap &gt; 1 eV and bandgap &lt; 4 eV and ehull &lt; 0.4 eV/atom",
        "band gap (eV)", "distance to the convex hull (eV/atom)", "on the shortlist",
        'Fm<span class="bar">3</span>m <small>225</small>', "4</b><span>with errors",
    ):  # fmt: skip
        assert text in page, text
    readable = [i for i in indices if not isinstance(small._atoms[i], Exception)]  # type: ignore[index]
    assert page.count('aria-label="unit cell of') == len(readable)


def test_the_page_is_self_contained_and_reproducible(small: ListTable, tmp_path: Path) -> None:
    page = written(tmp_path / "a.html", small)
    assert page == written(tmp_path / "b.html", small)
    # Links are followed by readers alone; nothing is loaded from anywhere.
    bare = re.sub(r'<a href="https://[^"]+" rel="noreferrer"', "<a", page)
    assert not re.search(r"https?://|@import|<link(?! rel=\"icon\" href=\"data:,\")| src=", bare)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].startswith("default-src 'none'")
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".html"] == []


@pytest.mark.parametrize(
    ("identity", "linked"),
    [("JVASP-1002", True), ("mp-149", True), ("mp-149x", False), ("<b>mp-1</b>", False)],
)
def test_ids_of_public_databases_are_links(identity: str, linked: bool) -> None:
    found = link(identity)
    assert found.startswith("<a href=") is linked
    assert "<b>" not in found and ('rel="noreferrer"' in found) is linked


def test_hostile_text_is_escaped(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    table = screened(list(crystals.values()), 120, HOSTILE)
    page = written(
        tmp_path / "r.html", table, sources=[HOSTILE], command=HOSTILE, provenance=[HOSTILE],
        title=HOSTILE, created=HOSTILE, versions={HOSTILE: HOSTILE},
    )  # fmt: skip
    assert "<img" not in page and page.count("<script") == 2 and page.count("</script") == 2
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", page)[0]
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert HOSTILE in json.loads(block)["points"]["id"][0]


def test_five_thousand_rows_stay_under_a_megabyte(
    crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    table = screened(list(crystals.values()), 5000)
    written(tmp_path / "r.html", table, selection=Selection("gap > 1", sort=("gap",)))
    assert (tmp_path / "r.html").stat().st_size < 1_000_000


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("columns", [["bandgap"], ["bandgap", "bandgap_low", "bandgap_high"]])
def test_little_to_show(rows: int, columns: list[str], tmp_path: Path) -> None:
    table = ListTable(
        ["id", "formula", "natoms", *columns, "error"],
        [{"id": "a", "formula": "", "error": "broken"}] * rows,
        {"bandgap": "eV"},
        [ValueError("broken")] * rows,
    )
    page = written(tmp_path / "r.html", table, selection=None)
    assert f"<b>{rows}</b><span>structures screened" in page and 'id="scatter"' not in page
    assert ("No structure passes." in page) == (rows == 0)
    written(tmp_path / "r.html", table, selection=Selection("bandgap > 1"), structures=False)


def test_unwritable(small: ListTable, tmp_path: Path) -> None:
    with pytest.raises(ReciNetError, match="cannot write the report .*: No such file"):
        write_report(tmp_path / "none" / "r.html", small, np.arange(3))
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ReciNetError, match="cannot write"):
        write_report(tmp_path / "folder.html", small, np.arange(3))
    assert len(list(tmp_path.iterdir())) == 1


def test_conventional_cells_are_drawn() -> None:
    found = find_symmetry(bulk("NaCl", "rocksalt", a=5.64), 0.01)
    assert found is not None and found[:2] == ("Fm-3m", 225)
    drawing = draw_cell(found[2])
    # 14 on corners and faces, 13 on edges and in the middle.
    assert sorted(np.bincount(drawing.numbers)[[11, 17]]) == [13, 14]
    assert len(drawing.bonds) == 54
    assert np.ptp(np.linalg.norm(drawing.corners, axis=1)) < 1e-9
    picture = svg(drawing, "<NaCl>")
    assert picture.count("<circle") == 27 and picture.count("<path") == 12
    assert 'aria-label="&lt;NaCl&gt;"' in picture
    assert find_symmetry(Atoms("H"), 0.01) is None


def test_histogram_counts_everything() -> None:
    rng = np.random.default_rng(1)
    values = np.append(rng.normal(size=5000), [1000.0, np.nan])
    drawn = histogram("bandgap", "eV", values, values[:10])
    assert drawn is not None and "beyond the axis" in drawn.note
    totals = [sum(int(b.title.rsplit(" ", 1)[1].replace(",", "")) for b in bars)
              for bars in (drawn.bars, drawn.chosen)]  # fmt: skip
    assert totals == [5001, 10]
    assert histogram("bandgap", "eV", np.full(3, np.nan), values[:0]) is None
    assert ticks(-0.3, 2.1) == [0.0, 0.5, 1.0, 1.5, 2.0] and ticks(1, 1) == [1]


def test_scatter_samples_and_keeps_the_shortlist() -> None:
    rows = [{"id": str(i), "formula": "X", "bandgap": i % 7, "ehull": i % 5} for i in range(30_000)]
    table = ListTable(["id", "formula", "bandgap", "ehull"], rows)
    chosen = np.array([29_999, 3, 77])
    found = scatter(table, chosen, ["ehull"])
    assert found is not None and len(found["id"]) == 20_000 and found["total"] == 30_000
    assert (found["x"], found["y"]) == ("ehull", "bandgap")
    ranks = dict(zip(found["id"], found["rank"], strict=True))
    assert [ranks[str(i)] for i in chosen] == [1, 2, 3]
    assert found == scatter(table, chosen, ["ehull"])


def test_error_kinds_and_figures(small: ListTable) -> None:
    (kind,) = error_kinds(small)
    assert kind.count == 4 and kind.first_id == "JVASP-49" and "overlap" in kind.reason
    texts = [
        "m was not trained on Gd",
        "m was not trained on Gd, Tb",
        "site A is disordered (Li 1)",
    ]
    table = ListTable(["id", "error"], [{"id": str(i), "error": t} for i, t in enumerate(texts)])
    assert [k.count for k in error_kinds(table)] == [2, 1]
    gap = property_figures(small)[0]
    values = small.column("bandgap")
    assert (gap.unit, gap.count, gap.maximum) == ("eV", 196, np.nanmax(values))
    assert gap.in_domain is not None and 0.8 < gap.in_domain < 1


def test_summary_is_plain_in_a_file(small: ListTable) -> None:
    out = StringIO()
    print_summary(small, SELECTION.indices(small), selection=SELECTION, file=out, shown=5)
    text = out.getvalue()
    assert text.isascii() and "\x1b" not in text
    assert text.startswith("200 structures, 4 with errors, 40 selected\n  where bandgap > 1 eV")
    for part in (
        "4 x  e.g. atoms 49",
        "bandgap   eV",
        "first 5 of 40 selected",
        "bandgap (eV)",
        "%",
    ):
        assert part in text
    hostile = ListTable(["id", "formula", "bandgap", "error"], [{"id": "\x1b[31m[red]a"}])
    print_summary(hostile, np.array([0]), selection=Selection(top=1), file=out)
    assert "\x1b" not in out.getvalue() and "[red]a" in out.getvalue()
