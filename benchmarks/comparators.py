"""Tables 4, 5, 11 and 12 of the paper, for what the machine affords.

    python benchmarks/comparators.py runs/comparators --data-dir DIR
    python benchmarks/comparators.py runs/comparators --tasks eform,mbj --seeds 0,1,2
    python benchmarks/comparators.py runs/comparators --tables-only

Every network is trained in this code base, by one engine, on the same crystals for the same
number of epochs: PotNet's and ALIGNN's kind of local network alone (no reciprocal block, 3 and
4 blocks), Ewald message passing over a box of wave indices, equations (8)-(9) as printed, and
the lattice block with 3, 4 and 5 blocks. Beside them stand the paper's figures: those are test
errors after 500 epochs on all of JARVIS, ours validation errors of short runs on a sample, so
that the order of the rows is what can be compared, not the numbers.

Runs are ordinary run folders; finished ones are kept and unfinished ones resumed, so that
the script can be stopped at any time. It writes ``tables.md`` and ``comparators.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import ablation
from ablation import Result, run_one

PAPER = json.loads(Path(__file__).with_name("paper_tables.json").read_text(encoding="utf-8"))

TASKS: dict[str, dict[str, Any]] = {
    "eform": {"properties": ("formation_energy",), "limit": 4_000},
    "opt": {"properties": ("bandgap_opt",), "limit": 4_000},
    "etot": {"properties": ("total_energy",), "limit": 4_000},
    "mbj": {"properties": ("bandgap",), "limit": 4_000},
    "ehull": {"properties": ("ehull",), "limit": 4_000},
}
COLUMNS = {
    "eform": ("formation energy (meV/atom)", 1e3),
    "opt": ("gap OPT (eV)", 1.0),
    "etot": ("total energy (meV/atom)", 1e3),
    "mbj": ("gap MBJ (eV)", 1.0),
    "ehull": ("ehull (meV/atom)", 1e3),
}
COMMON: dict[str, Any] = {
    "dataset": "jarvis", "size": "small", "epochs": 10, "precision": "bfloat16",
    "validate_every": 5, "checkpoint_minutes": 1.0,
}  # fmt: skip
LOCAL: dict[str, Any] = {"reciprocal": "none"}
VARIANTS: dict[str, dict[str, Any]] = {
    "local network alone, 3 blocks": {"network": {**LOCAL, "blocks": 3}},
    "local network alone, 4 blocks": {"network": {**LOCAL, "blocks": 4}},
    "Ewald message passing, 3 blocks": {"network": {"reciprocal": "ewald"}, "reduce": False},
    "literal equations, 3 blocks": {"network": {"reciprocal": "literal"}, "reduce": False},
    "lattice, 3 blocks": {"network": {"blocks": 3}},
    "lattice, 4 blocks": {"network": {"blocks": 4}},
    "lattice, 5 blocks": {"network": {"blocks": 5}},
}
# Row of ours, and of the paper's table (None where the paper has none).
TABLES: dict[str, list[tuple[str, str | None]]] = {
    "4": [
        ("local network alone, 3 blocks", "without reciprocal, 3 blocks"),
        ("local network alone, 4 blocks", "without reciprocal, 4 blocks"),
        ("lattice, 3 blocks", "ReciNet, 3 blocks"),
        ("lattice, 4 blocks", "ReciNet, 4 blocks"),
    ],
    "11": [
        ("lattice, 3 blocks", "ReciNet, 3 blocks"),
        ("lattice, 4 blocks", "ReciNet, 4 blocks"),
        ("lattice, 5 blocks", "ReciNet, 5 blocks"),
    ],
    "12": [
        ("Ewald message passing, 3 blocks", "EwaldMP"),
        ("local network alone, 3 blocks", "PotNet"),
        ("literal equations, 3 blocks", None),
        ("lattice, 3 blocks", "ReciNet"),
    ],
}


def paired(row: str, paper: str | None, table: str, results: list[Result]) -> str:
    """One row: our errors, and the paper's in brackets."""
    cells = []
    theirs = PAPER[table]["rows"].get(paper, [None] * len(COLUMNS))
    for (task, (_, factor)), published in zip(COLUMNS.items(), theirs, strict=True):
        errors = [factor * r.error for r in results if r.task == task and r.variant == row]
        ours = "-" if not errors else f"{statistics.mean(errors):.4g}"
        if len(errors) > 1:
            ours += f" ± {statistics.stdev(errors):.2g}"
        cells.append(ours if published is None else f"{ours} ({published:g})")
    return f"| {row}{f' (paper: {paper})' if paper else ''} | {' | '.join(cells)} |"


