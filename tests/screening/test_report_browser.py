"""The report in a real browser: it works, says nothing on the console, and runs nothing hostile."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from ase import Atoms
from PIL import Image
from test_report import COLUMNS, HOSTILE, SELECTION, UNITS, screened

from recinet_ase.screening.output.report import write_report
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

    browser.execute_script(
        "HTMLAnchorElement.prototype.click = function () { window.saved = this.href; };"
        "document.getElementById('download').click()"
    )
    saved = unquote(browser.execute_script("return window.saved").partition(",")[2])
    lines = list(csv.DictReader(io.StringIO(saved)))
    assert [line["formula"] for line in lines] == cells(browser, "formula")
    assert all(float(line["band gap (eV)"]) > 0 for line in lines)

    wanted = formulas(table)[0]
    browser.find_element("id", "filter").send_keys(wanted.lower())
    rows = browser.find_elements("css selector", "#shortlist tbody tr")
    assert 0 < sum(row.is_displayed() for row in rows) == formulas(table).count(wanted) < len(rows)

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
