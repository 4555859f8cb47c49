"""Turn a finished run into a shipped model: half-precision weights, figures, card.

    python tools/release_model.py runs/mbj jarvis-mbj --data-dir DIR

The validation error is measured here, on the weights as shipped and through the same
`Predictor` that users call, on every validation crystal of each property's official split. Given a
shipped model instead of a run, it measures again and writes the card anew.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

PRETRAINED = Path(__file__).parents[1] / "pretrained"

CAUTIONS = {
    "jarvis-ehull": (
        "learned from JARVIS-DFT 2021's 'ehull', which is no thermodynamic distance to the hull "
        "(GaAs 0.46, SrTiO3 1.55 eV/atom in the data); rank with care and see docs/limits.md"
    ),
    "jarvis-mt": (
        "trained for ehull on JARVIS-DFT 2021's 'ehull', which is no thermodynamic distance to "
        "the hull (GaAs 0.46, SrTiO3 1.55 eV/atom in the data); rank with care and see "
        "docs/limits.md"
    ),
}


def main() -> None:
    from recinet_ase import Predictor
    from recinet_ase.data.dataset import open_dataset
    from recinet_ase.evaluation.metrics import regression_metrics
    from recinet_ase.evaluation.runner import evaluate, load_structures
    from recinet_ase.model import PropertyModel
    from recinet_ase.training.card import model_card

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data-dir")
    parser.add_argument("--hardware", default="one CPU core")
    arguments = parser.parse_args()
    model = PropertyModel.load(arguments.run)
    target = PRETRAINED / arguments.name
    caution = CAUTIONS.get(arguments.name, "")
    model.config = replace(model.config, name=arguments.name, caution=caution)
    model.save(target)
    dataset = open_dataset(model.config.training["dataset"], arguments.data_dir)
    predictor = Predictor(target, device="cpu")
    wanted = [dataset.split(dataset.info(prop)).val for prop in model.config.properties]
    structures = load_structures(dataset, set().union(*wanted))
    evaluations = [
        evaluate(predictor, dataset, prop=prop, structures=structures)
        for prop in model.config.properties
    ]
    each: dict[str, dict[str, float]] = {}
    judged: set[str] = set()
    for prop, evaluation in zip(model.config.properties, evaluations, strict=True):
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
    first = model.config.properties[0]
    training = {
        **model.config.training,
        "validation_mae": each[first]["mae"],
        "validation_mad": each[first]["mad"],
        "validation": each,
        "n_val": len(judged),
    }
    model.config = replace(model.config, training=training)
    model.save(target)
    card = model_card(
        model.config,
        evaluations[0].table,
        faults=evaluations[0].faults,
        others=[(e.table, e.faults) for e in evaluations[1:]],
        hardware=arguments.hardware,
        licence="MIT",
    )
    (target / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
