"""The model card: what a person must know before using a model, from what the model records.

One writer for run folders and for the shipped models.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from recinet_ase.elements import symbols
from recinet_ase.evaluation.breakdowns import (
    Group,
    by_chemistry,
    by_element,
    by_value,
    markdown_table,
)
from recinet_ase.evaluation.metrics import log10_error, regression_metrics
from recinet_ase.evaluation.table import PredictionTable
from recinet_ase.models.property_model import ModelConfig
from recinet_ase.training.card_history import data_source, training_lines
from recinet_ase.training.elements import listed_rare

_MINIMUM = 10  # crystals from which a group's error is worth a warning
_NOTABLE = 2.0  # times the overall MAE
_LISTED = 10


def card_text(
    config: ModelConfig,
    validation: PredictionTable | None = None,
    *,
    faults: Collection[str] = (),
    others: Sequence[tuple[PredictionTable, Collection[str]]] = (),
    hardware: str = "",
    usage: str = "",
    licence: str = "",
) -> str:
    """The text of a model folder's ``README.md``.

    Every figure comes from the configuration's provenance or from ``validation``; what
    neither states is said to be unknown.

    Args:
        config: The model's configuration with its provenance.
        validation: Predictions on the validation crystals, for the error by chemistry, value
            and element; without it the card states the error that training measured.
        faults: Validation ids whose label is known to be wrong: the error is stated with and
            without them.
        others: The same two for the second property and those after it.
        hardware: What it was trained on, e.g. ``"one CPU core"``; else what the run recorded.
        usage: How to name the model in a command, by default its name.
        licence: Licence of the weights.
    """
    training, several = config.training, len(config.properties) > 1
    name = usage or config.name
    parts = [f"# {config.name}", _heading(config)]
    if config.caution:
        parts.append(f"**Caution.** This model is {config.caution}.")
    given: list[tuple[PredictionTable | None, Collection[str]]] = [(validation, faults), *others]
    given += [(None, ())] * (len(config.properties) - len(given))
    tables = [None if table is None else table.scored() for table, _ in given]
    labels = [f"{info.label[:1].upper()}{info.label[1:]}" for info in config.infos]
    parts += [_overview(config)] * several
    for at, scored in enumerate(tables):
        parts += [f"## {labels[at]}"] * several
        parts.append(_figures(config, at, scored, given[at][1]))
    parts += ["## Use", _usage(name, config.properties)]
    parts += ["## How the figures were obtained", _measured(config, validation, name)]
    for at, scored in enumerate(tables):
        if scored is None or not len(scored):
            continue
        info = config.infos[at]
        parts += [f"### {labels[at]}: where the errors are"] * several
        for title, groups in (
            ("chemistry", by_chemistry(scored)),
            (f"true {info.column}", by_value(scored)),
        ):
            if groups:
                parts.append("\n".join(markdown_table(groups, title, info.unit)))
    parts += ["## Training", training_lines(config, hardware)]
    parts += ["## Where not to trust it", _limits(config, tables)]
    data_licence = data_source(str(training.get("dataset", "")))[1]
    weights = f"weights {licence}" if licence else "weights as their author decides"
    parts.append(f"Licence: code MIT, {weights}. Training data: {data_licence}.")
    return "\n\n".join(parts) + "\n"


def _heading(config: ModelConfig) -> str:
    """What the model predicts, in a sentence."""
    texts = [
        f"{info.label}{f' in {info.unit}' if info.unit else ''}{_level(config, info.name)}"
        for info in config.infos
    ]
    if len(texts) > 1:
        return f"Of inorganic crystals, in one pass: {'; '.join(texts)}."
    (info,) = config.infos
    heading = f"{info.label[:1].upper()}{info.label[1:]} of inorganic crystals"
    unit = f" in {info.unit}" if info.unit else ""
    return f"{heading}{unit}{_level(config, info.name)}."


def _level(config: ModelConfig, name: str) -> str:
    functional = config.functional_of(name)
    return f", at the level of {functional}" if functional else ""


def _overview(config: ModelConfig) -> str:
    """The error of every property beside that of its training mean."""
    lines = [
        "| property | unit | functional | validation MAE | always the mean | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for at, info in enumerate(config.infos):
        stated = stated_error(config.training, config.properties, at)
        error, deviation = ("" if value is None else f"{value:.3g}" for value in stated)
        lines.append(
            f"| `{info.name}` | {info.unit or '1'} | {config.functional_of(info.name)} | "
            f"{error} | {deviation} | {info.description or info.label} |"
        )
    return "\n".join(lines)


def _figures(
    config: ModelConfig, at: int, scored: PredictionTable | None, faults: Collection[str]
) -> str:
    """The table of a property at the top."""
    training, unit = config.training, config.infos[at].unit
    unit = f" {unit}" if unit else ""
    rows: list[tuple[str, str]] = []
    error, deviation = stated_error(training, config.properties, at)
    if scored is not None and len(scored):
        m = regression_metrics(scored.targets, scored.predictions)
        deviation = m.mad if deviation is None else deviation
        log_error, positive = math.nan, 0
        if config.infos[at].logarithmic:
            log_error, positive = log10_error(scored.targets, scored.predictions)
        rows.append(("validation MAE", f"**{m.mae:.3g}{unit}** ({m.n} crystals)"))
        rows.append(
            ("95 % interval of it (bootstrap)", f"{m.mae_low:.3g} to {m.mae_high:.3g}{unit}")
        )
        if positive:
            logarithm = f"log10({config.infos[0].unit})"
            rows.append(
                (f"validation MAE of {logarithm}", f"{log_error:.4f} ({positive} crystals)")
            )
        right = scored.select(np.array([key not in faults for key in scored.ids]))
        if 0 < len(right) < len(scored):
            wrong = len(scored) - len(right)
            rows.append(
                (
                    f"the same without {wrong} labels known to be wrong (docs/concepts/limits.md)",
                    f"{right.absolute_errors.mean():.3g}{unit}",
                )
            )
        rows.append(
            (
                "validation RMSE, median absolute error",
                f"{m.rmse:.3g}, {m.median_absolute_error:.3g}{unit}",
            )
        )
    elif error is not None:
        rows.append(("validation MAE", f"**{error:.3g}{unit}**"))
    else:
        rows.append(("validation MAE", "not measured"))
    if deviation is not None:
        rows.append(
            (
                'mean absolute deviation of the data (MAE of "always the mean")',
                f"{deviation:.3g}{unit}",
            )
        )
    rows.append(("test MAE", "to be measured"))
    if "parameters" in training:
        several = "parameters, of all properties together" if len(config.properties) > 1 else ""
        rows.append((several or "parameters", f"{training['parameters']:,}"))
    return "\n".join(["| | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def stated_error(
    training: dict[str, Any], properties: Sequence[str], at: int
) -> tuple[float | None, float | None]:
    """Validation error of a model's property and of the constant mean, None where not stated."""
    each = training.get("validation", {}).get(properties[at], {})
    first = training if at == 0 else {}
    return first.get("validation_mae", each.get("mae")), first.get(
        "validation_mad", each.get("mad")
    )


