"""``recinet-screen``: predict properties for files full of structures."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import click

from recinet_ase.cli.common import one_line_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from recinet_ase.screening.entries import Entry


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True)
@click.option("--props", help="Properties, comma-separated, e.g. bandgap,ehull.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Model name or folder; may be repeated. By default each property's own.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Result file (.csv, .jsonl, .parquet, .db, .json, .extxyz); csv on stdout if absent.",
)
@click.option(
    "--intervals",
    is_flag=True,
    help="Add 90 % intervals (PROP_low, PROP_high) and in_domain to the table.",
)
@click.option("--id-key", metavar="KEY", help="Take ids from this key of info/key_value_pairs.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--batch-size", default="auto", show_default=True, help="Crystals a batch.")
@one_line_errors
def screen(
    files: tuple[str, ...],
    props: str | None,
    models: tuple[str, ...],
    output: str | None,
    intervals: bool,
    id_key: str | None,
    device: str,
    batch_size: str,
) -> None:
    r"""Predict properties for every structure in FILES.

    FILES are ASE databases (.json, .db), anything else that ASE reads (extxyz, CIF,
    POSCAR, trajectories), json, csv or parquet tables with structures, or folders of such
    files, and may be quoted patterns such as 'cifs/*.cif'. The result has
    one row for each structure, in input order; a structure that no model can answer for
    gets its reason in the column "error".

    \b
    recinet-screen db.json --props bandgap,ehull
    recinet-screen 'cifs/*.cif' --model jarvis-mbj -o gaps.csv
    """
    from recinet_ase.errors import ReciNetError
    from recinet_ase.pretrained import model_properties
    from recinet_ase.properties import parse_properties
    from recinet_ase.screening.sources import find_sources, read_entries

    if not props and not models:
        raise ReciNetError("say what to predict: --props bandgap,ehull or --model NAME")
    known = [info for name in models for info in model_properties(name)] if props else []
    infos = parse_properties(props, known) if props else None
    size: int | str = "auto"
    if batch_size != "auto":
        if not (batch_size.isascii() and batch_size.isdigit() and int(batch_size)):
            raise ReciNetError(
                f"--batch-size must be 'auto' or a positive number, not {batch_size!r}"
            )
        size = int(batch_size)
    from recinet_ase.screening.writers import check_output, open_writer

    if output is not None:
        check_output(output)
    sources = find_sources(files)

    from recinet_ase.screening import engine

    predictor = engine.choose_predictor(infos, list(models), device, size, intervals)
    for line in engine.provenance(predictor):
        click.echo(line, err=True)
    units = {
        name: info.unit
        for info in predictor.infos
        for name in (info.name, f"{info.name}_low", f"{info.name}_high")
    }
    total = errors = without_key = 0
    waiting: deque[Entry] = deque()

    def entries() -> Iterator[Entry]:
        nonlocal without_key
        for entry in read_entries(sources, id_key):
            without_key += not entry.has_key
            waiting.append(entry)
            yield entry

    where = f" -> {output}" if output else ""
    try:
        with open_writer(output, engine.columns(predictor), units) as writer:
            for row in _with_progress(engine.screen(entries(), predictor)):
                writer.write(row, waiting.popleft())
                total += 1
                errors += bool(row["error"])
    except KeyboardInterrupt:
        click.echo(f"interrupted after {total} structures", err=True)
        raise SystemExit(130) from None
    if writer.left_out:
        click.echo(f"{writer.left_out} rows have no structure and are not in {output}", err=True)
    click.echo(f"{total} structures, {errors} with errors{where}", err=True)
    if without_key:
        click.echo(
            f"{without_key} structures have no key {id_key!r}; their ids are row ids or file#index",
            err=True,
        )


def _with_progress(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A live count and rate on a terminal; nothing where stderr is a file."""
    if not sys.stderr.isatty():
        yield from rows
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        "screening",
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("screening", total=None)
        for row in rows:
            progress.advance(task)
            yield row


def main() -> None:
    """Entry point of ``recinet-screen``."""
    screen(prog_name="recinet-screen")


if __name__ == "__main__":
    main()
