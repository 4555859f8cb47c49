"""What an evaluation says: json, markdown, csv files, and the lines of a table."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recinet_ase._version import __version__
from recinet_ase.evaluation.breakdowns import (
    Group,
    by_chemistry,
    by_element,
    by_size,
    by_value,
    markdown_table,
    write_groups,
)
from recinet_ase.evaluation.comparison import Comparison
from recinet_ase.evaluation.metrics import (
    RESAMPLES,
    GapClassification,
    Metrics,
    gap_classification,
    log10_error,
    regression_metrics,
)
from recinet_ase.evaluation.plots import parity_plot
from recinet_ase.evaluation.runner import Evaluation

MINIMUM_GROUP = 10
"""Fewest crystals for which the report states an element's error."""

_WORST = 12


@dataclass(frozen=True)
class Report:
    """An evaluation with everything computed from it.

    Attributes:
        evaluation: The predictions.
        metrics: Errors, None where no label is known or nothing was predicted.
        log_error: Mean absolute error of the decimal logarithm and the number of crystals that
            have one, for properties that are scored so.
        without_faults: The same without the labels known to be wrong, where there are any.
        gaps: Metals against non-metals, for band gaps.
        comparisons: Against other models.
    """

    evaluation: Evaluation
    metrics: Metrics | None = None
    log_error: tuple[float, int] | None = None
    without_faults: Metrics | None = None
    gaps: GapClassification | None = None
    comparisons: tuple[Comparison, ...] = ()

    @property
    def without_metrics(self) -> str:
        """Why there are no errors, ``""`` where there are."""
        if self.metrics is not None:
            return ""
        e = self.evaluation
        if not e.table.labelled.any():
            return (
                f"The labels of the split {e.part!r} of {e.dataset} are withheld: predictions are "
                "written, errors cannot be computed."
            )
        return "No labelled crystal got a prediction: errors cannot be computed."


def is_gap(evaluation: Evaluation) -> bool:
    """Whether the property is a band gap, in which metals and non-metals can be told apart."""
    return "bandgap" in (evaluation.info.name, evaluation.info.variant_of)


def make_report(
    evaluation: Evaluation,
    comparisons: Sequence[Comparison] = (),
    gap_threshold: float = 0.1,
    resamples: int = RESAMPLES,
) -> Report:
    """Compute the errors of an evaluation.

    Args:
        evaluation: The predictions.
        comparisons: Against other models, made before.
        gap_threshold: Gap in eV above which a crystal counts as non-metal.
        resamples: Bootstrap samples of the interval of the MAE.
    """
    scored = evaluation.table.scored()
    if not len(scored):
        return Report(evaluation)
    metrics = regression_metrics(scored.targets, scored.predictions, resamples)
    gaps = None
    if is_gap(evaluation):
        gaps = gap_classification(scored.targets, scored.predictions, gap_threshold)
    right = scored.select(np.array([key not in evaluation.faults for key in scored.ids]))
    without_faults = None
    if 0 < len(right) < len(scored):
        without_faults = regression_metrics(right.targets, right.predictions, resamples)
    log_error = None
    if evaluation.info.logarithmic:
        log_error = log10_error(scored.targets, scored.predictions)
    return Report(evaluation, metrics, log_error, without_faults, gaps, tuple(comparisons))


def summary(report: Report) -> list[tuple[str, str]]:
    """Names and values for a person, with units."""
    e, m = report.evaluation, report.metrics
    unit = f" {e.info.unit}" if e.info.unit else ""
    rows = [
        ("model", f"{e.config.name} ({_joined(e.predicted, e.config.functional_of(e.predicted))})"),
        (
            "data",
            f"{e.dataset}, {e.part}" + ("" if e.part == "all" else f" of the {_rule(e)} split"),
        ),
        ("labels", f"{e.info.label}{f' ({e.functional})' if e.functional else ''}"),
        ("crystals", _counts(e)),
    ]
    if m is not None:
        rows += [
            ("MAE", f"{m.mae:.4g}{unit}  (95 % interval {m.mae_low:.4g} to {m.mae_high:.4g})"),
            ("RMSE", f"{m.rmse:.4g}{unit}"),
            ("median absolute error", f"{m.median_absolute_error:.4g}{unit}"),
            ("largest error", f"{m.max_error:.4g}{unit}"),
            ("mean error (bias)", f"{m.mean_error:+.3g}{unit}"),
            ("MAD of the targets", f"{m.mad:.4g}{unit}  (MAD/MAE {_number(m.mad_mae_ratio)})"),
            ("R2", _number(m.r2, ".4f")),
        ]
    if report.log_error is not None and report.log_error[1]:
        error, n = report.log_error
        rows.append((f"MAE of log10({e.info.unit})", f"{error:.4g} ({n} above zero)"))
    if (right := report.without_faults) is not None:
        wrong = len(e.table.scored()) - right.n
        rows.append((f"MAE without {wrong} labels known to be wrong", f"{right.mae:.4g}{unit}"))
    if report.gaps is not None:
        g = report.gaps
        rows.append(
            (
                f"metal / non-metal at {g.threshold:g} eV",
                f"{g.accuracy:.1%} right; {g.metal_as_nonmetal} of "
                f"{g.metal_as_metal + g.metal_as_nonmetal} metals called non-metal, "
                f"{g.nonmetal_as_metal} of {g.nonmetal_as_metal + g.nonmetal_as_nonmetal} "
                "non-metals called metal",
            )
        )
    for c in report.comparisons:
        rows.append(
            (
                f"against {c.other}",
                f"{c.mae:.4g} and {c.other_mae:.4g}{unit} on {c.n} common crystals; difference "
                f"{c.difference:.3g} (95 % interval {c.difference_low:.3g} to "
                f"{c.difference_high:.3g}); closer on {c.improved:.1%}, farther on "
                f"{c.worsened:.1%}; Wilcoxon p {c.wilcoxon_p:.2g}, sign test p {c.sign_p:.2g}",
            )
        )
    return rows


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _rule(e: Evaluation) -> str:
    seeded = e.rule.kind in ("random", "composition")
    return f"{e.rule} (seed {e.rule.seed})" if seeded else str(e.rule)


