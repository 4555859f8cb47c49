"""MatBench tasks with the official five folds: train, predict, score, write the record.

    python benchmarks/accuracy/matbench.py runs/matbench --data-dir DIR
    python benchmarks/accuracy/matbench.py runs/matbench --tasks matbench_phonons --members 5
    python benchmarks/accuracy/matbench.py runs/matbench-tuned --init runs/mp-eform
    python benchmarks/accuracy/matbench.py runs/poolings --tasks matbench_jdft2d --poolings peak
    python benchmarks/accuracy/matbench.py --overlap leave_out.txt

Each fold is nested: a part of its own training crystals, chosen by seed, picks the checkpoint;
its test crystals are predicted once, at the end. With several members each has another
such part and another seed, and a prediction is their mean. Every member is an ordinary run
folder (``<task>-fold<k>-<m>``), so that the script can be stopped and started again.

With ``--poolings`` each fold is trained with each of them (in folders of that name), and takes
the one whose networks have the smaller mean error on these parts of its own training crystals.

``--init`` starts from trained weights only where no test crystal of any fold is among the
crystals that they saw, by composition and structure (`same_crystals.py`); ``--overlap``
writes the ids of a dataset to leave out of such a training (``recinet-train --leave-out``).

Settings are those of ``recinet_ase/training/recipes/matbench``; tasks without a recipe of
their own take the first one's. Ends with ``results.json.gz`` in MatBench's layout.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from run_folders import whole_run

if TYPE_CHECKING:
    from matbench_record import FoldResult

    from recinet_ase.data.matbench import MatBench
    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.devices import Resources

TASKS = "matbench_jdft2d,matbench_phonons"
FOLDS = 5
# Test MAE of others (mean over the folds); the paper's are in its table 3.
PUBLISHED = {
    "matbench_jdft2d": "ReciNet (paper) 31.6, DenseGNN 30.2, MODNet 33.2, coGN 37.2 meV/atom",
    "matbench_phonons": "DenseGNN 23.5, MEGNet 28.8, coGN 29.7 1/cm",
}


@dataclass(frozen=True)
class Member:
    """One trained network of a fold.

    Attributes:
        predictions: For the fold's test crystals, by id; NaN where no graph could be made.
        validation: Error on the part that chose the checkpoint.
        hours: Time of training.
    """

    predictions: dict[str, float]
    validation: float
    hours: float


def settings(
    task: str,
    fold: int,
    member: int,
    init: str | None,
    changes: dict[str, Any],
    pooling: str | None = None,
) -> TrainingConfig:
    """The run of one member of one fold, with another pooling than the recipe's if given."""
    from recinet_ase.data.matbench import MATBENCH
    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.recipes import load_recipe, recipe_names

    own = f"matbench/{task.removeprefix('matbench_')}"
    known = own in recipe_names()
    found = load_recipe(own if known else "matbench/jdft2d")
    if not known:
        found.pop("log_targets", None)
    network = dict(found.get("network", ()))
    if pooling is not None:
        network["pooling"] = pooling
    if init is not None:  # the network is that of the start
        free = ("dropout", "block_dropout", "pooling")
        network = {key: value for key, value in network.items() if key in free}
        found = {**found, "init": init, "size": None}
    return TrainingConfig(
        **{
            **found,
            "network": tuple(network.items()),
            "dataset": task,
            "properties": (MATBENCH[task].property,),
            "split": f"fold:{fold}",
            "split_seed": 123 + member,
            "seed": member,
            **changes,
        }
    )


def run_member(
    folder: Path, config: TrainingConfig, dataset: MatBench, resources: Resources
) -> Member:
    """Train (or continue, or only read) one network, and predict its fold's test crystals."""
    import torch

    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.labels import Targets, open_run_dataset, prepare_data
    from recinet_ase.training.property_task import evaluate

    model = whole_run(folder, config, resources)
    used = TrainingConfig.load(folder / "training.json")
    if used != open_run_dataset(config, resources.data_dir)[1]:
        raise SystemExit(f"{folder} was trained with other settings; choose another folder")
    data = prepare_data(used, dataset, model.config.network, resources.cache)
    info = dataset.info(used.properties[0])
    test = dataset.split(info, used.rule).test
    # Graphs as in training: MatBench wants an answer for elements that a small fold lacks, too.
    known = [key for key in test if key in data.store.position]
    index = torch.tensor([data.store.position[key] for key in known])
    found = evaluate(model, data.store, Targets(index, torch.full((len(known), 1), math.nan)))
    values = dict.fromkeys(test, math.nan) | dict(zip(known, found[:, 0].tolist(), strict=True))
    figures = model.config.training
    return Member(values, figures["validation_mae"], figures["hours"])


