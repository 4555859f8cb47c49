"""Put the table of models (docs/reference/models.md) together from cards and measured speeds.

python benchmarks/screening/models.py -o docs/reference/speed.csv     # after a change of models
python tools/model_table.py
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from recinet_ase.pretrained import available_ensembles, available_models, model_card
from recinet_ase.training.card import stated_error

ROOT = Path(__file__).parents[1]
HEADINGS = (
    "model", "property", "unit", "functional", "data", "trained on", "validation MAE",
    "always the mean", "crystals/s",
)  # fmt: skip
DATA = {"jarvis": "JARVIS-DFT 2021", "mp": "Materials Project 2018"}


def rows() -> list[str]:
    """A line of markdown for each property of each model."""
    with (ROOT / "docs" / "reference" / "speed.csv").open(newline="", encoding="utf-8") as handle:
        speeds = {row["model"]: row["crystals_per_second"] for row in csv.DictReader(handle)}
    lines = []
    for name in sorted([*available_models(), *available_ensembles()]):
        card = model_card(name)
        training = card["training"]
        for at, prop in enumerate(card["properties"]):
            learnt = training.get("n_labels", {}).get(prop, training["n_train"])
            error, deviation = stated_error(training, card["properties"], at)
            cells = (
                f"`{name}`",
                prop,
                card["units"][at] or "1",
                card["functional"][at],
                DATA[training["dataset"]],
                f"{learnt:,}",
                "not measured" if error is None else f"{error:.3g}",
                "" if deviation is None else f"{deviation:.3g}",
                f"{int(speeds[name]):,}" if name in speeds else "not measured",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Replace the table in the page of models."""
    path = ROOT / "docs" / "reference" / "models.md"
    table = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *rows()]
    text = path.read_text(encoding="utf-8")
    new, found = re.subn(r"\| model \| property \|.*\n(\|.*\n)+", "\n".join(table) + "\n", text)
    if found != 1:
        raise SystemExit(f"{path} has no table of models to replace")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
