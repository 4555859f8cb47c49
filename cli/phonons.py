"""``recinet-phonons``: phonons of a crystal with any calculator that gives forces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recinet_ase.cli.common import StrictCommand, one_line_errors
from recinet_ase.cli.progress import stages_display


@click.command(cls=StrictCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("structure", type=click.Path(path_type=Path))
@click.option(
    "--model",
    metavar="NAME",
    default="mlearn-pes",
    show_default=True,
    help="Shipped force model, or a model folder.",
)
@click.option(
    "--calculator",
    metavar="NAME",
    help="Instead: a calculator of ASE's (emt) or your own (module:Class).",
)
@click.option("-o", "--output", metavar="DIR", help="Result folder, else phonons-STRUCTURE.")
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
@click.option("-q", "--quiet", is_flag=True, help="Warnings and errors only.")
@one_line_errors
def phonons(structure: Path, **options: Any) -> None:
    """Phonons of the crystal in the file STRUCTURE.

    Symmetrise, relax, displace atoms, compute forces, and write band structure, density of
    states and thermal properties (plots and csv), phonopy.yaml for phonopy itself, the relaxed
    structure and a summary. Forces are kept as they come: the same line goes on after a stop.

    \b
    recinet-phonons Si.cif --model mlearn-pes
    recinet-phonons Cu.cif --calculator emt --supercell 3 3 3 -o copper
    recinet-phonons POSCAR --calculator mymodule:make_calculator
    """  # noqa: D301 (click looks for the character itself)
    from click.core import ParameterSource

    from recinet_ase.errors import ReciNetError

    own = options["calculator"]
    context = click.get_current_context()
    if own and context.get_parameter_source("model") is ParameterSource.COMMANDLINE:
        raise ReciNetError("give --model or --calculator, not both")
    if not structure.exists():
        raise ReciNetError(f"no such file: {structure}")
    from recinet_ase.phonons.harmonic import require_phonopy

    require_phonopy()
    from recinet_ase.io import read_structure
    from recinet_ase.phonons import load_calculator
    from recinet_ase.phonons import phonons as calculate

    name = own or options["model"]
    calculator = load_calculator(name, options["device"])
    atoms = read_structure(structure)
    folder = Path(options["output"] or f"phonons-{structure.stem}")
    with stages_display(options["quiet"]) as (message, progress):
        result = calculate(
            atoms,
            calculator,
            relax=not options["no_relax"],
            relax_cell=not options["fixed_cell"],
            folder=folder,
            name=name,
            progress=progress,
            message=message,
            **{
                key: options[key]
                for key in (
                    "fmax", "max_steps", "symprec", "supercell", "min_length", "max_atoms",
                    "distance", "mesh", "overwrite",
                )
            },
        )  # fmt: skip
        result.write(folder)
        message(f"highest frequency {result.highest_frequency:.2f} THz; all files in {folder}")
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)


def main() -> None:
    """Entry point of ``recinet-phonons``."""
    phonons(prog_name="recinet-phonons")


if __name__ == "__main__":
    main()
