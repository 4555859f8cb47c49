"""``recinet-phonons``: phonons of a crystal with any calculator that gives forces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recinet_ase.cli.common import Joined, StrictCommand, one_line_errors
from recinet_ase.cli.progress import ScreenDisplay, stages_display

_TABLES = (".csv", ".jsonl", ".parquet")


@click.command(cls=StrictCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--model",
    metavar="NAME",
    help="Shipped force model, or a model folder; jarvis-pes by default.",
)
@click.option(
    "--calculator",
    metavar="NAME",
    help="Instead: a calculator of ASE's (emt) or your own (module:Class).",
)
@click.option(
    "-o",
    "--output",
    metavar="DIR|FILE",
    help="Result folder, else phonons-STRUCTURE; or a table of all FILES: .csv, .jsonl, .parquet.",
)
@click.option("--no-relax", is_flag=True, help="Take the structure as it is (made symmetric).")
@click.option("--fixed-cell", is_flag=True, help="Relax positions only.")
@click.option(
    "--fmax",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Largest force left by the relaxation, eV/A.",
)
@click.option("--max-steps", type=click.IntRange(1), default=500, show_default=True)
@click.option(
    "--symprec",
    type=float,
    default=1e-2,
    show_default=True,
    help="Tolerance of the symmetry, A.",
)
@click.option(
    "--supercell",
    nargs=3,
    type=click.IntRange(1),
    metavar="A B C",
    help="Repetitions of the conventional cell; by default as --min-length asks.",
)
@click.option(
    "--min-length",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Least length of the supercell's vectors, A.",
)
@click.option(
    "--max-atoms",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Largest supercell, atoms.",
)
@click.option(
    "--distance", type=float, default=0.01, show_default=True, help="Displacement of an atom, A."
)
@click.option(
    "--mesh",
    type=float,
    default=80.0,
    show_default=True,
    help="Length that sets the density of wave vectors, A (phonopy).",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, ... for --model.")
@click.option("--overwrite", is_flag=True, help="Drop another calculation in the folder.")
@click.option("--select", cls=Joined, metavar="TEXT", help="ASE selection for databases (table).")
@click.option("--resume", is_flag=True, help="Go on with the table of an earlier run.")
@click.option(
    "--workers", type=click.IntRange(0), help="Processes for a table; one a core by default."
)
@click.option("-q", "--quiet", is_flag=True, help="Warnings and errors only.")
@one_line_errors
def phonons(files: tuple[str, ...], **options: Any) -> None:
    """Phonons of the crystal in a file, or of every structure in FILES.

    Symmetrise, relax, displace atoms, compute forces, and write band structure, density of
    states and thermal properties (plots and csv), phonopy.yaml for phonopy itself, the relaxed
    structure and a summary. Forces are kept as they come: the same line goes on after a stop.

    With a table as output FILES are any input of recinet-screen, and every structure gives one
    row: lowest and highest mode, heat capacity at 300 K, or its error; --resume goes on.

    \b
    recinet-phonons Si.cif --model mlearn-pes
    recinet-phonons Cu.cif --calculator emt --supercell 3 3 3 -o copper
    recinet-phonons POSCAR --calculator mymodule:make_calculator
    recinet-phonons crystals.db 'cifs/*.cif' -o phonons.csv
    """  # noqa: D301 (click looks for the character itself)
    from recinet_ase.errors import ReciNetError

    if options["calculator"] and options["model"]:
        raise ReciNetError("give --model or --calculator, not both")
    table = Path(options["output"] or "").suffix in _TABLES
    if len(files) > 1 and not table:
        raise ReciNetError("several inputs make a table: name it, as in -o phonons.csv")
    if not table and not Path(files[0]).exists():
        raise ReciNetError(f"no such file: {files[0]}")
    from recinet_ase.phonons.harmonic import require_phonopy

    require_phonopy()
    from recinet_ase.pretrained import default_force_model

    name = options["calculator"] or options["model"] or default_force_model()
    settings = {
        key: options[key]
        for key in (
            "fmax", "max_steps", "symprec", "supercell", "min_length", "max_atoms", "distance",
            "mesh",
        )
    }  # fmt: skip
    settings |= {"relax": not options["no_relax"], "relax_cell": not options["fixed_cell"]}
    (_table if table else _one)(files, name, settings, options)


def _one(
    files: tuple[str, ...], name: str, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    """Phonons of one structure into a folder."""
    from recinet_ase.io import read_structure
    from recinet_ase.phonons import load_calculator
    from recinet_ase.phonons import phonons as calculate

    calculator = load_calculator(name, options["device"])
    atoms = read_structure(Path(files[0]))
    folder = Path(options["output"] or f"phonons-{Path(files[0]).stem}")
    with stages_display(options["quiet"]) as (message, progress):
        result = calculate(
            atoms,
            calculator,
            folder=folder,
            name=name,
            progress=progress,
            message=message,
            overwrite=options["overwrite"],
            **settings,
        )
        result.write(folder)
        message(f"highest frequency {result.highest_frequency:.2f} THz; all files in {folder}")
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)


def _table(
    files: tuple[str, ...], name: str, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    """Phonons of many structures into a table."""
    from recinet_ase.phonons import load_calculator
    from recinet_ase.phonons.many import phonon_table

    load_calculator(name, "cpu")  # what cannot be made ends here, not in every row
    display = ScreenDisplay(options["quiet"], None, "phonons")
    try:
        rows, errors = phonon_table(
            files,
            options["output"],
            name,
            settings,
            display,
            selection=options["select"],
            device=options["device"],
            workers=options["workers"],
            resume=options["resume"],
        )
    except KeyboardInterrupt:
        click.echo(f"interrupted after {display.done:,} structures; go on with --resume", err=True)
        raise SystemExit(130) from None
    display.note(f"{rows} structures, {errors} with errors -> {options['output']}")
    if rows and errors == rows:
        raise SystemExit(1)


def main() -> None:
    """Entry point of ``recinet-phonons``."""
    phonons(prog_name="recinet-phonons")


if __name__ == "__main__":
    main()
