"""``recinet recipes``: settings that ``recinet-train --recipe`` knows by name."""

from __future__ import annotations

import re
from itertools import takewhile

import click

from recinet_ase.cli.common import StrictCommand, one_line_errors


@click.command(cls=StrictCommand)
@click.argument("name", required=False)
@one_line_errors
def recipes(name: str | None) -> None:
    """List the training recipes, or print the one called NAME."""
    from recinet_ase.training.recipes import recipe_names, recipe_text

    if name is not None:
        click.echo(recipe_text(name), nl=False)
        return
    width = max(map(len, recipe_names()))
    for known in recipe_names():
        click.echo(f"{known.ljust(width)}  {_title(recipe_text(known))}")


def _title(text: str) -> str:
    """The first sentence of a recipe's comment."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=\.) (?=[A-Z])", comment)[0]
