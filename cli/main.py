"""The ``recinet`` command group."""

from __future__ import annotations

import click

from recinet_ase._version import __version__
from recinet_ase.cli.analyze import analyze
from recinet_ase.cli.calibrate import calibrate
from recinet_ase.cli.embed import embed
from recinet_ase.cli.evaluate import evaluate
from recinet_ase.cli.models import models
from recinet_ase.cli.phonons import phonons
from recinet_ase.cli.recipes import recipes
from recinet_ase.cli.relaxation import relax
from recinet_ase.cli.screen import screen
from recinet_ase.cli.train import train


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="recinet")
def main() -> None:
    """Property estimates for crystals with ReciNet."""


main.add_command(screen)
main.add_command(train)
main.add_command(evaluate)
main.add_command(calibrate)
main.add_command(analyze)
main.add_command(embed)
main.add_command(phonons)
main.add_command(relax)
main.add_command(models)
main.add_command(recipes)
