"""The report in a real browser: it works, says nothing on the console, and runs nothing hostile."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from PIL import Image
from test_report import COLUMNS, HOSTILE, SELECTION, UNITS, screened

from recinet_ase.screening.output.report import write_report
from recinet_ase.screening.selection.columns import formula_elements
from recinet_ase.screening.selection.table import ListTable

_FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync hide-scrollbars window-size=1280,1400"
).split()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no browser; apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*_FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    with webdriver.Chrome(options=options, service=service) as found:
        yield found


def opened(browser: Any, path: Path) -> None:
    browser.get(path.as_uri())
    assert browser.execute_script("return document.readyState") == "complete"


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def cells(browser: Any, column: str) -> list[str]:
    heads = [
        h.text.split("\u2009")[0].strip()
        for h in browser.find_elements("css selector", "#shortlist th")
    ]
    rows = browser.find_elements("css selector", "#shortlist tbody tr")
    at = heads.index(column)
    script = "return [...arguments[0].cells][arguments[1]].dataset.v"
    return [browser.execute_script(script, row, at) for row in rows]


def click_head(browser: Any, column: str) -> None:
    for button in browser.find_elements("css selector", "#shortlist th button"):
        if button.text.startswith(column):
            button.click()
            return
    raise AssertionError(column)


def test_the_page_works(browser: Any, crystals: dict[str, Atoms], tmp_path: Path) -> None:
    table = screened(list(crystals.values()), 300)
    path = tmp_path / "report.html"
    write_report(path, table, SELECTION.indices(table), selection=SELECTION, sources=["a.db"])
    opened(browser, path)
    browser.save_screenshot(str(tmp_path / "page.png"))
    image = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert image.shape[0] > 1000 and len(np.unique(image.reshape(-1, 3), axis=0)) > 500

    before = cells(browser, "band gap (eV)")
    click_head(browser, "band gap")
    ascending = cells(browser, "band gap (eV)")
    assert ascending == sorted(before, key=float) and ascending != before
    click_head(browser, "band gap")
    assert cells(browser, "band gap (eV)") == ascending[::-1]
    click_head(browser, "formula")
    assert cells(browser, "formula") == sorted(formulas(table), key=str.lower)

    lines = list(csv.DictReader(io.StringIO(saved(browser, "save-csv"))))
    assert [line["formula"] for line in lines] == cells(browser, "formula")
    assert all(float(line["band gap (eV)"]) > 0 for line in lines)

    wanted = formulas(table)[0]
    browser.find_element("id", "filter").send_keys(wanted.lower())
    rows = browser.find_elements("css selector", "#shortlist tbody tr")
    assert 0 < sum(row.is_displayed() for row in rows) == formulas(table).count(wanted) < len(rows)
    assert len(read_all(saved(browser, "save-cif"), tmp_path)) == formulas(table).count(wanted)

    button = next(
        b for b in browser.find_elements("css selector", "[data-scene]") if b.is_displayed()
    )
    button.click()
    dialog = browser.find_element("id", "viewer")
    assert dialog.is_displayed() and "cell as given: a" in dialog.text
    assert browser.execute_script(
        "const c = document.getElementById('stage'), g = c.getContext('2d');"
        "return g.getImageData(0, 0, c.width, c.height).data.some((value) => value)"
    )
    assert complaints(browser) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def saved(browser: Any, button: str) -> str:
    """What a button saves."""
    return browser.execute_async_script(
        "const [id, done] = arguments, make = URL.createObjectURL;"
        "HTMLAnchorElement.prototype.click = () => undefined;"
        "URL.createObjectURL = (blob) => { blob.text().then(done); return make(blob); };"
        "document.getElementById(id).click(); URL.createObjectURL = make;",
        button,
    )


def read_all(text: str, folder: Path) -> list[Atoms]:
    path = folder / "shortlist.cif"
    path.write_text(text)
    return read(path, ":")


def test_cells_are_saved_as_they_were_given(
    browser: Any, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    given = [atoms for atoms in crystals.values() if len(atoms) < 40]
    rows = [
        {
            "id": f"{'a b' if i else 'x'}{i}",
            "formula": str(a.symbols),
            "natoms": len(a),
            "error": "",
        }
        for i, a in enumerate(given)
    ]
    table = ListTable(["id", "formula", "natoms", "error"], rows, {}, given)
    write_report(tmp_path / "r.html", table, np.arange(len(given)))
    opened(browser, tmp_path / "r.html")
    text = saved(browser, "save-cif")
    assert "data_x0\n" in text and "data_a_b1\n" in text
    found = read_all(text, tmp_path)
    for before, after in zip(given, found, strict=True):
        assert before.symbols.get_chemical_formula() == after.symbols.get_chemical_formula()
        assert np.allclose(before.cell.cellpar(), after.cell.cellpar(), atol=1e-4)
        wanted = before.get_all_distances(mic=True)
        assert np.allclose(wanted, after.get_all_distances(mic=True), atol=1e-3)


def test_elements_are_chosen_on_the_periodic_table(
    browser: Any, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    table = screened(list(crystals.values()), 300)
    write_report(tmp_path / "r.html", table, SELECTION.indices(table), selection=SELECTION)
    opened(browser, tmp_path / "r.html")
    browser.find_element("id", "pick-elements").click()
    shown = "return [...document.querySelectorAll('#shortlist tbody tr')].filter(r => !r.hidden)"
    shown += ".map(r => r.querySelector('.formula').dataset.v)"
    every = browser.execute_script(shown)
    for word, holds in (("with", True), ("without", False)):
        oxygen = browser.find_element("css selector", "#elements [style*='2 / 16']")
        assert oxygen.text == "O"
        oxygen.click()
        assert oxygen.get_attribute("data-mark") == word
        left = browser.execute_script(shown)
        assert left == [f for f in every if ("O" in formula_elements(f)) == holds]
        assert 0 < len(left) < len(every)
        assert browser.find_element("id", "count").text == f"{len(left)} of {len(every)}"
    oxygen.click()
    assert browser.execute_script(shown) == every
    assert complaints(browser) == []


def formulas(table: ListTable) -> list[str]:
    return list(table.column("formula")[SELECTION.indices(table)])


def three_points(name: str) -> ListTable:
    rows = [
        {"id": f"{name}{i}", "formula": "MgO", "bandgap": float(i), "ehull": float(i), "natoms": 2,
         "in_domain": True, "error": ""}
        for i in range(3)
    ]  # fmt: skip
    return ListTable(COLUMNS, rows, UNITS)


def test_hover_and_keys_show_the_point(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    path = tmp_path / "report.html"
    write_report(path, three_points("candidate-"), np.array([1]), structures=False)
    opened(browser, path)
    canvas, tip = browser.find_element("id", "scatter"), browser.find_element("id", "tip")
    assert not tip.is_displayed()
    # The second point lies in the middle of the axes, whose margins are 62, 14, 12 and 44.
    ActionChains(browser).move_to_element_with_offset(canvas, 24, -16).perform()
    assert tip.is_displayed() and "candidate-1" in tip.text
    assert "1 eV/atom" in tip.text
    ActionChains(browser).move_to_element_with_offset(canvas, 60, -60).perform()
    assert not tip.is_displayed()
    canvas.send_keys(Keys.ARROW_RIGHT)
    assert "candidate-0" in tip.text
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "candidate-2" in tip.text
    # On a logarithmic axis the first, at 0, has no place.
    browser.find_element("id", "x-log").click()
    assert not tip.is_displayed()
    for name in ("candidate-1", "candidate-2", "candidate-1"):
        canvas.send_keys(Keys.ARROW_RIGHT)
        assert name in tip.text
    assert complaints(browser) == []


def test_hostile_text_does_not_run(
    browser: Any, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    from selenium.webdriver import Keys

    table = screened(list(crystals.values()), 60, HOSTILE)
    path = tmp_path / "report.html"
    write_report(
        path, table, SELECTION.indices(table), selection=SELECTION, title=HOSTILE,
        sources=[HOSTILE], command=HOSTILE, provenance=[HOSTILE], versions={HOSTILE: HOSTILE},
    )  # fmt: skip
    opened(browser, path)
    browser.find_element("id", "scatter").send_keys(Keys.ARROW_RIGHT)
    assert HOSTILE[:40] in browser.find_element("id", "tip").text
    next(iter(browser.find_elements("css selector", "[data-scene]"))).click()
    assert HOSTILE[:40] in browser.find_element("id", "viewer-text").text
    assert browser.execute_script("return window.pwned === undefined")
    assert complaints(browser) == []


def test_nothing_to_show(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, ListTable(COLUMNS, [], UNITS), np.array([], dtype=int))
    opened(browser, path)
    assert "No structure passes." in browser.find_element("tag name", "main").text
    assert complaints(browser) == []
