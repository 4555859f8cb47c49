"""Several properties at once or one by one, on the same crystals: tables 13 and 14 of the paper.

    python benchmarks/accuracy/multitask.py runs/multitask --data-dir DIR
    python benchmarks/accuracy/multitask.py runs/multitask --groups jarvis --decoders moe --seeds 0
    python benchmarks/accuracy/multitask.py runs/multitask --tables-only

ReciNet-MT (experts), ReciNet-LS (a head for each property) and networks of one property each,
all of the shipped size ``small``. A seed draws the training crystals, and all of its networks
learn from these alone: a network of one property leaves out whatever the others do not have.
So a difference is what learning together does, and not the labels that the hygiene rule takes
from a network of several properties.

Every run is an ordinary run folder, ``<group>-<decoder>-<seed>``; finished ones are kept,
unfinished ones resumed. Errors are those of each property's official validation set. The
paper's are test errors after 500 epochs on all crystals.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from run_folders import finished, whole_run

PAPER = json.loads(Path(__file__).with_name("paper_tables.json").read_text(encoding="utf-8"))
DECODERS = {"moe": "ReciNet-MT", "linear": "ReciNet-LS", "single": "one network for each"}


@dataclass(frozen=True)
class Group:
    """Properties that are learnt together.

    Attributes:
        dataset: Dataset name.
        table: The paper's table, and where in its rows the properties stand.
        properties: With the factor from their unit to the table's, and that unit.
        limit: Training crystals, None for all.
        epochs: Passes over them.
        references: Properties from which elements' energies are taken (jarvis/mt).
        composition: Properties that need the composition branch (jarvis/mt).
        logarithms: Properties that are learnt and compared as decimal logarithms.
    """

    dataset: str
    table: tuple[str, slice]
    properties: dict[str, tuple[float, str]]
    limit: int | None
    epochs: int
    references: tuple[str, ...] = ()
    composition: tuple[str, ...] = ()
    logarithms: tuple[str, ...] = ()


GROUPS: dict[str, Group] = {
    "jarvis": Group(
        "jarvis",
        ("13", slice(0, 5)),
        {
            "formation_energy": (1e3, "meV/atom"),
            "bandgap_opt": (1, "eV"),
            "total_energy": (1e3, "meV/atom"),
            "bandgap": (1, "eV"),
            "ehull_label": (1e3, "meV/atom"),
        },
        limit=5_500,
        epochs=20,
        references=("total_energy",),
        composition=("ehull_label",),
    ),
    "mp-energies": Group(
        "mp",
        ("14", slice(0, 2)),
        {"formation_energy": (1e3, "meV/atom"), "bandgap": (1, "eV")},
        limit=4_000,
        epochs=20,
    ),
    "mp-moduli": Group(
        "mp",
        ("14", slice(2, 4)),
        {"bulk_modulus": (1, "log10(GPa)"), "shear_modulus": (1, "log10(GPa)")},
        limit=None,
        epochs=40,
        logarithms=("bulk_modulus", "shear_modulus"),
    ),
}


def settings(group: Group, properties: tuple[str, ...], decoder: str, seed: int) -> Any:
    """The run of some properties of a group (all but the crystals of `same_crystals`)."""
    from recinet_ase.training.config import TrainingConfig

    def among(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in properties if name in names)

    network: dict[str, Any] = {"composition": True} if among(group.composition) else {}
    if decoder != "single":
        network["multitask"] = decoder
    return TrainingConfig(
        dataset=group.dataset,
        properties=properties,
        hold_out=tuple(group.properties),
        size="small",
        network=tuple(network.items()),
        limit=group.limit,
        epochs=group.epochs,
        precision="bfloat16",
        validate_every=10,
        checkpoint_minutes=2.0,
        seed=seed,
        references=among(group.references),
        log_targets=among(group.logarithms),
        task_weights="labels" if decoder == "single" else "uncertainty",
    )


def same_crystals(config: Any, group: Group, path: Path, resources: Any) -> Any:
    """The settings of one property, restricted to the crystals of the networks of several.

    Writes the ids that are left out to ``path``.
    """
    from recinet_ase.training.labels import merged_splits, open_run_dataset, prepare_data

    together = replace(config, properties=tuple(group.properties), log_targets=(), references=())
    dataset, together = open_run_dataset(together, resources.data_dir)
    network = together.architecture(len(together.properties))
    data = prepare_data(together, dataset, network, resources.cache)
    own = merged_splits(dataset, replace(together, properties=config.properties))[0].train
    others = sorted(own.keys() - set(data.train_ids))
    if not others:
        return replace(config, limit=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(others) + "\n", encoding="utf-8")
    return replace(config, limit=None, leave_out=str(path))


def run_one(config: Any, folder: Path, resources: Any) -> dict[str, float]:
    """Train (or continue, or only read) one run; validation error of each of its properties."""
    from recinet_ase.training.labels import open_run_dataset, prepare_data
    from recinet_ase.training.property_task import absolute_errors, evaluate

    model = whole_run(folder, config, resources)
    if not config.log_targets:
        return {name: found["mae"] for name, found in model.config.training["validation"].items()}
    dataset, config = open_run_dataset(config, resources.data_dir)
    data = prepare_data(config, dataset, model.config.network, resources.cache)
    predicted = evaluate(model, data.store, data.val)
    errors = absolute_errors(predicted.log10(), data.val.values.log10()).sum(0)
    errors = errors / (~data.val.values.isnan()).sum(0)
    return dict(zip(config.properties, errors.tolist(), strict=True))


def run_group(
    root: Path, name: str, decoder: str, seed: int, resources: Any, train: bool
) -> Iterator[tuple[str, float]]:
    """Errors by property of one decoder; nothing where a run is missing and not to be made."""
    group = GROUPS[name]
    every = tuple(group.properties)
    parts = [(prop,) for prop in every] if decoder == "single" else [every]
    for properties in parts:
        label = "-".join((name, decoder, *(properties if decoder == "single" else ()), str(seed)))
        folder = root / label
        if not (train or finished(folder)):
            continue
        config = settings(group, properties, decoder, seed)
        if decoder == "single" and not finished(folder):
            path = root / "left_out" / f"{label}.txt"
            config = same_crystals(config, group, path, resources)
        yield from run_one(config, folder, resources).items()


def table(name: str, errors: dict[str, dict[str, list[float]]]) -> str:
    """Mean and standard deviation over the seeds, and the ratio to one network for each.

    Args:
        name: A key of `GROUPS`.
        errors: By decoder and property, one for each seed.
    """
    group = GROUPS[name]
    units = [f"{prop} ({unit})" for prop, (_, unit) in group.properties.items()]
    lines = [f"{name} (table {group.table[0]})", "", f"| | {' | '.join(units)} | mean ratio |"]
    lines.append("|---" * (len(units) + 2) + "|")
    single = errors.get("single", {})
    for decoder, found in errors.items():
        cells, ratios = [], []
        for prop, (factor, _) in group.properties.items():
            values = [factor * value for value in found.get(prop, [])]
            if not values:
                cells.append("-")
                continue
            cell = f"{statistics.mean(values):.4g}"
            if len(values) > 1:
                cell += f" ± {statistics.stdev(values):.2g}"
            if decoder != "single" and single.get(prop):
                ratios.append(statistics.mean(found[prop]) / statistics.mean(single[prop]))
                cell += f" ({ratios[-1] - 1:+.1%})"
            cells.append(cell)
        mean = f"{statistics.geometric_mean(ratios):.3f}" if ratios else ""
        lines.append(f"| {DECODERS[decoder]} | {' | '.join(cells)} | {mean} |")
    number, where = group.table
    for row, values in PAPER[number]["rows"].items():
        cells = ["-" if value is None else f"{value:g}" for value in values[where]]
        lines.append(f"| paper (test): {row} | {' | '.join(cells)} | |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the tables."""
    from recinet_ase.training.devices import Resources

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--cache-dir")
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--decoders", default=",".join(DECODERS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    resources = Resources(arguments.data_dir, arguments.cache_dir)
    tables = []
    for name in arguments.groups.split(","):
        errors: dict[str, dict[str, list[float]]] = {}
        for seed in map(int, arguments.seeds.split(",")):
            for decoder in arguments.decoders.split(","):
                found = run_group(
                    arguments.folder, name, decoder, seed, resources, not arguments.tables_only
                )
                for prop, error in found:
                    errors.setdefault(decoder, {}).setdefault(prop, []).append(error)
        tables.append(table(name, errors))
    text = "\n\n".join(tables) + "\n"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "tables.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