def error_tables(results: list[Result]) -> str:
    """Tables 4, 11 and 12."""
    head = ["| | " + " | ".join(name for name, _ in COLUMNS.values()) + " |"]
    head.append("|---" * (len(COLUMNS) + 1) + "|")
    parts = []
    for table, rows in TABLES.items():
        title = f"Table {table}: {PAPER[table]['title']} (in brackets: the paper)"
        parts.append("\n".join([title, "", *head, *(paired(*row, table, results) for row in rows)]))
    return "\n\n".join(parts)


def efficiency_table(results: list[Result], inference: dict[str, float], epochs: int) -> str:
    """Table 5: parameters, time of an epoch and of a prediction."""
    lines = [
        f"Table 5: {PAPER['5']['title']}",
        "",
        "| | parameters | s/epoch | ms/crystal |",
        "|---|---|---|---|",
    ]
    for variant in VARIANTS:
        some = [r for r in results if r.variant == variant]
        if some:
            seconds = statistics.mean(r.seconds for r in some) / epochs
            lines.append(
                f"| {variant} | {some[0].parameters:,} | {seconds:.2f} | "
                f"{inference.get(variant, math.nan):.2f} |"
            )
    for name, (parameters, seconds, milliseconds) in PAPER["5"]["rows"].items():
        lines.append(f"| paper, A100: {name} | {parameters} | {seconds} | {milliseconds} |")
    return "\n".join(lines)


def inference_time(folder: Path, structures: list[Any]) -> float:
    """Milliseconds a crystal from structure to number, one by one as table 5 counts."""
    from recinet_ase.predictor import Predictor

    predictor = Predictor(folder, device="cpu")
    predictor.predict_many(structures[:2])
    start = time.perf_counter()
    for structure in structures:
        predictor.predict_many([structure])
    return 1e3 * (time.perf_counter() - start) / len(structures)


def write_csv(results: list[Result], path: Path) -> None:
    """All runs, one a line."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("task", "variant", "seed", "mae", "unit", "parameters", "seconds"))
        writer.writerows(
            (r.task, r.variant, r.seed, r.error, r.unit, r.parameters, round(r.seconds, 1))
            for r in results
        )


def finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    path = folder / "config.json"
    return path.exists() and bool(json.loads(path.read_text())["training"].get("complete"))


def main() -> None:
    """Run what is missing, then print the tables."""
    from recinet_ase.data.dataset import open_dataset
    from recinet_ase.training.run import Resources

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--cache-dir")
    parser.add_argument("--tasks", default="eform,mbj")
    parser.add_argument("--variants", default=";".join(VARIANTS), help="separated by ;")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, default=COMMON["epochs"])
    parser.add_argument("--limit", type=int, help="training crystals instead of 4,000")
    parser.add_argument("--size", default=COMMON["size"])
    parser.add_argument("--timed", type=int, default=50, help="crystals that are predicted")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    ablation.COMMON = {**COMMON, "epochs": arguments.epochs, "size": arguments.size}
    limit = {} if arguments.limit is None else {"limit": arguments.limit}
    ablation.TASKS = {name: {**task, **limit} for name, task in TASKS.items()}
    ablation.VARIANTS = VARIANTS
    arguments.folder.mkdir(parents=True, exist_ok=True)
    resources = Resources(arguments.data_dir, arguments.cache_dir)
    wanted = [
        (task, variant, int(seed))
        for seed in arguments.seeds.split(",")
        for task in arguments.tasks.split(",")
        for variant in arguments.variants.split(";")
    ]
    results, folders = [], {}
    for task, variant, seed in wanted:
        folder = ablation.folder_of(arguments.folder, task, variant, seed)
        if arguments.tables_only and not finished(folder):
            continue
        results.append(run_one(arguments.folder, task, variant, seed, resources))
        folders.setdefault(variant, folder)
    if not results:
        raise SystemExit(f"{arguments.folder} holds no finished run yet")
    write_csv(results, arguments.folder / "comparators.csv")
    pairs = open_dataset("jarvis", arguments.data_dir).structures()
    structures = [structure for _, structure in pairs][: arguments.timed]
    inference = {v: inference_time(folder, structures) for v, folder in folders.items()}
    text = "\n\n".join(
        [error_tables(results), efficiency_table(results, inference, arguments.epochs)]
    )
    (arguments.folder / "tables.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
