"""Write docs/howto/report.png: the report of a real screen, as a browser shows it.

    python tools/report_screenshot.py --data-dir DIR [--count 2000] [--output docs/howto/report.png]

Screens every n-th crystal of JARVIS-DFT with `recinet-screen --props bandgap,ehull --intervals`,
writes the report of a shortlist and photographs it with headless Chromium
(`apt-get install chromium chromium-driver`, `pip install selenium`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from ase import Atoms
from ase.db import connect
from PIL import Image

from recinet_ase import StructureError
from recinet_ase.data.published import JARVIS
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.properties import get_property_info
from recinet_ase.screening.output.report import write_report
from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import ListTable

TARGET = Path(__file__).parents[1] / "docs" / "howto" / "report.png"
SELECTION = Selection(
    where="bandgap > 1 and bandgap < 2 and ehull < 0.05",
    sort=("ehull",),
    unique="fingerprint",
    top=50,
)
OPTIONS = [
    *("--props", "bandgap,ehull", "--intervals", "--where", f"'{SELECTION.where}'"),
    *("--sort", "ehull", "--unique", "fingerprint", "--top", "50", "--report", "report.html"),
]


def write_database(path: Path, data_dir: str | None, count: int) -> list[Atoms]:
    records = JARVIS.records(data_dir)
    structures = []
    with connect(path) as database:
        for key, record in islice(records.items(), 0, None, max(1, len(records) // count)):
            if len(structures) == count:
                break
            try:
                atoms = to_crystal(record).to_ase()
            except StructureError:
                continue
            database.write(atoms, jid=key)
            structures.append(atoms)
    return structures


def screen(path: Path, structures: list[Atoms]) -> tuple[ListTable, list[str], float]:
    output = path.with_suffix(".jsonl")
    command = [sys.executable, "-m", "recinet_ase.cli.screen", str(path), "--id-key", "jid"]
    command += ["--props", "bandgap,ehull", "--intervals", "--device", "cpu", "-o", str(output)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    columns = list(rows[0])
    units = {
        column: get_property_info(column.removesuffix("_low").removesuffix("_high")).unit
        for column in columns
        if column.startswith(("bandgap", "ehull"))
    }
    provenance = [
        line
        for line in done.stderr.splitlines()
        if line.startswith(("bandgap:", "ehull:", "caution,"))
    ]
    return ListTable(columns, rows, units, structures), provenance, seconds


def photograph(page: Path, output: Path, width: int, height: int) -> None:
    from selenium import webdriver
    from selenium.webdriver import ActionChains

    options = webdriver.ChromeOptions()
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run hide-scrollbars".split()
    flags += "disable-background-networking disable-component-update disable-sync".split()
    flags += [f"window-size={width},{height + 200}", f"user-data-dir={page.parent / 'profile'}"]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.binary_location = "/usr/bin/chromium"
    service = webdriver.ChromeService(executable_path="/usr/bin/chromedriver")
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(page.as_uri())
        canvas = browser.find_element("id", "scatter")
        ActionChains(browser).move_to_element_with_offset(canvas, -172, 181).perform()
        browser.save_screenshot(str(output))
    Image.open(output).convert("RGB").crop((0, 0, width, height)).save(output, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database, page = Path(folder) / "jarvis.db", Path(folder) / "report.html"
        structures = write_database(database, arguments.data_dir, arguments.count)
        table, provenance, seconds = screen(database, structures)
        print(f"{len(table)} structures screened in {seconds:.1f} s")
        start = time.perf_counter()
        indices = SELECTION.indices(table)
        print(f"{len(indices)} selected in {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        write_report(
            page,
            table,
            indices,
            selection=SELECTION,
            title=f"{len(table):,} crystals of JARVIS-DFT",
            sources=["jarvis.db"],
            command=" ".join(["recinet-screen jarvis.db", *OPTIONS]),
            provenance=provenance,
            seconds=seconds,
        )
        print(
            f"report of {page.stat().st_size / 1e3:.0f} kB in {time.perf_counter() - start:.1f} s"
        )
        photograph(page, arguments.output, 1280, 1560)
        print(f"{arguments.output}: {arguments.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