def run_fold(
    root: Path,
    dataset: MatBench,
    fold: int,
    members: int,
    init: str | None,
    changes: dict[str, Any],
    resources: Resources,
    pooling: str | None = None,
) -> FoldResult:
    """All members of a fold, and their mean."""
    from matbench_record import FoldResult

    info = dataset.info(dataset.properties[0])
    runs = []
    for m in range(members):
        config = settings(dataset.name, fold, m, init, changes, pooling)
        folder = root / f"{dataset.name}-fold{fold}-{m}"
        runs.append(run_member(folder, config, dataset, resources))
    split = dataset.split(info, config.rule)
    # No network can answer for a crystal without a graph; MatBench wants a number.
    fallback = float(np.median(list(split.train.values())))
    predictions = {}
    for key in split.test:
        mean = float(np.mean([run.predictions[key] for run in runs]))
        predictions[key] = mean if math.isfinite(mean) else fallback
    labels = dataset.labels(info)
    parameters = {
        "recipe": config.recipe or "",
        "members": members,
        "epochs": config.epochs,
        "pooling": dict(config.network).get("pooling", "mean"),
        "started_from": init or "nothing",
        "validation_mae": [run.validation for run in runs],
        "hours": sum(run.hours for run in runs),
    }
    targets = {key: labels[key] for key in split.test if key in labels}
    return FoldResult(predictions, targets, parameters)


def best_of(candidates: Sequence[FoldResult]) -> FoldResult:
    """That of the smallest mean validation error: no test crystal of the fold has a say."""
    return min(candidates, key=lambda found: float(np.mean(found.parameters["validation_mae"])))


