"""What a training shows while it runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from recinet_ase.forces.training import ForceProgress
    from recinet_ase.training.trainer import Progress as Step


def _shown(step: Step) -> str:
    """The last validation error, a dash before the first."""
    return "-" if math.isnan(step.val_mae) else f"{step.val_mae:.4g}"


@contextmanager
def training_display() -> Iterator[tuple[Callable[[Step], None], Callable[[int], None]]]:
    """Bars on a terminal; a line an epoch where stderr is a file.

    Yields:
        Callbacks for training steps and for crystals converted to graphs.
    """
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


@contextmanager
def force_display() -> Iterator[Callable[[ForceProgress], None]]:
    """As `training_display`, for force models."""

    def text(step: ForceProgress) -> str:
        errors = step.errors
        shown = (
            "-" if errors is None else f"{errors.energy:.1f} meV/atom, {errors.forces:.0f} meV/A"
        )
        return f"epoch {step.epoch}  loss {step.loss:.4g}  validation {shown}"

    if not sys.stderr.isatty():
        last = 0

        def log(step: ForceProgress) -> None:
            nonlocal last
            if step.epoch != last:
                last = step.epoch
                click.echo(f"step {step.step}/{step.steps}, {text(step)}", err=True)

        yield log
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        task = bars.add_task("training", total=None)
        yield lambda step: bars.update(
            task, completed=step.step, total=step.steps, description=text(step)
        )


@contextmanager
def stages_display(
    quiet: bool = False,
) -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int | None], None]]]:
    """Messages on stderr, and on a terminal a bar for each stage of a calculation.

    Yields:
        Callbacks for messages, and for a stage's name, what is done and the total if known.
    """
    if quiet or not sys.stderr.isatty():

        def message(text: str) -> None:
            if not quiet:
                click.echo(text, err=True)

        yield message, lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        tasks: dict[str, Any] = {}

        def on_stage(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                for task in bars.tasks:  # what is left behind is done
                    bars.update(task.id, total=task.completed)
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield lambda text: console.print(text, markup=False), on_stage
