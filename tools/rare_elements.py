"""Write into shipped models which elements few of their training crystals hold.

python tools/rare_elements.py --data-dir DIR [NAME ...]

New models record it themselves when they are trained (`recinet_ase.training.elements`); this
counts for models of the package that were made before, from the official training ids of their
last stage. It prints the counts, and the share of validation crystals that hold such an element.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from make_references import records_of

from recinet_ase.data.catalogue import open_dataset
from recinet_ase.pretrained import available_models, model_card, model_folder
from recinet_ase.training.elements import RARE, listed_rare

_TITLE = "## Where not to trust it\n\n"


def seen(training: dict[str, Any], dataset: Any) -> tuple[set[str], set[str]]:
    """Training and validation ids of a model's last stage, by the official splits."""
    infos = [dataset.info(name) for name in training["properties"]]
    splits = [dataset.split(info) for info in infos]
    held = set().union(*(split.held_out for split in splits))
    for name in training.get("hold_out", ()):
        held |= dataset.split(dataset.info(name)).held_out
    train = set().union(*(split.train for split in splits)) - held
    return train, set().union(*(split.val for split in splits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--data-dir", type=Path, required=True)
    arguments = parser.parse_args()
    elements: dict[str, dict[str, set[str]]] = {}
    datasets: dict[str, Any] = {}
    for name in arguments.models or available_models():
        folder = model_folder(name)
        for path in [folder / "config.json", *sorted(folder.glob("ensemble/member-*/config.json"))]:
            card = json.loads(path.read_text(encoding="utf-8"))
            training = card["training"]
            data = training["dataset"]
            if data not in elements:
                records = records_of(arguments.data_dir, data)
                elements[data] = {k: set(r["atoms"]["elements"]) for k, r in records.items()}
                datasets[data] = open_dataset(data, arguments.data_dir)
            train, val = seen(training, datasets[data])
            known = elements[data]
            counts = Counter(e for key in train & set(known) for e in known[key])
            rare = {e: n for e, n in sorted(counts.items()) if n < RARE}
            flagged = sum(bool(known[k] & set(rare)) for k in val if k in known) / len(val)
            training["rare_elements"] = rare
            path.write_text(json.dumps(card, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            print(
                f"{path.parent.name}: {len(train & set(known))} ({training['n_train']}) crystals, "
                f"{len(rare)} rare elements, {100 * flagged:.1f} % of validation hold one: "
                f"{listed_rare(rare)[:200]}"
            )
            readme = path.with_name("README.md")
            if readme.exists():
                write_line(readme, rare)
        if (folder / "ensemble").is_dir():
            merged = model_card(f"{name}:ensemble")["training"]["rare_elements"]
            write_line(folder / "ensemble" / "README.md", merged)


def write_line(readme: Path, rare: dict[str, int]) -> None:
    """Put the list into a card, in place of an earlier one."""
    before, title, after = readme.read_text(encoding="utf-8").partition(_TITLE)
    lines = [line for line in after.splitlines() if not line.startswith("- Fewer than ")]
    if rare and title:
        lines.insert(1, f"- {listed_rare(rare)}")
    readme.write_text(before + title + "\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
