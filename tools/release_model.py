"""Turn a finished run into a shipped model: half-precision weights, figures, card.

    python tools/release_model.py runs/mbj jarvis-mbj --data-dir DIR
    python tools/release_model.py runs/a runs/b jarvis-eform --member    # jarvis-eform:ensemble
    python tools/release_model.py jarvis-eform:ensemble                 # measure it again

The validation error is measured here, on the weights as shipped and through the same
`Predictor` that users call, on every validation crystal of each property's
official split. Given a
shipped model instead of a run, it measures again and writes the card anew. With ``--member``
runs become further members of the shipped model's ensemble, which is then measured; after
a shipped model was replaced, its ensemble has to be measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from recinet_ase.evaluation.runner import Evaluation
    from recinet_ase.models.property_model import ModelConfig

PRETRAINED = Path(__file__).parents[1] / "pretrained"

RECORD = "ensemble.json"

CAUTIONS = {
    "jarvis-ehull": (
        "learned from JARVIS-DFT 2021's 'ehull', which is no distance to the hull (GaAs 0.46, "
        "SrTiO3 1.55 eV/atom in the data); it is for the benchmark, and stability is the property "
        "ehull"
    ),
    "jarvis-exfoliation": (
        "for layered crystals alone: it learnt from 650 of them, and its number for a crystal "
        "without layers means nothing"
    ),
    "jarvis-functional": (
        "few labels for some properties: errors of masses, thermoelectric power factor, "
        "piezoelectric coefficient, spillage and ionic dielectric constant are 60 to 85 % of "
        "always the mean's; see its card"
    ),
    "jarvis-mt": (
        "trained for ehull_label on JARVIS-DFT 2021's 'ehull', which is no distance to the hull "
        "(GaAs 0.46, SrTiO3 1.55 eV/atom in the data); stability is the property ehull"
    ),
}


def main() -> None:
    from recinet_ase.models.ensemble_files import FOLDER, SUFFIX, member_folders
    from recinet_ase.models.property_model import PropertyModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN NAME", help="or a shipped ensemble alone")
    parser.add_argument("--member", action="store_true", help="add the runs to NAME's ensemble")
    parser.add_argument("--data-dir")
    parser.add_argument("--hardware", default="one CPU core")
    arguments = parser.parse_args()
    *runs, name = arguments.runs
    if not runs and name.endswith(SUFFIX):
        release_ensemble(name, arguments.data_dir, arguments.hardware)
        return
    if not runs or (len(runs) > 1 and not arguments.member):
        parser.error("name one run, and under which name it is shipped; or --member")
    target = PRETRAINED / name
    if arguments.member:
        for run in runs:
            check_complete(run)
            number = 2 + len(member_folders(target / FOLDER))
            model = PropertyModel.load(run)
            model.config = replace(model.config, name=f"{name}-{number}")
            model.save(target / FOLDER / f"member-{number}")
        release_ensemble(name + SUFFIX, arguments.data_dir, arguments.hardware)
        return
    check_complete(runs[0])
    model = PropertyModel.load(runs[0])
    model.config = replace(model.config, name=name, caution=CAUTIONS.get(name, ""))
    model.save(target)
    evaluations, figures = measured(
        target, model.config.properties, model.config.training, arguments.data_dir
    )
    model.config = replace(model.config, training={**model.config.training, **figures})
    model.save(target)
    write_card(target, model.config, evaluations, arguments.hardware)


def check_complete(run: str) -> None:
    """Refuse a run that was stopped or is still going on, or that nobody else can repeat."""
    from recinet_ase.models.files import read_config
    from recinet_ase.training.recipes import recipe_names

    training = json.loads(read_config(Path(run)))["training"]
    if not training.get("complete"):
        raise SystemExit(f"{run} has not come to its end: recinet-train --resume -o {run}")
    stage = training
    while stage:
        recipe = stage.get("recipe")
        if recipe is not None and recipe not in recipe_names():
            raise SystemExit(f"{run} is of a recipe that is not in the package: {recipe}")
        stage = stage.get("started_from")


def release_ensemble(name: str, data_dir: str | None, hardware: str) -> None:
    """Measure an ensemble and write its record and card."""
    from recinet_ase.models.ensemble_files import write_record
    from recinet_ase.models.property_model import ModelConfig
    from recinet_ase.pretrained import model_card, model_folder, model_members
    from recinet_ase.uncertainty import calibration

    folder = model_folder(name)
    (folder / RECORD).unlink(missing_ok=True)
    cards = [json.loads((path / "config.json").read_text()) for path in model_members(name)]
    # Intervals belong to the members that they were fitted for.
    for file in (calibration.CALIBRATION_FILE, calibration.ARRAYS_FILE):
        (folder / file).unlink(missing_ok=True)
    evaluations, figures = measured(name, cards[0]["properties"], cards[0]["training"], data_dir)
    write_record(folder, cards, figures)
    config = ModelConfig.from_json(json.dumps(model_card(name)), name)
    write_card(folder, config, evaluations, hardware)


def measured(
    model: str | Path,
    properties: Sequence[str],
    training: dict[str, Any],
    data_dir: str | None,
) -> tuple[list[Evaluation], dict[str, Any]]:
    """Predictions on the validation crystals, and the figures that a card states."""
    from recinet_ase import Predictor
    from recinet_ase.data.catalogue import open_dataset
    from recinet_ase.evaluation.metrics import regression_metrics
    from recinet_ase.evaluation.runner import evaluate, load_structures

    dataset = open_dataset(training["dataset"], data_dir)
    predictor = Predictor(model, device="cpu")
    wanted = [dataset.split(dataset.info(prop)).val for prop in properties]
    structures = load_structures(dataset, set().union(*wanted))
    evaluations = [
        evaluate(predictor, dataset, prop=prop, structures=structures) for prop in properties
    ]
    each: dict[str, dict[str, float]] = {}
    judged: set[str] = set()
    for prop, evaluation in zip(properties, evaluations, strict=True):
        scored = evaluation.table.scored()
        metrics = regression_metrics(scored.targets, scored.predictions)
        # "Always the mean" can only know the training data.
        train_mean = np.mean(list(dataset.split(evaluation.info).train.values()))
        each[prop] = {
            "mae": metrics.mae,
            "mad": float(np.abs(scored.targets - train_mean).mean()),
        }
        judged |= set(scored.ids)
        print(prop, json.dumps(asdict(metrics)))
    first = each[properties[0]]
    return evaluations, {
        "validation_mae": first["mae"],
        "validation_mad": first["mad"],
        "validation": each,
        "n_val": len(judged),
    }


def write_card(
    folder: Path, config: ModelConfig, evaluations: Sequence[Evaluation], hardware: str
) -> None:
    """The folder's README.md."""
    from recinet_ase.training.card import card_text

    first, *others = evaluations

    card = card_text(
        config,
        first.table,
        faults=first.faults,
        others=[(e.table, e.faults) for e in others],
        hardware=hardware,
        licence="MIT",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
