"""``recinet calibrate``: 90 % intervals and a domain for a model of one's own."""

from __future__ import annotations

import click

from recinet_ase.cli.common import StrictCommand, one_line_errors
from recinet_ase.cli.progress import stages_display


@click.command(cls=StrictCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, metavar="RUN...")
@click.option("--shipped", is_flag=True, help="All shipped models.")
@click.option("--table", "table_only", is_flag=True, help="Fit nothing, print the figures.")
@click.option("--dataset", metavar="PATH", help="Where own data is, if no more where it was.")
@click.option("--target", metavar="KEY", help="Key or column of the labels in own data.")
@click.option("--unit", help="Unit of the labels in own data.")
@click.option("--data-dir", metavar="DIR", help="Folder of the datasets, else RECINET_DATA_DIR.")
@one_line_errors
def calibrate(
    models: tuple[str, ...],
    shipped: bool,
    table_only: bool,
    dataset: str | None,
    target: str | None,
    unit: str | None,
    data_dir: str | None,
) -> None:
    """Fit 90 % intervals and a domain to a model's validation crystals.

    Each RUN is a model folder or the name of a shipped model. The calibration is written into the
    folder, its figures into the model's card. They are cross-fitted: every crystal is judged by
    a calibration that never saw it. `recinet-train` does this at the end of a run by itself.
    """
    from recinet_ase.errors import ReciNetError
    from recinet_ase.pretrained import available_ensembles, available_models
    from recinet_ase.uncertainty.calibrate import HEADER, table, write_section
    from recinet_ase.uncertainty.calibrate import calibrate as fit

    names = sorted([*available_models(), *available_ensembles()]) if shipped else list(models)
    if not names:
        raise ReciNetError("name a model folder, or give --shipped")
    click.echo(HEADER)
    for name in names:
        if table_only:
            write_section(name)
        else:
            with stages_display() as (_, progress):
                fit(name, data_dir, dataset, target, unit, progress)
        click.echo("\n".join(table(name)))
