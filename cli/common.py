"""What all commands share: how a wrong call ends."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from itertools import pairwise, takewhile
from typing import Any, ParamSpec, TypeVar

import click

from recinet_ase._version import __version__

P = ParamSpec("P")
R = TypeVar("R")


class Joined(click.Option):
    """A comma-separated list; where the option is repeated its values add up.

    Of any other option the last one counts, as everywhere.
    """

    def __init__(self, *names: Any, **settings: Any) -> None:
        settings["multiple"] = True
        super().__init__(*names, **settings)

    def process_value(self, ctx: click.Context, value: Any) -> str | None:
        """All values as one text, None without any."""
        values = super().process_value(ctx, value)
        return ",".join(values) if values else None


class StrictCommand(click.Command):
    """A command with ``--version``, whose options do not take each other for values."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_version_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse ``--pareto --top 3``, which is no front of a column ``--top``.

        Raises:
            click.UsageError: For an option that lacks its value.
        """
        words = {word: p for p in self.get_params(ctx) for word in (*p.opts, *p.secondary_opts)}
        for word, following in pairwise(takewhile(lambda word: word != "--", args)):
            param = words.get(word)
            if isinstance(param, click.Option) and _takes_value(param) and following in words:
                raise click.UsageError(f"{word} needs a value, and {following} follows", ctx)
        return super().parse_args(ctx, args)


def _version_option() -> click.Parameter:
    """``--version``, with the name of the command that it is asked of."""

    @click.version_option(__version__)
    def bearer() -> None:
        pass

    option: click.Parameter = bearer.__click_params__[0]  # type: ignore[attr-defined]
    return option


def _takes_value(option: click.Option) -> bool:
    """Whether a value must follow (that of ``--unique`` may)."""
    return not (option.is_flag or option.count or isinstance(option.flag_value, str))


def open_standard_streams() -> None:
    """Give a program that was started with closed streams (``2>&-``, some daemons) empty ones.

    Else the next file that is opened takes their number, and messages are written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (for the program's life)


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the package's own errors into one line on stderr and exit code 2, Ctrl-C into 130."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        """The command, whose errors are one line."""
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:  # the reader has left (`| head`): click ends without a word
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise SystemExit(130) from None
        except (OSError, ValueError) as error:
            from recinet_ase.errors import ReciNetError

            if not isinstance(error, OSError | ReciNetError):
                raise
            click.echo(f"error: {printable(' '.join(str(error).split()))}", err=True)
            raise SystemExit(2) from None

    return wrapper


def printable(text: str) -> str:
    """Text from people's files, without what a terminal would obey."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
