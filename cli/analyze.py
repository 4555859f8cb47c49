"""``recinet-analyze``: what a model has learned, and what a data set consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recinet_ase.cli.common import StrictCommand, one_line_errors
from recinet_ase.cli.progress import stages_display

if TYPE_CHECKING:
    from recinet_ase.analysis.report import Analysis
    from recinet_ase.analysis.sample import Sample

    Progress = Callable[[str, int, int | None], None]


@click.command(cls=StrictCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.option(
    "--data",
    "files",
    multiple=True,
    metavar="FILE",
    help="Crystals to look at: any input of recinet-screen; may be repeated.",
)
@click.option("--dataset", metavar="NAME", help="Crystals of a dataset by name, e.g. jarvis.")
@click.option("--data-dir", metavar="DIR", help="Folder of the datasets, else RECINET_DATA_DIR.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=2000,
    show_default=True,
    help="Crystals that go through the network, a random sample; the composition counts all.",
)
@click.option("-o", "--output", metavar="DIR", help="Result folder, else analysis-NAME.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["png", "pdf", "svg"]),
    multiple=True,
    default=("png", "pdf"),
    show_default=True,
    help="Format of the plots; may be repeated.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("-q", "--quiet", is_flag=True, help="Warnings and errors only.")
@one_line_errors
def analyze(
    model: str | None,
    files: tuple[str, ...],
    dataset: str | None,
    data_dir: str | None,
    limit: int,
    output: str | None,
    formats: tuple[str, ...],
    device: str,
    quiet: bool,
) -> None:
    """Show what MODEL (a shipped name or a run folder) has learned.

    Always: the filters of its reciprocal blocks as curves and matrices, singular values and
    effective ranks. With crystals: how much the reciprocal block contributes, the gates by
    element and distance, the experts of each task, and how many crystals are ionic, polar,
    covalent or elements. Without MODEL, the last alone. Plots, the numbers as csv beside them,
    and summary.md.

    \b
    recinet-analyze jarvis-eform
    recinet-analyze jarvis-mbj --data db.json -o gap/
    recinet-analyze --dataset jarvis --data-dir data/
    """  # noqa: D301 (click looks for the character itself)
    from recinet_ase.errors import ReciNetError

    if files and dataset:
        raise ReciNetError("give --data or --dataset, not both")
    if model is None and not files and dataset is None:
        raise ReciNetError("nothing to analyse: name a model, --data FILE or --dataset NAME")
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise ReciNetError(f"{output} is a file; choose a folder for the analysis")
    name = Path(model or dataset or files[0]).name
    folder = Path(output or f"analysis-{name}")
    if model is not None:
        from recinet_ase.pretrained import model_card

        model_card(model)  # a wrong name is told before the data are read
    with stages_display(quiet) as (message, progress):
        sample = None
        if files or dataset:
            sample = _sample(files, dataset, data_dir, limit, progress)
        analysis = _analysis(model, sample, device, progress)
        written = analysis.write(folder, tuple(dict.fromkeys(formats)))
        message(f"{len(written)} files in {folder}")
    if not quiet:
        click.echo(analysis.summary, nl=False)


def _sample(
    files: tuple[str, ...],
    dataset: str | None,
    data_dir: str | None,
    limit: int,
    progress: Progress,
) -> Sample:
    """Crystals of files or of a dataset, as many as are wanted."""
    from recinet_ase.analysis.sample import draw_sample, file_entries

    name = ", ".join(Path(f).name for f in files)
    entries: Iterator[tuple[str, Any]]
    if dataset is not None:
        from recinet_ase.data.catalogue import open_dataset

        source = open_dataset(dataset, data_dir)
        name, entries = source.name, source.structures()
    else:
        entries = file_entries(files)
    return draw_sample(name, entries, limit, lambda done: progress("reading", done, None))


def _analysis(
    model: str | None, sample: Sample | None, device: str, progress: Progress
) -> Analysis:
    """The analysis of a model, of data, or of both."""
    from recinet_ase.analysis import report

    if model is None:
        assert sample is not None
        return report.analyse_data(sample)
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.pretrained import load_network, model_card

    if model_card(model).get("kind") == "forces":
        return report.analyse_force_model(model, sample)
    total = None if sample is None else len(sample)
    predictor = Predictor(load_network(model), device, intervals=False)
    return report.analyse_model(predictor, sample, lambda done: progress("crystals", done, total))


def main() -> None:
    """Entry point of ``recinet-analyze``."""
    analyze(prog_name="recinet-analyze")


if __name__ == "__main__":
    main()
