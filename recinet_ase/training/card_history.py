"""What a card tells of a model's training: data, split, stages, network."""

from __future__ import annotations

from typing import Any

from recinet_ase.data.joint import SEPARATOR
from recinet_ase.data.published import DATASETS
from recinet_ase.evaluation.provenance import training_stages
from recinet_ase.models.property_model import ModelConfig
from recinet_ase.nn.recinet import ReciNetConfig

_SOURCES = {
    "jarvis": (
        "JARVIS-DFT 3D, 2021 release (Choudhary et al., npj Comput. Mater. 6, 173, 2020)",
        "public (NIST JARVIS)",
    ),
    "mp": (
        "Materials Project, MEGNet 2018.6.1 set (Chen et al., Chem. Mater. 31, 3564, 2019)",
        "CC BY 4.0",
    ),
    "mp-unlabelled": ("Materials Project 2025, structures alone", "CC BY 4.0"),
    "matbench": (
        "MatBench v0.1 (Dunn et al., npj Comput. Mater. 6, 138, 2020)",
        "as published there",
    ),
    "mlearn": ("mlearn (Zuo et al., J. Phys. Chem. A 124, 731, 2020)", "BSD 3-clause"),
}

_WEIGHTING = {
    "labels": "every label counts the same in the loss",
    "equal": "every property counts the same in the loss",
    "uncertainty": "errors are divided by the present error of their property in the loss",
}


def data_source(dataset: str) -> tuple[str, str]:
    """What a dataset is and under which licence."""
    names = dataset.split(SEPARATOR)
    if len(names) > 1 and all(name in _SOURCES for name in names):
        what, licence = zip(*map(data_source, names), strict=True)
        return "; ".join(what), "; ".join(dict.fromkeys(licence))
    for key, known in _SOURCES.items():
        if dataset == key or dataset.startswith(f"{key}_"):
            return known
    if not dataset:
        return "not recorded", "not recorded"
    return f"`{dataset}`", "that of the data's owner"


def training_lines(config: ModelConfig, hardware: str) -> str:
    """Data, split, stages, network and time."""
    training, network = config.training, config.network
    dataset = str(training.get("dataset", ""))
    stages = training_stages(training)
    lines = [f"Data: {data_source(dataset)[0]}.", f"Split: {_split(config)}."]
    others = training.get("members", [])
    if others:
        lines.append(
            f"Ensemble: {1 + len(others)} networks trained apart; a prediction is the mean of "
            "theirs. What follows tells of the first one, then of the others."
        )
    own = stages[: len(stages) - sum(len(training_stages(member)) for member in others)]
    lines += [_stage(i, stage) for i, stage in enumerate(own, 1) if "epochs" in stage]
    if "weights_averaged_over" in training:
        runs = " and ".join(training["weights_averaged_over"])
        lines.append(f"Weights: the mean of those after the last two stages ({runs}).")
    if "derivation" in training:
        lines.append(f"Derivation: {training['derivation']}.")
    lines.append(_network(network, training.get("size"), len(config.properties)))
    for number, member in enumerate(others, 2):
        of_member = [s for s in training_stages(member) if "epochs" in s]
        lines += [
            f"Member {number}, {_stage(i, s)[0].lower()}{_stage(i, s)[1:]}"
            for i, s in enumerate(of_member, 1)
        ]
        built = _network(ReciNetConfig.from_dict(member["network"]), member.get("size"))
        alone = f" Alone: validation MAE {member['validation_mae']:.3g}, as its run measured it."
        lines.append(
            f"Member {number}, {built[0].lower()}{built[1:]}"
            + (alone if "validation_mae" in member else "")
        )
    recipe = f"Recipe `{training['recipe']}`" if training.get("recipe") else "Recipe"
    precision = f", {training['precision']} matrix products" if "precision" in training else ""
    if len(config.properties) > 1 and "task_weights" in training:
        lines.append(f"Several properties: {_WEIGHTING[training['task_weights']]}.")
    lines.append(
        f"{recipe}: L1 loss on standardised targets, AdamW with OneCycle, moving average of the "
        f"weights{precision}."
    )
    hours = [stage["hours"] for stage in stages if "hours" in stage]
    machine = hardware or str(training.get("hardware", "")) or "hardware not recorded"
    time = f"{sum(hours):.2f} h in all" if hours else "time not recorded"
    lines.append(f"Hardware and time: {machine}, {time}.")
    if training.get("clean_for"):
        lines.append(
            "No crystal in the validation or test ids of "
            f"{', '.join(training['clean_for'])} contributed a training label of any property."
        )
    if "train_ids_sha256" in training:
        lines.append(f"sha256 of the training ids: `{training['train_ids_sha256']}`.")
    return "\n".join(f"- {line}" for line in lines)


def _network(network: ReciNetConfig, named: str | None, outputs: int = 1) -> str:
    """Architecture in a line."""
    size = f"`{named}` " if named else ""
    waves = f", k_max {network.k_max} 1/A" if network.reciprocal == "lattice" else ""
    decoder = {
        "shared": ", one head for all properties",
        "linear": ", a head for each property",
        "moe": f", {network.experts} experts of which a property uses {network.top_k}",
    }[network.multitask]
    return (
        f"Network: ReciNet {size}({network.width} wide, {network.blocks} blocks, reciprocal block "
        f"`{network.reciprocal}`{waves}{decoder if outputs > 1 else ''})."
    )


def _split(config: ModelConfig) -> str:
    """How the crystals were divided."""
    training, infos = config.training, config.infos
    dataset = training.get("dataset", "")
    counts = f"{training.get('n_train', '?')} training and {training.get('n_val', '?')} validation"
    rule = training.get("split", "published")
    if rule != "published":
        return f"{rule}, seed {training['split_seed']}, {counts} crystals"
    if dataset in DATASETS and all(info.name in DATASETS[dataset].tasks for info in infos):
        tasks = ", ".join(f"`{DATASETS[dataset].split_name(info)}`" for info in infos)
        if len(infos) > 1:
            counts += " crystals in all; those of any validation or test set are in no training set"
            return f"JARVIS-Leaderboard {tasks}; {counts}"
        return f"JARVIS-Leaderboard {tasks}, {counts} crystals"
    return f"{counts} crystals"


def _stage(number: int, run: dict[str, Any]) -> str:
    """One training run in a line."""
    known = [
        f"Stage {number}: {', '.join(run['properties'])}" if "properties" in run else "",
        f"{run['n_train']} crystals" if "n_train" in run else "",
        f"{run.get('epochs_done', run['epochs'])} epochs",
        f"batch {run['batch_size']}" if "batch_size" in run else "",
        {"muon": "Muon", "adamw": "AdamW"}.get(run.get("optimizer", ""), ""),
        f"peak learning rate {run['learning_rate']:g}" if "learning_rate" in run else "",
        f"seed {run['seed']}" if "seed" in run else "",
        f"{run['hours']:.2f} h" if "hours" in run else "",
    ]
    return ", ".join(part for part in known if part) + "."
