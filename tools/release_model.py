"""Turn a finished run into a shipped model: half-precision weights, figures, card.

    python tools/release_model.py runs/mbj jarvis-mbj --data-dir DIR

The validation error is measured here, on the weights as shipped and through the same
`Predictor` that users call, on every validation crystal of the official split.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

OTHER = "other (intermetallics, elements, ...)"
PRETRAINED = Path(__file__).parents[1] / "pretrained"

CAUTIONS = {
    "jarvis-ehull": (
        "learned from JARVIS-DFT 2021's 'ehull', which is no thermodynamic distance to the hull "
        "(GaAs 0.46, SrTiO3 1.55 eV/atom in the data); rank with care and see docs/limits.md"
    ),
}

CARD = """\
# {name}

{label} of inorganic crystals in {unit}, at the level of {functional}.

| | |
|---|---|
| validation MAE | **{mae:.3g} {unit}** ({n_val} crystals) |
{faults}| validation RMSE, median absolute error | {rmse:.3g}, {median:.3g} {unit} |
| mean absolute deviation of the data (MAE of "always the mean") | {mad:.3g} {unit} |
| test MAE | to be measured (test labels are withheld) |
| parameters | {parameters:,} |

{caution}## How the figure was obtained

`python tools/release_model.py RUN {name}` on the weights in this folder (half precision), through
`recinet_ase.Predictor` on full graphs in float32, for every validation crystal of the
JARVIS-Leaderboard split `{key}`. {refused}Hyperparameters were chosen on
validation; test labels were not available.

{breakdown}

## Training

- Data: JARVIS-DFT 3D, 2021 release (Choudhary et al., npj Comput. Mater. 6, 173, 2020), public.
- Split: JARVIS-Leaderboard `{key}`, {n_train} training crystals.
{history}
- Network: ReciNet `{size}` ({width} wide, {blocks} blocks, reciprocal block `{reciprocal}`,
  k_max {k_max} 1/A), symmetry-reduced graphs, L1 loss on standardised targets, AdamW with
  OneCycle, moving average of the weights, {precision} matrix products.
- Hardware and time: one CPU core, {hours:.2f} h in all.
- No crystal in the validation or test ids of {clean_for} contributed a training label of any
  property (sha256 of the training ids: `{digest}`).

## Limits

- {elements} elements occur in the training data; a crystal with another one is refused.
- Relaxed, ordered, three-dimensional crystals near equilibrium. Strained or disordered cells,
  surfaces, molecules and liquids are outside the training data.
- No uncertainty is given for a single prediction yet.

Licence: MIT (weights and code). The training data are public (NIST JARVIS).
"""


def measured(folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Errors of a model folder on its validation crystals, through the Predictor."""
    from recinet_ase import Predictor
    from recinet_ase.data.published import get_dataset
    from recinet_ase.properties import PROPERTIES

    predictor = Predictor(folder, device="cpu")
    (name,) = predictor.properties
    dataset = get_dataset(predictor.models[0].config.training["dataset"])
    split, records = dataset.split(PROPERTIES[name], data_dir), dataset.records(data_dir)
    ids = [i for i in split.val if i in records]
    start = time.perf_counter()
    results = predictor.predict_many(records[i] for i in ids)
    seconds = time.perf_counter() - start
    refused = sum(bool(r.error) for r in results)
    rows = [
        (split.val[i], r.values[name], records[i]["atoms"]["elements"], i)
        for i, r in zip(ids, results, strict=True)
        if not r.error
    ]
    true = np.array([row[0] for row in rows])
    error = np.abs(np.array([row[1] for row in rows]) - true)
    wrong = np.array([row[3] in dataset.faults.get(name, ()) for row in rows])
    train_mean = float(np.mean(list(split.train.values())))
    return {
        "mae": float(error.mean()),
        "faulty": int(wrong.sum()),
        "mae_without_faulty": float(error[~wrong].mean()),
        "rmse": math.sqrt(float((error**2).mean())),
        "median": float(np.median(error)),
        "mad": float(np.abs(true - train_mean).mean()),
        "n_val": len(rows),
        "refused": refused,
        "per_second": len(ids) / seconds,
        "breakdown": breakdown(error, true, [row[2] for row in rows]),
    }


