"""What each part of the network is worth: variants, tasks and seeds, one table.

    python benchmarks/accuracy/ablation.py runs/ablation --data-dir DIR --tasks eform --seeds 0,1,2
    python benchmarks/accuracy/ablation.py runs/ablation --tables-only

Every run is an ordinary run folder under the given one (``<task>-<variant>-<seed>``), so that
the script can be stopped and started again: finished runs are kept, unfinished ones resumed.
It ends by writing ``table.md``, ``table.csv`` and ``ablation.png`` from the finished runs among
those asked for: the validation error of the shipped-size network, mean and standard deviation
over the seeds, with the difference from ``base`` in units of its standard error.
`comparators.py` sets the same runs beside the paper's tables.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_folders import finished, whole_run

TASKS: dict[str, dict[str, Any]] = {
    # An eighth of the formation and hull energies, half of the mBJ gaps.
    "eform": {"properties": ("formation_energy",), "limit": 5_500},
    "mbj": {"properties": ("bandgap",), "limit": 6_000},
    "ehull": {"properties": ("ehull_label",), "limit": 5_500},
    "opt": {"properties": ("bandgap_opt",), "limit": 5_500},
    "etot": {"properties": ("total_energy",), "limit": 5_500},
}

COMMON: dict[str, Any] = {
    "dataset": "jarvis", "size": "small", "epochs": 20, "precision": "bfloat16",
    "validate_every": 10, "checkpoint_minutes": 2.0,
}  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    # The reciprocal block (paper, table 4).
    "no reciprocal block": {"network": {"reciprocal": "none"}},
    "virtual node (G = 0 alone)": {"network": {"reciprocal": "mean"}},
    "literal equations (8)-(9)": {"network": {"reciprocal": "literal"}, "reduce": False},
    "Ewald message passing": {"network": {"reciprocal": "ewald"}, "reduce": False},
    "lattice sums per atom": {"network": {"wave_norm": "atom"}},
    "128 channels": {"network": {"channels": 128}},
    "k_max 6": {"network": {"k_max": 6.0, "n_waves": 24}},
    # Depth (table 11) and width.
    "2 blocks": {"network": {"blocks": 2}},
    "4 blocks": {"network": {"blocks": 4}},
    "5 blocks": {"network": {"blocks": 5}},
    # A tenth more parameters than base: is it the reciprocal block, or its parameters?
    "4 blocks without reciprocal": {"network": {"reciprocal": "none", "blocks": 4}},
    "width 192": {"network": {"width": 192}},
    # The local block.
    "edge update": {"network": {"edge_update": True}},
    "24 neighbours": {"neighbours": 24},
    "basis from -1.2": {"network": {"basis_low": -1.2}},
    "envelope to 8 A": {"network": {"envelope": 8.0}},
    "envelope to 6 A": {"network": {"envelope": 6.0}},
    "layer norm": {"network": {"norm": "layer"}},
    "attention pooling": {"network": {"pooling": "attention"}},
    "gate for metals": {"network": {"gate": True}},
    # Regularisation and the loop.
    "dropout 0.1 in blocks": {"network": {"block_dropout": 0.1}},
    "dropout 0.1 in head": {"network": {"dropout": 0.1}},
    "no moving average": {"ema_decay": 0.0},
    "learning rate 5e-4": {"learning_rate": 5e-4},
    "learning rate 2e-3": {"learning_rate": 2e-3},
    "batch 128": {"batch_size": 128},
    "40 epochs": {"epochs": 40},
    "composition branch": {"network": {"composition": True}},
    # What remains of the differences on ehull where the network knows the formula?
    "no reciprocal block and composition branch": {
        "network": {"reciprocal": "none", "composition": True}
    },
    "literal equations and composition branch": {
        "network": {"reciprocal": "literal", "composition": True},
        "reduce": False,
    },
}


@dataclass(frozen=True)
class Result:
    """One finished run."""

    task: str
    variant: str
    seed: int
    error: float
    unit: str
    parameters: int


def settings(task: str, variant: str, seed: int) -> dict[str, Any]:
    """Fields of the `TrainingConfig` of a run."""
    merged = {**COMMON, **TASKS[task], **VARIANTS[variant], "seed": seed}
    merged["network"] = tuple(merged.pop("network", {}).items())
    return merged


def folder_of(root: Path, task: str, variant: str, seed: int) -> Path:
    """Run folder, named in letters that any file system takes."""
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in variant)
    return root / f"{task}-{name}-{seed}"


def run_one(root: Path, task: str, variant: str, seed: int, resources: Any) -> Result:
    """Train (or continue, or only read) one run."""
    from recinet_ase.training.config import TrainingConfig

    folder = folder_of(root, task, variant, seed)
    model = whole_run(folder, TrainingConfig(**settings(task, variant, seed)), resources)
    figures = model.config.training
    return Result(
        task, variant, seed, figures["validation_mae"], model.config.units[0],
        figures["parameters"],
    )  # fmt: skip


def summarise(results: list[Result]) -> list[dict[str, Any]]:
    """One row for each task and variant."""
    rows = []
    for task in dict.fromkeys(r.task for r in results):
        here = [r for r in results if r.task == task]
        base = [r.error for r in here if r.variant == "base"]
        for variant in dict.fromkeys(r.variant for r in here):
            some = [r for r in here if r.variant == variant]
            errors = [r.error for r in some]
            row = {
                "task": task,
                "variant": variant,
                "mae": statistics.mean(errors),
                "sd": statistics.stdev(errors) if len(errors) > 1 else math.nan,
                "seeds": len(errors),
                "unit": some[0].unit,
                "change": statistics.mean(errors) / statistics.mean(base) - 1 if base else math.nan,
                "sigma": _sigma(errors, base),
                "parameters": some[0].parameters,
            }
            rows.append(row)
    return rows


def _sigma(errors: list[float], base: list[float]) -> float:
    """Difference of two means in units of its standard error (NaN for the base itself).

    A variant of one seed is taken to scatter like the base.
    """
    if len(base) < 2 or errors == base:
        return math.nan
    spread = statistics.variance(base)
    own = statistics.variance(errors) if len(errors) > 1 else spread
    error = math.sqrt(own / len(errors) + spread / len(base))
    return (statistics.mean(errors) - statistics.mean(base)) / error


def write_tables(rows: list[dict[str, Any]], root: Path) -> str:
    """``table.csv``, ``table.md`` and ``ablation.png``; returns the markdown."""
    with (root / "table.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        "| task | variant | validation MAE | seeds | change | standard errors | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        spread = "" if math.isnan(r["sd"]) else f" ± {r['sd']:.2g}"
        change = "" if r["variant"] == "base" else f"{r['change']:+.1%}"
        sigma = "" if math.isnan(r["sigma"]) else f"{r['sigma']:+.1f}"
        lines.append(
            f"| {r['task']} | {r['variant']} | {r['mae']:.4g}{spread} {r['unit']} | {r['seeds']} | "
            f"{change} | {sigma} | {r['parameters']:,} |"
        )
    text = "\n".join(lines) + "\n"
    (root / "table.md").write_text(text, encoding="utf-8")
    _plot(rows, root / "ablation.png")
    return text


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(r["task"] for r in rows))
    variants = [v for v in VARIANTS if any(r["variant"] == v for r in rows) and v != "base"]
    figure = Figure(figsize=(3.2 * len(tasks) + 2, 0.3 * len(variants) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(all_axes, tasks, strict=True):
        here = {r["variant"]: r for r in rows if r["task"] == task}
        for y, variant in enumerate(reversed(variants)):
            if variant in here:
                row = here[variant]
                bar = 100 * row["sd"] / row["mae"] * (1 + row["change"])
                axes.errorbar(
                    100 * row["change"], y, xerr=None if math.isnan(bar) else bar, fmt="o",
                    color="#20639b", capsize=3,
                )  # fmt: skip
        axes.axvline(0, color="0.6", linewidth=1)
        axes.set_title(task)
        axes.set_xlabel("change of the validation MAE (%)")
        axes.set_yticks(range(len(variants)), list(reversed(variants)))
    figure.savefig(path, dpi=150)


def arguments_parser(description: str) -> argparse.ArgumentParser:
    """What is asked of both scripts that print these runs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--cache-dir")
    parser.add_argument("--tasks", default="eform,mbj,ehull")
    parser.add_argument("--variants", help="separated by commas")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    return parser


def run_all(arguments: argparse.Namespace, variants: Iterable[str], resources: Any) -> list[Result]:
    """Run what is missing (or only read what is finished), seed by seed."""
    if arguments.variants is not None:
        variants = arguments.variants.split(",")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    root = arguments.folder
    results = [
        run_one(root, task, variant, int(seed), resources)
        for seed in arguments.seeds.split(",")
        for task in arguments.tasks.split(",")
        for variant in variants
        if not arguments.tables_only or finished(folder_of(root, task, variant, int(seed)))
    ]
    if not results:
        raise SystemExit(f"{root} holds no finished run yet")
    return results


def main() -> None:
    """Run what is missing, then write the tables."""
    from recinet_ase.training.devices import Resources

    arguments = arguments_parser(__doc__.splitlines()[0]).parse_args()
    resources = Resources(arguments.data_dir, arguments.cache_dir)
    results = run_all(arguments, VARIANTS, resources)
    print(write_tables(summarise(results), arguments.folder))


if __name__ == "__main__":
    main()
