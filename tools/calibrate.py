"""Give models 90 % intervals and a domain, fitted to their validation crystals.

    python tools/calibrate.py runs/gap [jarvis-opt ...] --data-dir DIR
    python tools/calibrate.py runs/mine --dataset mine.csv --target gap
    python tools/calibrate.py --shipped --table

Each argument is a model folder or the name of a shipped model; ``calibration.json`` and
``calibration.safetensors`` are written into the folder. The figures are cross-fitted: every
crystal is judged by a calibration that never saw it. ``--table`` prints the figures that
the folders hold and puts them into the models' cards, without fitting.
"""

from __future__ import annotations

import argparse
import re
import time

import torch
from heldout import crystals_of

from recinet_ase.pretrained import (
    available_ensembles,
    available_models,
    load_model,
    model_folder,
)
from recinet_ase.uncertainty.fit import fit_calibration
from recinet_ase.uncertainty.observe import observe

TRAINING_SAMPLE = 5000

SECTION = "## Uncertainty of single predictions"

EXPLAINED = """\
90 % intervals, and a warning outside the training domain (docs/concepts/uncertainty.md).
Measured on the validation crystals, each judged by a calibration that never saw it
(`tools/calibrate.py`):"""

HEADER = """\
| model | crystals | coverage | by fifth of predicted value | median width | \
MAE by fifth of width | rank correlation | outside the domain |
|---|---|---|---|---|---|---|---|"""


def calibrate(name: str, **data: str | None) -> None:
    """Fit the calibration of one model and write it into its folder."""
    start = time.perf_counter()
    folder = model_folder(name)
    model = load_model(name, calibrated=False)
    config = model.config
    crystals = crystals_of(name, config, TRAINING_SAMPLE, **data)
    ids, found = observe(model, crystals.validation.items())
    _, train = observe(model, crystals.training.items())
    nan = float("nan")
    rows = [[crystals.labels[p].get(i, nan) for p in config.properties] for i in ids]
    calibration = fit_calibration(
        train,
        found,
        torch.tensor(rows, dtype=torch.float64),
        config.properties,
        tuple(info.minimum for info in config.infos),
        model.fingerprint,
    )
    calibration.save(folder)
    print(f"{config.name}: calibrated in {time.perf_counter() - start:.0f} s", flush=True)


def rows(name: str) -> list[str]:
    """The cross-fitted figures of a model's properties, as rows of the table."""
    model = load_model(name)
    if model.calibration is None:
        return [f"| {model.config.name} | not calibrated | | | | | | |"]
    figures = model.calibration.figures
    found = []
    for info in model.config.infos:
        f = figures["properties"][info.name]
        fifths = ", ".join(f"{100 * c:.1f}" for c in f["coverage_by_fifth"])
        errors = ", ".join(f"{e:.3g}" for e in f["error_by_fifth_of_width"])
        several = f", {info.name}" if len(model.config.infos) > 1 else ""
        found.append(
            f"| {model.config.name}{several} | {f['crystals']} | {100 * f['coverage']:.1f} % | "
            f"{fifths} | {f['median_width']:.3g} {info.unit} | {errors} | "
            f"{f['rank_correlation']:.2f} | {100 * figures['flagged']:.1f} % |"
        )
    return found


def write_section(name: str) -> None:
    """Put the figures into the model's card, if it has one."""
    card = model_folder(name) / "README.md"
    if not card.exists():
        return
    text = card.read_text(encoding="utf-8")
    text = text.replace("- No uncertainty is given for a single prediction yet.\n", "")
    earlier = rf"{re.escape(SECTION)}\n.*?(?=^## |^Licence: |\Z)"
    text = re.sub(earlier, "", text, flags=re.S | re.M)
    before, licence, after = text.partition("\nLicence: ")
    table = "\n".join((HEADER, *rows(name)))
    parts = (before.rstrip(), SECTION, EXPLAINED, table, licence.lstrip() + after)
    card.write_text("\n\n".join(parts).rstrip() + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--shipped", action="store_true", help="all shipped models")
    parser.add_argument("--table", action="store_true", help="fit nothing")
    parser.add_argument("--data-dir")
    parser.add_argument("--dataset", help="own data that the model was trained on: a path")
    parser.add_argument("--target", help="key of the labels in own data")
    parser.add_argument("--unit", help="unit of the labels in own data")
    arguments = parser.parse_args()
    shipped = [*available_models(), *available_ensembles()]
    names = sorted(shipped) if arguments.shipped else arguments.models
    if not names:
        parser.error("name a model folder, or give --shipped")
    if not arguments.table:
        for name in names:
            calibrate(
                name,
                data_dir=arguments.data_dir,
                spec=arguments.dataset,
                target=arguments.target,
                unit=arguments.unit,
            )
    print(HEADER)
    for name in names:
        write_section(name)
        print("\n".join(rows(name)))


if __name__ == "__main__":
    main()