def _counts(e: Evaluation) -> str:
    parts = [f"{len(e.table.scored())} judged"]
    if e.withheld:
        parts.append(f"{e.withheld} without a label")
    parts.append(f"{e.refused} refused")
    if e.absent:
        parts.append(f"{len(e.absent)} without a structure")
    return ", ".join(parts)


def _number(value: float, form: str = ".3g") -> str:
    return "undefined" if math.isnan(value) else format(value, form)


def document(report: Report) -> dict[str, Any]:
    """The content of ``metrics.json``; what is undefined is null."""
    e = report.evaluation
    gaps = None
    if report.gaps is not None:
        gaps = {**asdict(report.gaps), "accuracy": report.gaps.accuracy}
    return {
        "model": e.config.name,
        "model_sha256": e.config.sha256,
        "recinet_ase": __version__,
        "property": e.info.name,
        "predicted": e.predicted,
        "unit": e.info.unit,
        "dataset": e.dataset,
        "split": e.part,
        "split_rule": _rule(e),
        "functional": e.functional,
        "crystals": len(e.table) + len(e.absent),
        "refused": e.refused,
        "without_structure": len(e.absent),
        "without_label": e.withheld,
        "seconds": None if math.isnan(e.seconds) else round(e.seconds, 2),
        "warnings": list(e.warnings),
        "metrics": None if report.metrics is None else _without_nan(asdict(report.metrics)),
        "log10_mae": None if report.log_error is None else _finite(report.log_error[0]),
        "metrics_without_known_faults": (
            None if report.without_faults is None else _without_nan(asdict(report.without_faults))
        ),
        "metals": gaps,
        "comparisons": [_without_nan(asdict(c)) for c in report.comparisons],
    }


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _finite(v) if isinstance(v, float) else v for k, v in values.items()}


def markdown(report: Report) -> str:
    """The content of ``report.md``."""
    e, unit = report.evaluation, report.evaluation.info.unit
    lines = [f"# {e.config.name} on {e.dataset}, split {e.part}", ""]
    lines += [f"**Warning.** {w}.\n" for w in e.warnings]
    if report.without_metrics:
        lines += [report.without_metrics, ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in summary(report))]
    if report.metrics is None:
        return "\n".join(lines) + "\n"
    elements = [g for g in by_element(e.table) if g.n >= MINIMUM_GROUP]
    worst = sorted(elements, key=lambda g: -g.mae)[:_WORST]
    sections: list[tuple[str, str, list[Group]]] = [
        ("True value", f"{e.info.label} ({unit})" if unit else e.info.label, by_value(e.table)),
        ("Chemistry", "chemistry", by_chemistry(e.table)),
        ("Atoms in the cell", "atoms", by_size(e.table)),
        (
            f"Elements with the largest error (of those in {MINIMUM_GROUP} crystals or more; all "
            "in by_element.csv)",
            "element",
            worst,
        ),
    ]
    for title, heading, groups in sections:
        if groups:
            lines += ["", f"## {title}", "", *markdown_table(groups, heading, unit)]
    lines += ["", "![Predictions against targets](parity.png)"]
    return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write everything into a folder, made if needed, and return the files.

    ``predictions.csv``, ``refused.csv``, ``metrics.json``, ``report.md``, and, where labels are
    known, ``by_element.csv``, ``by_chemistry.csv``, ``by_size.csv``, ``by_value.csv`` and
    ``parity.png``. A refused crystal has an empty prediction and its reason in ``refused.csv``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    e = report.evaluation
    written = [folder / name for name in ("predictions.csv", "refused.csv", "metrics.json")]
    written[0].write_text(e.table.to_csv(), encoding="utf-8")
    with written[1].open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("id", "reason"))
        writer.writerows(
            (k, reason) for k, reason in zip(e.table.ids, e.table.errors, strict=True) if reason
        )
        writer.writerows(e.absent.items())
    text = json.dumps(document(report), indent=2, allow_nan=False) + "\n"
    written[2].write_text(text, encoding="utf-8")
    if report.metrics is not None:
        for name, groups in (
            ("by_element", by_element(e.table)),
            ("by_chemistry", by_chemistry(e.table)),
            ("by_size", by_size(e.table)),
            ("by_value", by_value(e.table)),
        ):
            written.append(folder / f"{name}.csv")
            write_groups(groups, written[-1])
        scored = e.table.scored()
        written.append(folder / "parity.png")
        parity_plot(scored.targets, scored.predictions, e.info, written[-1])
    written.append(folder / "report.md")
    written[-1].write_text(markdown(report), encoding="utf-8")
    return written
