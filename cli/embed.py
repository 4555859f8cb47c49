"""``recinet embed``: representations of crystals, and the nearest known ones."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click

from recinet_ase.cli.common import StrictCommand, one_line_errors
from recinet_ase.cli.progress import stages_display


@click.command(cls=StrictCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True)
@click.option("--model", default="jarvis-eform", show_default=True, help="Model name or folder.")
@click.option("-o", "--output", metavar="FILE", help="Write the representations: .npz.")
@click.option(
    "--nearest",
    metavar="FILE",
    help="An .npz of known crystals by the same model: list the nearest of each structure.",
)
@click.option(
    "--count", type=click.IntRange(1), default=5, show_default=True, help="Neighbours to list."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@one_line_errors
def embed(
    files: tuple[str, ...],
    model: str,
    output: str | None,
    nearest: str | None,
    count: int,
    device: str,
    quiet: bool,
) -> None:
    """Represent every structure in FILES by the numbers that MODEL makes of it.

    FILES are any input of recinet-screen. The .npz holds "vectors" (structures by features,
    float32), "ids", "formulas", "errors", and which model they are of. With --nearest a csv on
    standard output names the nearest known crystals of each structure.

    \b
    recinet embed known.db -o known.npz
    recinet embed candidates.db --nearest known.npz --count 3
    """  # noqa: D301 (click looks for the character itself)
    from recinet_ase.errors import ReciNetError

    if output is None and nearest is None:
        raise ReciNetError("say where to: -o FILE.npz, or --nearest KNOWN.npz")
    if output is not None and Path(output).suffix != ".npz":
        raise ReciNetError(f"representations are written as .npz, not {output!r}")
    from recinet_ase.analysis.sample import file_entries
    from recinet_ase.inference.embed import Embeddings
    from recinet_ase.inference.predictor import Predictor

    known = None if nearest is None else Embeddings.load(nearest)
    with stages_display(quiet) as (message, progress):
        progress("loading", 0, None)
        predictor = Predictor(model, device, intervals=False)
        (name,) = {m.config.name for m in predictor.properties.values()}

        def counted():  # type: ignore[no-untyped-def]
            for done, entry in enumerate(file_entries(files), 1):
                progress("embedding", done, None)
                yield entry

        table = predictor.embeddings(counted(), name)
        failed = sum(bool(error) for error in table.errors)
        if output is not None:
            table.save(output)
        shape = " x ".join(str(n) for n in table.vectors.shape)
        message(f"{name}: {shape} numbers, {failed} with errors{f' -> {output}' if output else ''}")
    if known is not None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("id", "formula", "rank", "known_id", "known_formula", "distance", "error"))
        for i, pairs in enumerate(table.nearest(known, count)):
            here = (table.ids[i], table.formulas[i])
            for rank, (j, distance) in enumerate(pairs, 1):
                there = (known.ids[j], known.formulas[j])
                writer.writerow((*here, rank, *there, f"{distance:.4g}", ""))
            if not pairs:
                writer.writerow((*here, "", "", "", "", table.errors[i]))


def main() -> None:
    """``recinet-embed``, for those who call the module."""
    embed(prog_name="recinet embed")


if __name__ == "__main__":
    main()
