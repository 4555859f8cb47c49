"""Tables 4, 5, 11 and 12 of the paper, for what the machine affords.

    python benchmarks/accuracy/comparators.py runs/ablation --data-dir DIR
    python benchmarks/accuracy/comparators.py runs/ablation --tasks eform,mbj --seeds 0
    python benchmarks/accuracy/comparators.py runs/ablation --tables-only

Every network is trained in this code base, by one engine, on the same crystals for the same
number of epochs: PotNet's and ALIGNN's kind of local network alone (no reciprocal block, 3 and
4 blocks), Ewald message passing over a box of wave indices, equations (8)-(9) as printed, and
the lattice block with 3, 4 and 5 blocks. Beside them stand the paper's figures: those are test
errors after 500 epochs on all of JARVIS, ours validation errors of short runs on a sample, so
that the order of the rows is what can be compared, not the numbers.

The runs are those of `ablation.py`, kept and resumed as there. It writes ``tables.md`` and
``comparators.csv``. Times are measured at the end, the networks taking turns: a training step
(forward and backward pass of 64 crystals, optimiser apart) in processor time, and predictions one
by one, as the paper counts them.
"""

from __future__ import annotations

import csv
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablation import Result, arguments_parser, folder_of, run_all

EPOCH = 44_514  # crystals of the formation-energy training split
BATCH = 64
PAPER = json.loads(Path(__file__).with_name("paper_tables.json").read_text(encoding="utf-8"))

COLUMNS = {
    "eform": ("formation energy (meV/atom)", 1e3),
    "opt": ("gap OPT (eV)", 1.0),
    "etot": ("total energy (meV/atom)", 1e3),
    "mbj": ("gap MBJ (eV)", 1.0),
    "ehull": ("ehull_label (meV/atom)", 1e3),
}
# Names of these networks among the variants of `ablation.py`, whose runs they are.
VARIANTS: dict[str, str] = {
    "local network alone, 3 blocks": "no reciprocal block",
    "local network alone, 4 blocks": "4 blocks without reciprocal",
    "Ewald message passing, 3 blocks": "Ewald message passing",
    "literal equations, 3 blocks": "literal equations (8)-(9)",
    "lattice, 3 blocks": "base",
    "lattice, 4 blocks": "4 blocks",
    "lattice, 5 blocks": "5 blocks",
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
        errors = [
            factor * r.error for r in results if r.task == task and r.variant == VARIANTS[row]
        ]
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


def efficiency_table(results: list[Result], times: dict[str, tuple[float, float]]) -> str:
    """Table 5: parameters, time of an epoch and of a prediction."""
    lines = [
        f"Table 5: {PAPER['5']['title']}",
        "",
        "| | parameters | s/epoch | ms/crystal |",
        "|---|---|---|---|",
    ]
    for name, variant in VARIANTS.items():
        if variant in times:
            parameters = next(r.parameters for r in results if r.variant == variant)
            step, prediction = times[variant]
            epoch = step * EPOCH / BATCH
            lines.append(f"| {name} | {parameters:,} | {epoch:.0f} | {1e3 * prediction:.1f} |")
    for name, (parameters, seconds, milliseconds) in PAPER["5"]["rows"].items():
        lines.append(f"| paper, A100: {name} | {parameters} | {seconds} | {milliseconds} |")
    return "\n".join(lines)


def time_steps(folders: dict[str, Path], resources: Any, rounds: int) -> dict[str, float]:
    """Processor time of a training step, median over ``rounds`` batches, taking turns."""
    import torch

    from recinet_ase.models.property_model import PropertyModel
    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.labels import open_run_dataset, prepare_data

    steps: dict[str, Callable[[int], None]] = {}
    for variant, folder in folders.items():
        model = PropertyModel.load(folder)
        config = TrainingConfig.load(folder / "training.json")
        dataset, config = open_run_dataset(config, resources.data_dir)
        data = prepare_data(config, dataset, model.config.network, resources.cache)
        steps[variant] = _step(model.network.train(), data, config)
    spent: dict[str, list[float]] = {variant: [] for variant in steps}
    for number in range(-1, rounds):
        for variant, step in steps.items():
            torch.manual_seed(number + 1)
            start = time.process_time()
            step(number + 1)
            if number >= 0:  # the first warms up
                spent[variant].append(time.process_time() - start)
    return {variant: statistics.median(values) for variant, values in spent.items()}


def _step(network: Any, data: Any, config: Any) -> Callable[[int], None]:
    import torch

    index = data.train.index
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
    batches = index[order].split(BATCH)
    half = config.precision == "bfloat16"

    def step(number: int) -> None:
        batch = data.store.batch(batches[number % len(batches)], pad=half and config.reduce)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = network(batch)
        output.float().abs().mean().backward()

    return step


def time_predictions(folders: dict[str, Path], structures: list[Any]) -> dict[str, float]:
    """Seconds a crystal from structure to number, one by one as table 5 counts; median."""
    from recinet_ase.inference.predictor import Predictor

    predictors = {name: Predictor(folder, device="cpu") for name, folder in folders.items()}
    spent: dict[str, list[float]] = {name: [] for name in folders}
    for structure in structures[:1] + structures:
        for name, predictor in predictors.items():
            start = time.perf_counter()
            predictor.predict_many([structure])
            spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in spent.items()}


def write_csv(results: list[Result], path: Path) -> None:
    """All runs, one a line."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("task", "variant", "seed", "mae", "unit", "parameters"))
        writer.writerows(
            (r.task, r.variant, r.seed, r.error, r.unit, r.parameters) for r in results
        )


def main() -> None:
    """Run what is missing, then print the tables."""
    from recinet_ase.data.catalogue import open_dataset
    from recinet_ase.training.devices import Resources

    parser = arguments_parser(__doc__.splitlines()[0])
    parser.add_argument("--timed", type=int, default=30, help="steps and crystals that are timed")
    arguments = parser.parse_args()
    resources = Resources(arguments.data_dir, arguments.cache_dir)
    results = run_all(arguments, VARIANTS.values(), resources)
    write_csv(results, arguments.folder / "comparators.csv")
    folders: dict[str, Path] = {}
    for r in results:
        if r.task == results[0].task:
            folders[r.variant] = folder_of(arguments.folder, r.task, r.variant, r.seed)
    steps = time_steps(folders, resources, arguments.timed)
    pairs = open_dataset("jarvis", arguments.data_dir).structures()
    structures = [structure for _, structure in pairs][: arguments.timed]
    predictions = time_predictions(folders, structures)
    times = {name: (steps[name], predictions[name]) for name in folders}
    text = f"{error_tables(results)}\n\n{efficiency_table(results, times)}"
    (arguments.folder / "tables.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
