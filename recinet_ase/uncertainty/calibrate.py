"""Give a model 90 % intervals and a domain, fitted to its validation crystals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from recinet_ase.errors import ReciNetError
from recinet_ase.pretrained import load_model, model_folder
from recinet_ase.uncertainty.calibration import Calibration
from recinet_ase.uncertainty.copies import observe_copies
from recinet_ase.uncertainty.fit import MINIMUM_CRYSTALS, STRAINS, fit_calibration
from recinet_ase.uncertainty.heldout import crystals_of
from recinet_ase.uncertainty.observe import observe

TRAINING_SAMPLE = 8000
COPIED = 3000
"""Validation crystals that are strained, and as many that are rattled."""

SECTION = "## Uncertainty of single predictions"

EXPLAINED = """\
90 % intervals, and a warning outside the training domain (docs/concepts/uncertainty.md).
Measured on the validation crystals, each judged by a calibration that never saw it
(`recinet calibrate`). "Strained" and "rattled" are copies with volumes changed by up to 12 % and
atoms moved by up to 0.15 A: how many of those not flagged hold the relaxed crystal's value."""

HEADER = """\
| model | crystals | coverage | by fifth of predicted value | median width | \
MAE by fifth of width | rank correlation | outside the domain | strained | rattled |
|---|---|---|---|---|---|---|---|---|---|"""


def calibrate(
    name: str,
    data_dir: str | Path | None = None,
    spec: str | None = None,
    target: str | None = None,
    unit: str | None = None,
    progress: Callable[[str, int, int | None], None] = lambda stage, done, total: None,
) -> Calibration:
    """Fit the calibration of a model and write it into its folder.

    Args:
        name: Model name or folder.
        data_dir: Folder of the named datasets, else ``RECINET_DATA_DIR``.
        spec: Where own data is, if not where the run found it.
        target: Key of the labels in own data.
        unit: Unit of the labels in own data.
        progress: Told each stage, how many crystals are done, and of how many.

    Raises:
        ReciNetError: If the data cannot be opened or has too few validation crystals.
    """
    folder = model_folder(name)
    progress(f"{name}: reading", 0, None)
    model = load_model(name, calibrated=False)
    config = model.config
    crystals = crystals_of(name, config, TRAINING_SAMPLE, data_dir, spec, target, unit)
    fewest = min(map(len, crystals.labels.values()))
    if fewest < MINIMUM_CRYSTALS:
        raise ReciNetError(
            f"{fewest} validation crystals are too few to calibrate with (at least "
            f"{MINIMUM_CRYSTALS})"
        )

    def counted(kind: str, entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for done, entry in enumerate(entries.items(), 1):
            progress(f"{config.name}: {kind} crystals", done, len(entries))
            yield entry

    ids, found = observe(model, counted("validation", crystals.validation))
    train_ids, train = observe(model, counted("training", crystals.training))
    progress(f"{config.name}: strained and rattled copies", 0, None)
    train_copies = observe_copies(model, crystals.training, train_ids, train, "strained")
    copies = {
        kind: observe_copies(model, crystals.validation, ids, found, kind, COPIED)
        for kind in ("strained", "rattled")
    }
    progress(f"{config.name}: fitting", 0, None)
    nan = float("nan")
    values = [[crystals.labels[p].get(i, nan) for p in config.properties] for i in ids]
    calibration = fit_calibration(
        train,
        found,
        torch.tensor(values, dtype=torch.float64),
        config.properties,
        tuple(info.minimum for info in config.infos),
        model.fingerprint,
        train_copies,
        copies,
    )
    calibration.save(folder)
    write_section(name)
    return calibration


def table(name: str) -> list[str]:
    """The cross-fitted figures of a model's properties, as rows under `HEADER`."""
    model = load_model(name)
    if model.calibration is None:
        return [f"| {model.config.name} | not calibrated | | | | | | | | |"]
    figures = model.calibration.figures
    rows = []
    for info in model.config.infos:
        f = figures["properties"][info.name]
        fifths = ", ".join(f"{100 * c:.1f}" for c in f["coverage_by_fifth"])
        errors = ", ".join(f"{e:.3g}" for e in f["error_by_fifth_of_width"])
        several = f", {info.name}" if len(model.config.infos) > 1 else ""
        rows.append(
            f"| {model.config.name}{several} | {f['crystals']} | {100 * f['coverage']:.1f} % | "
            f"{fifths} | {f['median_width']:.3g} {info.unit} | {errors} | "
            f"{f['rank_correlation']:.2f} | {100 * figures['flagged']:.1f} % | "
            f"{_of_copies(f, STRAINS)} | {_of_copies(f, ('rattled',))} |"
        )
    return rows


def _of_copies(figures: Mapping[str, Any], groups: Iterable[str]) -> str:
    """Coverage of changed copies that are not flagged, and the share that is flagged."""
    parts = [figures["changed"][name] for name in groups if name in figures["changed"]]
    if not parts:
        return ""
    crystals = sum(p["crystals"] for p in parts)
    flagged = sum(p["crystals"] * p["flagged"] for p in parts)
    inside = sum(p["crystals"] * (1 - p["flagged"]) * p["coverage_unflagged"] for p in parts)
    inside /= max(crystals - flagged, 1)
    return f"{100 * inside:.0f} % ({100 * flagged / crystals:.0f} % flagged)"


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
    figures = "\n".join((HEADER, *table(name)))
    parts = (before.rstrip(), SECTION, EXPLAINED, figures, licence.lstrip() + after)
    card.write_text("\n\n".join(parts).rstrip() + "\n", encoding="utf-8")
