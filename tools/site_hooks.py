"""What mkdocs calls while it builds the site: the page of commands is made from the commands.

A line ``{{ commands }}`` in a page becomes the help of every command, so that the reference
cannot fall behind the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MARK = "{{ commands }}"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's text, with the commands in place of the mark."""
    if MARK not in markdown:
        return markdown
    return markdown.replace(MARK, "\n\n".join(sections()))


def sections() -> Iterator[str]:
    """A section of markdown for each command of ``recinet``."""
    import click

    from recinet_ase.cli.main import main

    for name in sorted(main.commands):
        command = main.commands[name]
        title = f"recinet {name}"
        context = click.Context(command, info_name=title, max_content_width=92)
        yield f"## {title}\n\n```text\n{command.get_help(context)}\n```"
