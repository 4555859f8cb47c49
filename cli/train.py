"""``recinet-train``: train a model on a dataset."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from recinet_ase.cli.common import one_line_errors

if TYPE_CHECKING:
    from recinet_ase.training.trainer import Progress as Step

_HELP = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_HELP)
@click.option("--dataset", default="jarvis", show_default=True, help="Dataset to train on.")
@click.option("--props", default="formation_energy", show_default=True, help="Property to learn.")
@click.option(
    "--size", help="Network size: tiny, small (default), paper; with --init that of the model."
)
@click.option(
    "--blocks", type=click.IntRange(1), help="Number of ReciNet blocks, else the size's own."
)
@click.option(
    "--reciprocal",
    type=click.Choice(["lattice", "mean", "literal", "none"]),
    help="Reciprocal block, else the size's own (lattice).",
)
@click.option(
    "--norm",
    type=click.Choice(["batch", "layer"]),
    help="Normalisation, else the size's own (batch).",
)
@click.option("--epochs", type=click.IntRange(1), default=60, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Peak learning rate.",
)
@click.option("--weight-decay", type=click.FloatRange(0), default=1e-5, show_default=True)
@click.option("--ema-decay", type=click.FloatRange(0, 1), default=0.999, show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the matrix products.",
)
@click.option(
    "--validate-every", type=click.IntRange(1), default=2, show_default=True, help="Epochs."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Use only this many training crystals.")
@click.option("--init", metavar="NAME", help="Start from a model (name or folder).")
@click.option(
    "--hold-out",
    default="",
    metavar="PROPS",
    help="Also keep the validation and test crystals of these properties out of training.",
)
@click.option("--full-graphs", is_flag=True, help="Do not merge symmetry-equivalent atoms.")
@click.option("--data-dir", metavar="DIR", help="Folder of the datasets [env: RECINET_DATA_DIR].")
@click.option(
    "--cache-dir", metavar="DIR", help="Folder of packed graphs [env: RECINET_CACHE_DIR]."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that convert structures to graphs.",
)
@click.option("-o", "--output", metavar="DIR", help="Run folder, else runs/DATASET-PROPERTY.")
@click.option("--resume", is_flag=True, help="Continue the run in the folder.")
@click.option(
    "--max-minutes",
    type=click.FloatRange(0),
    help="Stop cleanly after this time, with a checkpoint.",
)
@one_line_errors
def train(
    dataset: str,
    props: str,
    size: str | None,
    blocks: int | None,
    reciprocal: str | None,
    norm: str | None,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    ema_decay: float,
    precision: str,
    validate_every: int,
    seed: int,
    limit: int | None,
    init: str | None,
    hold_out: str,
    full_graphs: bool,
    data_dir: str | None,
    cache_dir: str | None,
    workers: int,
    output: str | None,
    resume: bool,
    max_minutes: float | None,
) -> None:
    r"""Train a model; the run folder can be used wherever a model name can.

    \b
    recinet-train --dataset jarvis --props bandgap -o runs/gap
    recinet-train --resume -o runs/gap
    recinet-screen db.json --model runs/gap
    """
    from recinet_ase.errors import ReciNetError
    from recinet_ase.properties import parse_properties

    if resume and (changed := _given_settings()):
        raise ReciNetError(
            f"--resume continues with the run's own settings; leave out {', '.join(changed)}"
        )
    infos = parse_properties(props)
    folder = Path(output or f"runs/{dataset}-{infos[0].name}")
    held = parse_properties(hold_out) if hold_out else []

    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.run import Resources
    from recinet_ase.training.run import train as run_training

    changes = {"blocks": blocks, "reciprocal": reciprocal, "norm": norm}
    config = TrainingConfig(
        dataset=dataset,
        properties=tuple(info.name for info in infos),
        size=size,
        network=tuple((key, value) for key, value in changes.items() if value is not None),
        reduce=not full_graphs,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=lr,
        weight_decay=weight_decay,
        ema_decay=ema_decay,
        precision=precision,
        validate_every=validate_every,
        seed=seed,
        init=init,
        hold_out=tuple(info.name for info in held),
        limit=limit,
    )
    with _progress_display() as (on_step, on_store):
        model, complete = run_training(
            config,
            folder,
            Resources(data_dir, cache_dir, workers, max_minutes=max_minutes),
            resume,
            on_step,
            on_store,
        )
    figures = model.config.training
    if not complete:
        click.echo(f"stopped after {max_minutes} min; continue with --resume -o {folder}", err=True)
    if "validation_mae" in figures:
        click.echo(
            f"{folder}: {model.config.properties[0]} validation MAE "
            f"{figures['validation_mae']:.5g} {model.config.units[0]} "
            f"(mean absolute deviation {figures['validation_mad']:.5g})"
        )


_WITH_RESUME = {"output", "resume", "max_minutes", "data_dir", "cache_dir", "workers"}


def _given_settings() -> list[str]:
    """Options of the command line that say how to train (and so belong to a new run)."""
    context = click.get_current_context()
    return [
        option.opts[0]
        for option in context.command.params
        if option.name not in (None, *_WITH_RESUME)
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]


def _shown(step: Step) -> str:
    """The last validation error, a dash before the first."""
    return "-" if math.isnan(step.val_mae) else f"{step.val_mae:.4g}"


@contextmanager
def _progress_display() -> Iterator[tuple[Callable[[Step], None], Callable[[int], None]]]:
    """Bars on a terminal; a line an epoch where stderr is a file."""
    if not sys.stderr.isatty():
        last = 0

        def log(step: Step) -> None:
            nonlocal last
            if step.epoch != last:
                last = step.epoch
                click.echo(
                    f"epoch {step.epoch}, step {step.step}/{step.steps}, "
                    f"validation MAE {_shown(step)}",
                    err=True,
                )

        yield log, lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        graphs = bars.add_task("graphs", total=None, visible=False)
        training = bars.add_task("training", total=None, visible=False)

        def on_store(done: int) -> None:
            text = f"{done} crystals to graphs"
            bars.update(graphs, completed=done, description=text, visible=True)

        def on_step(step: Step) -> None:
            text = f"epoch {step.epoch}  train {step.train_mae:.4g}  validation {_shown(step)}"
            bars.update(
                training, completed=step.step, total=step.steps, description=text, visible=True
            )

        yield on_step, on_store


def main() -> None:
    """Entry point of ``recinet-train``."""
    train(prog_name="recinet-train")


if __name__ == "__main__":
    main()
