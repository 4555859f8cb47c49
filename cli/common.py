"""What all commands share: how a wrong call ends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the package's own errors into one line on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from recinet_ase.errors import ReciNetError

        try:
            return command(*args, **kwargs)
        except BrokenPipeError:  # the reader has left (`| head`): click ends without a word
            raise
        except (ReciNetError, OSError) as error:
            click.echo(f"error: {printable(' '.join(str(error).split()))}", err=True)
            raise SystemExit(2) from None

    return wrapper


def printable(text: str) -> str:
    """Text from people's files, without what a terminal would obey."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
