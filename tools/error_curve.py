"""Validation error against training hours: the shipped models, and any run folders.

    python tools/error_curve.py [RUN ...] [-o docs/howto/error_curve.png]

Hours are those of all stages behind a model (a common pre-training counts in full for each), on
one CPU core. Errors are divided by the mean absolute deviation, so that properties of
different units share an axis. Runs come from their folders' ``config.json``; of each the
error is the one recorded there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recinet_ase.evaluation.provenance import training_stages
from recinet_ase.pretrained import available_ensembles, available_models, model_card


def point(name: str) -> dict[str, Any] | None:
    """Hours and errors of a model of one property, None where they are not recorded."""
    card = model_card(name)
    training = card["training"]
    hours = [stage.get("hours") for stage in training_stages(training)]
    if "validation_mae" not in training or None in hours or len(card["properties"]) > 1:
        return None
    return {
        "name": name if ":" in name else Path(name).name,
        "property": card["properties"][0],
        "unit": card["units"][0],
        "hours": sum(hours),
        "last": hours[-1],
        "mae": training["validation_mae"],
        "mad": training["validation_mad"],
        "parameters": training.get("parameters", 0),
    }


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Error over deviation against hours, a colour for each property."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for prop in sorted({p["property"] for p in points}):
        mine = sorted((p for p in points if p["property"] == prop), key=lambda p: p["hours"])
        x, y = [p["hours"] for p in mine], [p["mae"] / p["mad"] for p in mine]
        axes.plot(x, y, "o", label=prop)
    axes.set(xscale="log", yscale="log", xlabel="training, hours on one CPU core")
    axes.set_ylabel("validation MAE / mean absolute deviation")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="run folders beside the shipped models")
    parser.add_argument("-o", "--output", type=Path, help="picture")
    arguments = parser.parse_args()
    names = [*sorted([*available_models(), *available_ensembles()]), *arguments.runs]
    points = [found for name in names if (found := point(name)) is not None]
    print("| model | property | parameters | hours in all | last stage | validation MAE | of MAD |")
    print("|---|---|---|---|---|---|---|")
    for p in points:
        print(
            f"| `{p['name']}` | {p['property']} | {p['parameters']:,} | {p['hours']:.2f} | "
            f"{p['last']:.2f} | {p['mae']:.3g} {p['unit']} | {100 * p['mae'] / p['mad']:.1f} % |"
        )
    if arguments.output is not None:
        plot(points, arguments.output)


if __name__ == "__main__":
    main()
