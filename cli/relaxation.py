"""``recinet relax``: structures of any input, relaxed."""

from __future__ import annotations

from typing import Any

import click

from recinet_ase.cli.common import Joined, StrictCommand, one_line_errors, printable
from recinet_ase.cli.progress import ScreenDisplay

_SHOWN = 20  # of the structures that are left out


@click.command(
    name="relax", cls=StrictCommand, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="Result: .extxyz, .db or .json (ASE), a table, or a folder for CIF files (no suffix).",
)
@click.option(
    "--model", metavar="NAME", help="Shipped force model, or a model folder; jarvis-pes by default."
)
@click.option(
    "--relax-with",
    metavar="MODULE:CLASS",
    help="Instead: any calculator of ASE's, e.g. chgnet.model.dynamics:CHGNetCalculator.",
)
@click.option("--fixed-cell", is_flag=True, help="Relax positions only.")
@click.option("--no-symmetry", is_flag=True, help="Do not keep the space group.")
@click.option(
    "--fmax",
    type=click.FloatRange(0, min_open=True),
    default=0.02,
    show_default=True,
    help="Largest force left, eV/A (of the stress: eV an atom).",
)
@click.option(
    "--steps",
    type=click.IntRange(0),
    default=300,
    show_default=True,
    help="Steps after which a structure is given up.",
)
@click.option("--id-key", metavar="KEY", help="Take ids from this key of info/key_value_pairs.")
@click.option(
    "--select", cls=Joined, metavar="TEXT", help="ASE selection for databases, e.g. 'natoms<20,Li'."
)
@click.option("--structure-column", metavar="NAME", help="Column that holds the structures.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run of this line stopped.")
@click.option("--workers", type=click.IntRange(0), help="Processes; one a core by default.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@one_line_errors
def relax(files: tuple[str, ...], output: str, **options: Any) -> None:
    """Relax every structure in FILES, many at a time.

    FILES are any input of recinet-screen. Positions and cell come to rest with the space group
    kept. Each structure of the output has its energy per atom, the change of its volume, the
    steps, and whether it is at rest ("relaxed"); one that exploded, collapsed, or holds an
    element that the model lacks is left out and listed with its reason in OUT.left_out.csv.

    \b
    recinet relax candidates.db --model mlearn-pes -o relaxed.extxyz
    recinet relax 'cifs/*.cif' --relax-with chgnet.model.dynamics:CHGNetCalculator -o relaxed
    recinet relax candidates.db -o relaxed.db --resume
    """  # noqa: D301 (click looks for the character itself)
    from recinet_ase.errors import ReciNetError
    from recinet_ase.screening.relaxation import RelaxationSpec
    from recinet_ase.screening.relaxed_files import relax_files
    from recinet_ase.simulation.relaxation import RelaxationSettings

    model, other = options["model"], options["relax_with"]
    if model and other:
        raise ReciNetError("give --model or --relax-with, not both")
    settings = RelaxationSettings(
        fmax=options["fmax"],
        max_steps=options["steps"],
        cell=not options["fixed_cell"],
        symmetry=not options["no_symmetry"],
    )
    display = ScreenDisplay(options["quiet"], None, "relaxing")
    try:
        found = relax_files(
            files,
            output,
            RelaxationSpec.chosen(model or other, settings),
            display,
            selection=options["select"],
            structure_column=options["structure_column"],
            **{name: options[name] for name in ("id_key", "device", "workers", "resume")},
        )
    except KeyboardInterrupt:
        click.echo(f"interrupted after {display.done:,} structures; go on with --resume", err=True)
        raise SystemExit(130) from None
    for name, formula, reason in found.left_out[:_SHOWN]:
        click.echo(printable(f"{name} ({formula or 'unreadable'}): {reason}"), err=True)
    if len(found.left_out) > _SHOWN:
        click.echo(f"... and {len(found.left_out) - _SHOWN:,} more", err=True)
    if found.listing:
        display.note(f"{len(found.left_out)} structures are left out; reasons in {found.listing}")
    if found.unfinished:
        display.note(f"{found.unfinished} did not come to rest (relaxed is false in {output})")
    display.note(f"{found.written} of {found.rows} structures -> {output}")
    if found.rows and not found.written:
        raise SystemExit(1)