def table(results: dict[str, list[FoldResult]]) -> str:
    """Mean and spread over the folds, beside what others report."""
    from matbench_record import spread

    from recinet_ase.data.matbench import MATBENCH
    from recinet_ase.properties import PROPERTIES

    lines = ["| task | test MAE | test RMSE | validation MAE | hours | published MAE |"]
    lines += ["|---|---|---|---|---|---|"]
    for task, folds in results.items():
        unit = PROPERTIES[MATBENCH[task].property].unit
        cells = []
        for score in ("mae", "rmse"):
            if all(fold.scores for fold in folds):
                mean, deviation = spread([fold.scores[score] for fold in folds])
                between = f" ± {deviation:.2g}" if len(folds) > 1 else ""
                cells.append(f"{mean:.4g}{between} {unit}")
            else:
                cells.append("labels withheld")
        inner = float(np.mean([v for f in folds for v in f.parameters["validation_mae"]]))
        hours = sum(fold.parameters["hours"] for fold in folds)
        cells += [f"{inner:.4g} {unit}", f"{hours:.2f}", PUBLISHED.get(task, "")]
        count = f"{len(folds)} fold{'s' if len(folds) > 1 else ''}"
        lines.append(f"| {task} ({count}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def check_start(run: str, datasets: list[MatBench], resources: Resources) -> None:
    """Refuse weights that may have seen a test crystal of any fold.

    The crystals that they saw are read from the run folder: the settings give the ids, and
    the sha256 that the weights record must be theirs.
    """
    from same_crystals import find_same

    from recinet_ase.data.splits import ids_digest
    from recinet_ase.models.property_model import PropertyModel
    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.labels import open_run_dataset, prepare_data
    from recinet_ase.training.run import TRAINING_FILE

    settings_file = Path(run) / TRAINING_FILE
    if not settings_file.is_file():
        raise SystemExit(
            f"--init {run}: a run folder is needed here, with its {TRAINING_FILE} and the data it "
            "was trained on at hand: which crystals a shipped model saw cannot be told from it"
        )
    seen = PropertyModel.load(run).config.training
    if seen.get("started_from"):
        raise SystemExit(f"{run} has an earlier stage, whose crystals are not recorded here")
    config = TrainingConfig.load(settings_file)
    dataset, config = open_run_dataset(config, resources.data_dir)
    network = PropertyModel.load(run).config.network
    data = prepare_data(config, dataset, network, resources.cache)
    if ids_digest(data.train_ids) != seen["train_ids_sha256"]:
        raise SystemExit(f"the training crystals of {run} cannot be told: other data, other files")
    trained = set(data.train_ids)
    for wanted in datasets:
        others = ((key, s) for key, s in dataset.structures() if key in trained)
        same = find_same(dict(wanted.structures()), others)
        print(f"{wanted.name}: {len(same)} crystals among the {len(trained)} that {run} saw")
        if same:
            ids = ", ".join(f"{k} = {v[0]}" for k, v in list(same.items())[:5])
            raise SystemExit(
                f"{len(same)} test crystals were seen ({ids} ...); train {run} anew with "
                "--leave-out, on ids from --overlap"
            )


def write_overlap(path: Path, name: str, datasets: list[MatBench], resources: Resources) -> None:
    """Ids of a dataset's crystals that occur in a task, one a line."""
    from same_crystals import find_same

    from recinet_ase.data.catalogue import open_dataset

    source = open_dataset(name, resources.data_dir)
    ids: set[str] = set()
    for dataset in datasets:
        same = find_same(dict(dataset.structures()), source.structures())
        ids.update(key for keys in same.values() for key in keys)
        print(f"{dataset.name}: {len(same)} of its crystals occur in {name}", flush=True)
    path.write_text("\n".join(sorted(ids)) + "\n", encoding="utf-8")
    print(f"{len(ids)} ids -> {path}")


def chosen_tasks(text: str) -> list[str]:
    """The tasks asked for.

    Raises:
        UnknownNameError: If one is none.
    """
    from recinet_ase.data.matbench import MATBENCH
    from recinet_ase.errors import UnknownNameError

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MATBENCH:
            raise UnknownNameError("MatBench task", name, MATBENCH)
    return names


def chosen_folds(text: str) -> list[int]:
    """The folds asked for.

    Raises:
        ReciNetError: If one is none.
    """
    from recinet_ase.errors import ReciNetError

    known = {str(fold): fold for fold in range(FOLDS)}
    names = [name.strip() for name in text.split(",")]
    if wrong := [name for name in names if name not in known]:
        raise ReciNetError(f"--folds {','.join(wrong)}: the folds are {', '.join(known)}")
    return [known[name] for name in names]


def chosen_poolings(text: str | None) -> list[str | None]:
    """The poolings asked for, None for the recipe's.

    Raises:
        UnknownNameError: If one is none.
    """
    from recinet_ase.errors import UnknownNameError
    from recinet_ase.nn.pooling import POOLINGS

    if text is None:
        return [None]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in POOLINGS:
            raise UnknownNameError("pooling", name, POOLINGS)
    return [*names]


def main() -> None:
    """Run what is missing, then score; errors of use in one line."""
    from recinet_ase.errors import ReciNetError

    try:
        _main()
    except ReciNetError as error:
        raise SystemExit(f"error: {error}") from None


def _main() -> None:
    from matbench_record import results_document, write_results

    from recinet_ase.data.matbench import MATBENCH, MatBench
    from recinet_ase.training.devices import Resources

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/matbench"))
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--folds", default=",".join(map(str, range(FOLDS))))
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--init", help="run folder to start from, if it is clean")
    parser.add_argument("--poolings", help="of which each fold chooses one, e.g. attention,peak")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--limit", type=int, help="training crystals, for a rehearsal")
    parser.add_argument("--overlap", type=Path, help="only write the ids to leave out")
    parser.add_argument("--of", default="mp", help="dataset of --overlap")
    parser.add_argument("--data-dir")
    parser.add_argument("--cache-dir")
    arguments = parser.parse_args()
    resources = Resources(arguments.data_dir, arguments.cache_dir)
    folds = chosen_folds(arguments.folds)
    tasks, poolings = chosen_tasks(arguments.tasks), chosen_poolings(arguments.poolings)
    datasets = [MatBench(MATBENCH[task], arguments.data_dir) for task in tasks]
    if arguments.overlap is not None:
        write_overlap(arguments.overlap, arguments.of, datasets, resources)
        return
    if arguments.init is not None:
        check_start(arguments.init, datasets, resources)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    changes = {k: getattr(arguments, k) for k in ("epochs", "limit") if getattr(arguments, k)}

    def fold_of(dataset: MatBench, fold: int) -> FoldResult:
        rest = (dataset, fold, arguments.members, arguments.init, changes, resources)
        return best_of([run_fold(arguments.folder / (p or ""), *rest, p) for p in poolings])

    results = {dataset.name: [fold_of(dataset, fold) for fold in folds] for dataset in datasets}
    for name, found in results.items() if arguments.poolings else ():
        print(f"{name}: {', '.join(fold.parameters['pooling'] for fold in found)}")
    text = table(results)
    (arguments.folder / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    scored = all(fold.scores for each in results.values() for fold in each)
    if scored and folds == list(range(FOLDS)):
        metadata = {"algorithm": "ReciNet (recinet-ase)", "members": arguments.members}
        path = arguments.folder / "results.json.gz"
        write_results(results_document(results, metadata), path)
        print(f"record -> {path}")


if __name__ == "__main__":
    main()
