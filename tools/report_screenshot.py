"""Write docs/howto/report.png: the report of a real screen, as a browser shows it.

    python tools/report_screenshot.py --data-dir DIR [--count 2000] [--output docs/howto/report.png]

Screens every n-th crystal of JARVIS-DFT and photographs the report of a shortlist with headless
Chromium (`apt-get install chromium chromium-driver`, `pip install selenium`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

from ase.db import connect
from PIL import Image

from recinet_ase import StructureError
from recinet_ase.data.published import JARVIS
from recinet_ase.graph.adapters import to_crystal

TARGET = Path(__file__).parents[1] / "docs" / "howto" / "report.png"
COMMAND = (
    *("jarvis.db", "--props", "bandgap,ehull", "--id-key", "jid", "--intervals", "--sort", "ehull"),
    *("--where", "bandgap > 1 and bandgap < 2 and ehull < 0.05", "--unique", "--top", "50"),
    *("--report", "report.html"),
)


def write_database(path: Path, data_dir: str | None, count: int) -> None:
    """Every n-th crystal of JARVIS-DFT."""
    records = JARVIS.records(data_dir)
    with connect(path) as database:
        for key, record in islice(records.items(), 0, None, max(1, len(records) // count)):
            try:
                database.write(to_crystal(record).to_ase(), jid=key)
            except StructureError:
                continue


def photograph(page: Path, output: Path, width: int, height: int) -> None:
    from selenium import webdriver

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
        browser.save_screenshot(str(output))
    Image.open(output).convert("RGB").crop((0, 0, width, height)).save(output, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_database(folder / "jarvis.db", arguments.data_dir, arguments.count)
        # By its name, which the page shows.
        program = Path(sys.executable).with_name("recinet-screen")
        subprocess.run([program, *COMMAND, "--device", "cpu"], check=True, cwd=folder)
        print(f"report of {(folder / 'report.html').stat().st_size / 1e3:.0f} kB")
        photograph(folder / "report.html", arguments.output, 1280, 1560)
        print(f"{arguments.output}: {arguments.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