def breakdown(error: np.ndarray, true: np.ndarray, elements: list[list[str]]) -> str:
    """Error by chemistry and by true value, as markdown tables."""
    kinds: dict[str, list[float]] = defaultdict(list)
    anions = {"O": "oxides", "F": "fluorides", "Cl": "chlorides", "Br": "bromides",
              "I": "iodides", "S": "sulfides", "Se": "selenides", "Te": "tellurides",
              "N": "nitrides"}  # fmt: skip
    for value, symbols in zip(error, elements, strict=True):
        present = [label for symbol, label in anions.items() if symbol in symbols]
        kinds[present[0] if present else OTHER].append(value)
    lines = ["| chemistry | crystals | MAE |", "|---|---|---|"]
    lines += [
        f"| {label} | {len(kinds[label])} | {np.mean(kinds[label]):.3g} |"
        for label in [*anions.values(), OTHER]
        if kinds[label]
    ]
    lines += ["", "| true value | crystals | MAE |", "|---|---|---|"]
    edges = np.unique(np.quantile(true, [0, 0.2, 0.4, 0.6, 0.8, 1]))
    for low, high in pairwise(edges):
        chosen = (true >= low) & ((true < high) if high < edges[-1] else (true <= high))
        lines.append(f"| {low:.3g} to {high:.3g} | {chosen.sum()} | {error[chosen].mean():.3g} |")
    return "\n".join(lines)


def chain(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs behind a model, first to last."""
    earlier = training.get("started_from")
    return [*(chain(earlier) if earlier else []), training]


def main() -> None:
    from recinet_ase.data.published import get_dataset
    from recinet_ase.model import PropertyModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    model = PropertyModel.load(arguments.run)
    target = PRETRAINED / arguments.name
    caution = CAUTIONS.get(arguments.name, "")
    model.config = replace(model.config, name=arguments.name, caution=caution)
    model.save(target)
    figures = measured(target, arguments.data_dir)
    training = {
        **model.config.training,
        "validation_mae": figures["mae"],
        "validation_mad": figures["mad"],
        "n_val": figures["n_val"],
    }
    model.config = replace(model.config, training=training)
    model.save(target)
    config, network, runs = model.config, model.config.network, chain(training)
    history = "\n".join(
        f"- Stage {i}: {run['properties'][0]}, {run['n_train']} crystals, {run['epochs']} epochs, "
        f"batch {run['batch_size']}, peak learning rate {run['learning_rate']:g}, "
        f"seed {run['seed']}, {run['hours']:.2f} h."
        for i, run in enumerate(runs, 1)
    )
    if "derivation" in training:
        history += f"\n- Derivation: {training['derivation']}."
    info, refused = config.infos[0], figures["refused"]
    faults = (
        f"| the same without {figures['faulty']} labels known to be wrong (docs/limits.md) | "
        f"{figures['mae_without_faulty']:.3g} {info.unit} |\n"
        if figures["faulty"]
        else ""
    )
    card = CARD.format(
        faults=faults,
        name=config.name,
        label=info.label.capitalize(),
        unit=info.unit,
        functional=config.functional[0],
        caution=f"**Caution.** This model is {caution}.\n\n" if caution else "",
        key=get_dataset(training["dataset"]).split_name(info),
        history=history,
        hours=sum(run["hours"] for run in runs),
        n_train=training["n_train"],
        parameters=training["parameters"],
        size=training["size"],
        precision=training["precision"],
        clean_for=", ".join(training["clean_for"]),
        digest=training["train_ids_sha256"],
        elements=len(config.elements),
        **{k: getattr(network, k) for k in ("width", "blocks", "reciprocal", "k_max")},
        **{**figures, "refused": f"{refused} of them were refused. " if refused else ""},
    )
    (target / "README.md").write_text(card, encoding="utf-8")
    print(json.dumps({k: v for k, v in figures.items() if k != "breakdown"}))


if __name__ == "__main__":
    main()
