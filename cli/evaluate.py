"""``recinet-evaluate``: the errors of a model on a split of a dataset."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recinet_ase.cli.common import StrictCommand, one_line_errors

if TYPE_CHECKING:
    from recinet_ase.data.splits import SplitRule
    from recinet_ase.evaluation.report import Report
    from recinet_ase.evaluation.runner import Evaluation
    from recinet_ase.evaluation.table import PredictionTable
    from recinet_ase.inference.predictor import Predictor

    Meter = Callable[[str, int], Callable[[int], None]]


@click.command(cls=StrictCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option(
    "--dataset",
    metavar="NAME|PATH",
    help="Data to judge by, own data included.  [default: what the model was trained on]",
)
@click.option(
    "--split",
    "part",
    type=click.Choice(["train", "val", "test", "all"]),
    help="[default: val; all of own data that the model was not trained on]",
)
@click.option(
    "--split-by",
    help="How crystals are divided: published, random, composition, fold:0 ...  "
    "[default: as the model's run did, or the dataset's own]",
)
@click.option("--split-seed", type=int, help="Seed of random splits.  [default: 123]")
@click.option("--target", metavar="KEY", help="Key or column of the labels in own data.")
@click.option("--unit", help="Unit of the labels in own data.")
@click.option(
    "--props", "--prop", "prop", metavar="NAME", help="Property to judge by, else the model's own."
)
@click.option(
    "--hull",
    multiple=True,
    metavar="FILE",
    help="References for ehull: a file of formation energies, jarvis or mp; may be repeated.",
)
@click.option("-o", "--output", metavar="FOLDER", help="Write predictions, report and plot here.")
@click.option(
    "--compare",
    "others",
    multiple=True,
    metavar="MODEL|FILE",
    help="Another model, or a file of predictions (id,target,prediction); may be repeated.",
)
@click.option(
    "--leaderboard",
    is_flag=True,
    help="Write the predictions for the test ids as JARVIS-Leaderboard wants them.",
)
@click.option(
    "--gap-threshold",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Gap in eV above which a crystal counts as non-metal.",
)
@click.option("--data-dir", metavar="DIR", help="Folder of the datasets, else RECINET_DATA_DIR.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@one_line_errors
def evaluate(
    model: str,
    dataset: str | None,
    part: str | None,
    split_by: str | None,
    split_seed: int | None,
    target: str | None,
    unit: str | None,
    prop: str | None,
    hull: tuple[str, ...],
    output: str | None,
    others: tuple[str, ...],
    leaderboard: bool,
    gap_threshold: float,
    data_dir: str | None,
    device: str,
) -> None:
    """Measure MODEL (a shipped name or a run folder) on a split of a dataset.

    \b
    recinet-evaluate jarvis-mbj --dataset jarvis --split val -o out/
    recinet-evaluate jarvis-mbj --dataset my_cifs/ --split all
    recinet-evaluate runs/gap --compare jarvis-mbj --compare other/predictions.csv
    recinet-evaluate jarvis-mbj --split test --leaderboard -o out/
    """  # noqa: D301 (click looks for the character itself)
    from recinet_ase.errors import ReciNetError

    if leaderboard and output is None:
        raise ReciNetError("--leaderboard writes a file: say into which folder with -o")
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise ReciNetError(f"{output} is a file; choose a folder for the report")

    from recinet_ase.evaluation import runner
    from recinet_ase.evaluation.comparison import compare
    from recinet_ase.evaluation.data import choose_data, open_data
    from recinet_ase.evaluation.leaderboard import leaderboard_name
    from recinet_ase.evaluation.report import make_report, write_report
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.pretrained import load_model
    from recinet_ase.properties import parse_properties
    from recinet_ase.stability.derived import DISTANCE

    rule = _rule(split_by, split_seed)
    with _progress_display() as meter:
        meter("loading", 0)
        config = load_model(model).config
        name = None if prop is None else parse_properties(prop, config.infos)[0].name
        if hull and name != DISTANCE:
            raise ReciNetError("--hull is of the distance to it: add --props ehull")
        choice = choose_data(model, config, dataset, target, unit, rule)
        data = open_data(choice, name or config.properties[0], data_dir)
        part = part or ("all" if choice.foreign else "val")
        _, info = runner.choose_property(config, data, name)
        predictor = _predictor(model, device, name, hull)
        # What cannot be done is told before the work.
        site_name = leaderboard_name(data.name, info) if leaderboard else ""
        if leaderboard and (choice.rule or data.default_rule).kind != "published":
            raise ReciNetError(
                "the leaderboard judges by the published split; leave out --split-by"
            )
        answers = [_other(other, device, name, hull) for other in others]
        for _, answer in answers:
            if isinstance(answer, Predictor):
                runner.choose_property(answer.models[0].config, data, info.name)
        parts = {part, "test"} if leaderboard else {part}
        wanted = [key for p in parts for key in runner.split_targets(data, info, p, choice.rule)]
        meter(f"reading {data.name}", 0)
        structures = runner.load_structures(data, wanted)

        def predict(spec: str, with_model: Predictor, on: str) -> Evaluation:
            trained = choose_data(spec, with_model.models[0].config, choice.spec).trained_rule
            advance = meter(f"{with_model.models[0].config.name} on {on}", len(structures))
            return runner.evaluate(
                with_model, data, on, info.name, choice.rule, trained, structures, advance
            )

        evaluation = predict(model, predictor, part)
        tested = evaluation
        if leaderboard and part != "test":
            tested = predict(model, predictor, "test")
        comparisons, warnings = [], list(evaluation.warnings)
        for other, answer in answers:
            if isinstance(answer, Predictor):
                second = predict(other, answer, part)
                warnings += second.warnings
                answer = second.table
            if evaluation.table.labelled.any():
                comparisons.append(compare(evaluation.table, answer, other))
    if data.labels_note:
        click.echo(data.labels_note, err=True)
    if unusable := data.rejected():
        key, reason = next(iter(unusable.items()))
        click.echo(
            f"{len(unusable)} rows of {data.name} cannot be used (the first: {key}: {reason})",
            err=True,
        )
    report = make_report(evaluation, comparisons, gap_threshold)
    for warning in dict.fromkeys(warnings):
        click.echo(f"warning: {warning}", err=True)
    _show(report)
    if report.without_metrics:
        skipped = " No comparison either." if others else ""
        click.echo(f"{report.without_metrics}{skipped}")
    if output is None:
        return
    folder = Path(output)
    written = write_report(report, folder)
    click.echo(f"{', '.join(path.name for path in written)} -> {folder}", err=True)
    if leaderboard:
        _contribute(tested, site_name, folder)


def _rule(text: str | None, seed: int | None) -> SplitRule | None:
    """The split asked for, None if none was."""
    from recinet_ase.data.splits import PUBLISHED_SEED, SplitRule
    from recinet_ase.errors import ReciNetError

    if text is None:
        if seed is not None:
            raise ReciNetError("--split-seed needs a split: add --split-by random (or another)")
        return None
    return SplitRule.parse(text, PUBLISHED_SEED if seed is None else seed)


def _predictor(spec: str, device: str, name: str | None, hull: tuple[str, ...]) -> Predictor:
    """A model's predictor.

    The distance to the hull is asked for by name, so that crystals whose references lack
    something are judged, too.
    """
    from recinet_ase.inference.predict import as_predictor
    from recinet_ase.stability.derived import DISTANCE

    return as_predictor(spec, device, props=name if name == DISTANCE else None, hull=hull or None)


def _other(
    spec: str, device: str, name: str | None, hull: tuple[str, ...]
) -> tuple[str, PredictionTable | Predictor]:
    """What to compare with: a file of predictions, or another model."""
    from recinet_ase.evaluation.table import PredictionTable

    path = Path(spec)
    if path.suffix in (".csv", ".zip") or path.is_file():
        return spec, PredictionTable.from_csv(path)
    if (path / "predictions.csv").is_file() and not (path / "config.json").is_file():
        return spec, PredictionTable.from_csv(path / "predictions.csv")
    return spec, _predictor(spec, device, name, hull)


def _contribute(tested: Evaluation, name: str, folder: Path) -> None:
    """Write the leaderboard's file, and say what it lacks."""
    from recinet_ase.evaluation.leaderboard import write_contribution

    path = write_contribution(tested.table, name, folder)
    given = len(tested.table) - tested.refused
    click.echo(f"{path}: {given} test predictions", err=True)
    if tested.withheld:
        click.echo(
            f"the labels of {tested.withheld} test crystals are withheld: their target is empty "
            "(the leaderboard judges by its own)",
            err=True,
        )
    if missing := tested.refused + len(tested.absent):
        click.echo(
            f"warning: {missing} test ids have no prediction ({tested.refused} refused, "
            f"{len(tested.absent)} without a structure) and are left out; the leaderboard expects "
            "every id",
            err=True,
        )


def _show(report: Report) -> None:
    """The figures as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    from recinet_ase.evaluation.report import summary

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in summary(report):
        table.add_row(name, value)
    Console(highlight=False, markup=False, emoji=False).print(table)


@contextmanager
def _progress_display() -> Iterator[Meter]:
    """A bar on a terminal, nothing where stderr is a file.

    Yields:
        A function that starts a stage (description, number of crystals, 0 if unknown) and
        returns what to call with the number done.
    """
    if not sys.stderr.isatty():
        yield lambda description, total: lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        stage = bars.add_task("")

        def start(description: str, total: int) -> Callable[[int], None]:
            bars.reset(stage, description=description, total=total or None)
            return lambda done: bars.update(stage, completed=done)

        yield start


def main() -> None:
    """Entry point of ``recinet-evaluate``."""
    evaluate(prog_name="recinet-evaluate")


if __name__ == "__main__":
    main()