def _usage(name: str, properties: Sequence[str]) -> str:
    """How it is called, from Python and the command line."""
    calls = "\n".join(f'atoms.calc.get_property("{prop}", atoms)' for prop in properties)
    return f"""\
```python
from recinet_ase import ReciNetCalculator

atoms.calc = ReciNetCalculator("{name}")
{calls}
```

```console
recinet-screen structures.db --model {name} -o results.csv
```"""


def _measured(config: ModelConfig, validation: PredictionTable | None, name: str) -> str:
    """How the validation error was obtained."""
    training = config.training
    dataset = training.get("dataset", "")
    if validation is None:
        return "The validation error is that of the end of training, on the run's own graphs."
    refused = int(validation.refused.sum())
    several = len(config.properties) > 1
    prop = f" --prop {config.properties[0]}" if several else ""
    crystals = "validation crystal"
    if several:
        crystals += " of the property's own split (and so for the other properties)"
    lines = [
        f"`recinet-evaluate {name} --dataset {dataset}{prop} --split val`: the weights in this "
        "folder, through `recinet_ase.Predictor` on full graphs in float32, for every "
        f"{crystals}.",
    ]
    if refused:
        lines.append(f"{refused} of {len(validation)} were refused.")
    lines.append("Settings may have been chosen on these crystals; no test label was used.")
    return " ".join(lines)


def _limits(config: ModelConfig, tables: Sequence[PredictionTable | None]) -> str:
    """Where the model is not to be trusted, a line for each reason."""
    lines = [
        f"{len(config.elements)} elements occur in the training data; a crystal with another one "
        "is refused."
    ]
    if borrowed := config.training.get("elements_of_start"):
        lines.append(
            f"Of these, {', '.join(symbols()[z] for z in borrowed)} occur in the data of the "
            "model that training started from alone: predictions for them carry a warning."
        )
    if rare := config.training.get("rare_elements"):
        lines.append(listed_rare(rare))
    for info, scored in zip(config.infos, tables, strict=True):
        if scored is None or not len(scored):
            continue
        overall = float(scored.absolute_errors.mean())
        which = f" of {info.label}" if len(tables) > 1 else ""
        for kind, groups in (
            ("Chemistries", by_chemistry(scored)),
            ("Elements", by_element(scored)),
            ("True values", by_value(scored)),
        ):
            if listed := _notable(groups, overall, info.unit):
                lines.append(f"{kind} with at least twice the overall error{which}: {listed}.")
    lines += [
        "Relaxed, ordered, three-dimensional crystals near equilibrium. Strained or disordered "
        "cells, surfaces, molecules and liquids are outside the training data.",
        "The interval above is that of the mean error; it says nothing of a single prediction.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _notable(groups: list[Group], overall: float, unit: str) -> str:
    bad = [g for g in groups if g.n >= _MINIMUM and g.mae >= _NOTABLE * overall]
    worst = sorted(bad, key=lambda g: -g.mae)[:_LISTED]
    unit = f" {unit}" if unit else ""
    return ", ".join(f"{g.group} ({g.mae:.3g}{unit}, {g.n} crystals)" for g in worst)
