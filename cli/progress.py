"""What commands show while they run."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from recinet_ase.training.task import Progress as Step


def _text(step: Step) -> str:
    """Errors so far in their unit, and the best one; a dash before the first validation."""
    text = f"epoch {step.epoch}  train {step.train_mae:.4g}  validation "
    if math.isnan(step.val_mae):
        return f"{text}-"
    best = f", best {step.best_mae:.4g} in epoch {step.best_epoch}" if step.best_epoch else ""
    return f"{text}{step.val_mae:.4g} {step.unit}{best}"


def _lines(text: Callable[[Any], str]) -> Callable[[Any], None]:
    """A callback that writes a line an epoch."""
    last = 0

    def log(step: Any) -> None:
        nonlocal last
        if step.epoch != last:
            last = step.epoch
            click.echo(f"step {step.step}/{step.steps}  {text(step)}", err=True)

    return log


def _store_lines() -> Callable[[int, int], None]:
    """A callback that writes a line every tenth of the way, or half a minute where that is sooner.

    The first comes after five seconds: a small set needs none.
    """
    shown_at, shown = math.nan, 0

    def log(done: int, total: int) -> None:
        """Say now and then how much is read."""
        nonlocal shown_at, shown
        if math.isnan(shown_at):
            shown_at = time.monotonic()
        waited = time.monotonic() - shown_at
        if waited >= 30 or (waited >= 5 and 10 * (done - shown) >= (total or math.inf)):
            shown_at, shown = time.monotonic(), done
            of_all = f" of {total:,}" if total else ""
            click.echo(f"{done:,}{of_all} structures read", err=True)

    return log


@contextmanager
def _bars() -> Iterator[Progress]:
    """Bars on stderr with the time that remains."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        yield bars


@contextmanager
def training_display() -> Iterator[
    tuple[Callable[[Step], None], Callable[[int, int], None], Callable[[str], None]]
]:
    """Bars on a terminal; lines where stderr is a file.

    Yields:
        Callbacks for training steps, for crystals converted to graphs (how many, of how many),
        and for messages.
    """
    if not sys.stderr.isatty():
        yield _lines(_text), _store_lines(), lambda text: click.echo(text, err=True)
        return
    with _bars() as bars:
        graphs = bars.add_task("graphs", total=None, visible=False)
        training = bars.add_task("training", total=None, visible=False)

        def on_store(done: int, total: int) -> None:
            text = f"{done:,} of {total:,} structures to graphs" if total else f"{done:,} read"
            bars.update(graphs, completed=done, total=total or None, description=text, visible=True)

        def on_message(text: str) -> None:
            bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

        def on_step(step: Step) -> None:
            bars.update(
                training,
                completed=step.step,
                total=step.steps,
                description=_text(step),
                visible=True,
            )

        yield on_step, on_store, on_message


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


_WIDE = 80  # columns of a terminal that has room for a bar


class ScreenDisplay:
    """Notes on stderr, and a bar where that is a terminal."""

    def __init__(self, quiet: bool, log: str | None, stage: str = "screening") -> None:
        self.quiet = quiet
        self.log = log
        self.stage = stage
        self.done = 0
        self._spinner: Any = None

    def busy(self, what: str = "") -> None:
        """Say what takes its time until the next note or bar; nothing more, without a word."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        if what and not self.quiet and sys.stderr.isatty():
            from rich.console import Console

            self._spinner = Console(stderr=True).status(what)
            self._spinner.start()

    def note(self, line: str) -> None:
        """A line on stderr, and in the log."""
        self.busy()
        click.echo(line, err=True)
        logging.getLogger("recinet_ase.screening").info(line)

    @contextmanager
    def progress(self, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
        """Rows done, rate and time left."""
        self.busy()
        self.done = done

        def count(rows: int) -> None:
            self.done += rows

        if self.quiet or not sys.stderr.isatty():
            yield count
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        wide: list[str | ProgressColumn] = []
        if console.width >= _WIDE:
            wide = [SpinnerColumn(), self.stage, BarColumn(), TimeElapsedColumn()]
        with Progress(
            *wide,
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=not wide),
            console=console,
            transient=True,
        ) as bars:
            task = bars.add_task("", total=total, completed=done, rate="")

            def advance(rows: int) -> None:
                count(rows)
                speed = bars.tasks[0].speed
                bars.update(task, advance=rows, rate=f"{speed:,.0f}/s" if speed else "")

            yield advance
