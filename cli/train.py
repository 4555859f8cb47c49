"""``recinet-train``: train a model on a dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from recinet_ase.cli.common import Joined, StrictCommand, one_line_errors
from recinet_ase.cli.progress import training_display

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# Settings are None unless given: a recipe's value, or else the default of
# `TrainingConfig` (named in the help texts and compared with them by a test), then holds.
_DATA = (
    click.option(
        "--dataset",
        help="Dataset name, several joined by '+', or path of own data.  [default: jarvis]",
    ),
    click.option(
        "--props",
        cls=Joined,
        help="Property to learn, or several.  [default: the dataset's first]",
    ),
    click.option(
        "--labels",
        multiple=True,
        default=None,
        metavar="NAME=PATH",
        help="Further labels from a csv file or a folder of them: total_energy[chgnet]=DIR.",
    ),
    click.option("--target", metavar="KEY", help="Key or column of the labels in own data."),
    click.option("--unit", help="Unit of the labels in own data."),
    click.option(
        "--units",
        help="Stresses beside forces in own data: ase (eV/A^3), gpa, or vasp (kbar, positive under "
        "compression).  [default: ase]",
    ),
    click.option(
        "--split-by",
        "split",
        help="How crystals are divided: published, random, composition, fold:0 ...  "
        "[default: the dataset's own, else random]",
    ),
    click.option("--split-seed", type=int, help="Seed of random splits.  [default: 123]"),
    click.option(
        "--max-bad",
        type=click.FloatRange(0, 1),
        help="Share of unusable rows above which nothing is trained.  [default: 0.05]",
    ),
    click.option(
        "--leave-out", metavar="FILE", help="Keep the ids in this file out of training, one a line."
    ),
    click.option(
        "--log-targets",
        cls=Joined,
        metavar="PROPS",
        help="Learn the logarithm of these properties.",
    ),
    click.option("--limit", type=click.IntRange(1), help="Use only this many training crystals."),
    click.option(
        "--hold-out",
        cls=Joined,
        metavar="PROPS",
        help="Also keep the validation and test crystals of these properties out of training.",
    ),
)
_NETWORK = (
    click.option(
        "--size", help="Network: tiny, small, paper.  [default: small, or that of --init]"
    ),
    click.option("--blocks", type=click.IntRange(1), help="ReciNet blocks, else the size's own."),
    click.option(
        "--reciprocal",
        type=click.Choice(["lattice", "mean", "literal", "ewald", "none"]),
        help="Reciprocal block, else the size's own (lattice).",
    ),
    click.option(
        "--multitask",
        type=click.Choice(["moe", "linear"]),
        help="Several properties: experts and a head each, or a head each.  "
        "[default: one head for all]",
    ),
    click.option("--norm", type=click.Choice(["batch", "layer"]), help="Else the size's (batch)."),
    click.option(
        "--pooling",
        type=click.Choice(["mean", "attention", "peak"]),
        help="From atoms to a crystal: their mean, one that learns which atoms count, or the "
        "largest of values of their own (else the size's, mean).",
    ),
    click.option(
        "--neighbours",
        type=click.IntRange(1),
        help="Neighbours that set an atom's cutoff.  [default: 16]",
    ),
    click.option(
        "--full-graphs",
        "reduce",
        flag_value=False,
        default=None,
        type=bool,
        help="Do not merge symmetry-equivalent atoms.",
    ),
    click.option("--init", metavar="NAME", help="Start from a model (name or folder)."),
    click.option("--freeze", help="Keep weights: embedding, encoder or blocks:N."),
)
_LOOP = (
    click.option("--epochs", type=click.IntRange(1), help="[default: 60]"),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        help="Crystals a step.  [default: 64, or a quarter of fewer than 256]",
    ),
    click.option(
        "--lr",
        "learning_rate",
        type=click.FloatRange(0, min_open=True),
        help="Peak learning rate, 0.001 unless given, 0.0003 with --init.",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(["adamw", "muon"]),
        help="muon: for the matrices inside the network.  [default: adamw]",
    ),
    click.option("--weight-decay", type=click.FloatRange(0), help="[default: 1e-05]"),
    click.option("--ema-decay", type=click.FloatRange(0, 1), help="[default: 0.999]"),
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16"]),
        help="Type of the matrix products.  [default: float32]",
    ),
    click.option("--validate-every", type=click.IntRange(1), help="Epochs.  [default: 2]"),
    click.option(
        "--patience",
        type=click.IntRange(0),
        help="Stop after this many validations without a better one, 0 never (10 with --init).",
    ),
    click.option(
        "--task-weights",
        type=click.Choice(["labels", "equal", "uncertainty"]),
        help="What counts alike of several properties: labels, properties, or properties' "
        "relative errors.  [default: labels]",
    ),
    click.option("--seed", type=int, help="[default: 0]"),
    click.option(
        "--no-calibrate",
        "calibrate",
        flag_value=False,
        default=None,
        type=bool,
        help="Fit no intervals at the end.",
    ),
)
_RESOURCES = (
    click.option(
        "--data-dir", metavar="DIR", help="Folder of the datasets [env: RECINET_DATA_DIR]."
    ),
    click.option(
        "--cache-dir", metavar="DIR", help="Folder of packed graphs [env: RECINET_CACHE_DIR]."
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        help="Processes that convert structures to graphs; one for each core unless given.",
    ),
    click.option(
        "--accelerator",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="A GPU where there is one.",
    ),
    click.option(
        "--devices",
        default="1",
        show_default=True,
        metavar="N",
        help="Processes on this machine, one a GPU; 'auto' takes all GPUs.",
    ),
    click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines."),
    click.option(
        "--max-minutes",
        type=click.FloatRange(0),
        help="Stop cleanly this long after the program began, with something to resume.",
    ),
)
_NETWORK_FIELDS = ("blocks", "reciprocal", "norm", "pooling", "multitask")


def _settings(command: Any) -> Any:
    for option in reversed((*_DATA, *_NETWORK, *_LOOP, *_RESOURCES)):
        command = option(command)
    return command


@click.command(cls=StrictCommand, context_settings=_HELP)
@click.option("--recipe", metavar="NAME", help="Settings from a recipe (name or .toml file).")
@_settings
@click.option("-o", "--output", metavar="DIR", help="Run folder, else runs/DATASET-PROPERTY.")
@click.option("--resume", is_flag=True, help="Continue the run in the folder.")
@one_line_errors
def train(
    recipe: str | None,
    data_dir: str | None,
    cache_dir: str | None,
    workers: int | None,
    accelerator: str,
    devices: str,
    nodes: int,
    max_minutes: float | None,
    output: str | None,
    resume: bool,
    **settings: Any,
) -> None:
    """Train a model; the run folder can be used wherever a model name can.

    \b
    recinet-train --dataset jarvis --props bandgap -o runs/gap
    recinet-train --resume -o runs/gap
    recinet-train --dataset my_cifs/ --props bandgap -o runs/mine
    recinet-train --dataset my.extxyz --props energy,forces,stress -o runs/potential
    recinet-train --recipe paper/jarvis-mbj
    recinet-screen db.json --model runs/gap
    """  # noqa: D301 (click looks for the character itself)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    from recinet_ase.errors import ReciNetError

    given = {key: value for key, value in settings.items() if value not in (None, ())}
    if resume and (given or recipe):
        names = ["--recipe"] * bool(recipe) + _option_names(given)
        raise ReciNetError(
            f"--resume continues with the run's own settings; leave out {', '.join(names)}"
        )
    if not (devices == "auto" or (devices.isdigit() and int(devices) > 0)):
        raise ReciNetError(f"--devices must be a number or 'auto', not {devices!r}")
    config = _configuration(recipe, given)

    from recinet_ase.training.devices import Resources
    from recinet_ase.training.run import train as run_training

    kind = ("forces",) if config.kind == "forces" else config.properties[:1]
    parts = (Path(config.dataset).stem, *kind)
    folder = Path(output or f"runs/{'-'.join(parts)}")
    resources = Resources(
        data_dir, cache_dir, workers, accelerator,
        devices if devices == "auto" else int(devices), nodes, deadline,
    )  # fmt: skip
    from recinet_ase.data.conversion import ConversionStopped
    from recinet_ase.training.devices import is_first_process

    go_on = f"continue with --resume -o {folder}"
    try:
        with training_display() as (on_step, on_store, on_message):
            model, complete = run_training(
                config, folder, resources, resume, on_step, on_store, on_message
            )
    except ConversionStopped as stopped:
        click.echo(f"{stopped}; {go_on}", err=True)
        return
    if not is_first_process():
        return
    if not complete:
        click.echo(f"stopped before the end; {go_on}", err=True)
    figures = model.config.training
    if "validation_errors" in figures:  # of a force model
        errors = figures["validation_errors"]
        click.echo(
            f"{folder}: validation MAE {errors['energy']:.2f} meV/atom, "
            f"{errors['forces']:.1f} meV/A, {errors['stress']:.3f} GPa"
        )
        return
    for info in model.config.infos:
        found = figures["validation"][info.name]
        click.echo(
            f"{folder}: {info.name} validation MAE {found['mae']:.5g} {info.unit} "
            f"(mean absolute deviation {found['mad']:.5g})"
        )
    if figures["best_epoch"]:
        click.echo(f"best of {figures['epochs_done']} epochs: {figures['best_epoch']}", err=True)
    if model.config.caution:
        click.echo(f"caution: this model is {model.config.caution}", err=True)


def _configuration(recipe: str | None, given: dict[str, Any]) -> Any:
    """Defaults, overruled by the recipe, overruled by the command line."""
    from recinet_ase.errors import ReciNetError
    from recinet_ase.forces.settings import ForceTrainingConfig, learns_forces
    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.recipes import load_recipe

    settings = load_recipe(recipe) if recipe else {}
    network = dict(settings.pop("network", ()))
    network |= {key: given[key] for key in _NETWORK_FIELDS if key in given}
    for key, value in given.items():
        if key == "props":
            settings["properties"] = value
        elif key not in _NETWORK_FIELDS:
            settings[key] = value
    settings["labels"] = tuple(settings.get("labels", ()))
    for key in ("properties", "hold_out", "log_targets"):
        if key in settings:
            names = settings[key]
            names = names.split(",") if isinstance(names, str) else names
            settings[key] = tuple(name.strip() for name in names if name.strip())
    settings["network"] = tuple(network.items())
    if learns_forces(settings.get("dataset"), settings.get("properties", ())):
        _refuse_property_options({**settings, **network})
        if not settings.get("properties"):
            settings.pop("properties", None)
        return ForceTrainingConfig(**settings)
    if "units" in settings:
        raise ReciNetError("--units says in which units stresses are: add forces to --props")
    return TrainingConfig(**settings)


def _refuse_property_options(given: dict[str, Any]) -> None:
    """Options that mean nothing where forces are learnt are refused by name.

    Raises:
        ReciNetError: If one is given.
    """
    from dataclasses import fields

    from recinet_ase.errors import ReciNetError
    from recinet_ase.forces.network import ForceNetworkConfig
    from recinet_ase.forces.settings import UNUSED

    foreign = UNUSED | (set(_NETWORK_FIELDS) - {f.name for f in fields(ForceNetworkConfig)})
    names = _option_names({key: None for key in given if key in foreign})
    if names:
        raise ReciNetError(
            f"{', '.join(names)} has no meaning for a force model; a property of the same data "
            "is learnt with --props total_energy"
        )


def _option_names(settings: dict[str, Any]) -> list[str]:
    """The options of the command line that set the given fields."""
    parameters = click.get_current_context().command.params
    return [option.opts[0] for option in parameters if option.name in settings]


def main() -> None:
    """Entry point of ``recinet-train``."""
    train(prog_name="recinet-train")


if __name__ == "__main__":
    main()
