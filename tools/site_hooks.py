"""What mkdocs calls while it builds the site, so that pages cannot fall behind the program.

A line ``{{ commands }}`` in a page becomes the help of every command, and
``{{ notebook NAME }}`` the cells of a notebook in ``examples/``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMANDS = "{{ commands }}"
NOTEBOOK = re.compile(r"\{\{ notebook (\S+) \}\}")
EXAMPLES = Path(__file__).parents[1] / "examples"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's text, with commands and notebooks in place of the marks."""
    markdown = NOTEBOOK.sub(lambda found: notebook(found[1]), markdown)
    if COMMANDS not in markdown:
        return markdown
    return markdown.replace(COMMANDS, "\n\n".join(sections()))


def notebook(name: str) -> str:
    """The cells of a notebook as markdown; links into docs/ become those between pages."""
    cells = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))["cells"]
    parts = [f"As a notebook to run: `examples/{name}`."]
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, parts[0:2] = parts[1].partition("\n")[0], [parts[0], parts[1].partition("\n")[2]]
    text = "\n\n".join([title, *parts]).replace("](../docs/", "](../")
    return re.sub(r"\[([^]]+\.ipynb)\]\([^)]+\)", r"`examples/\1`", text)


def sections() -> Iterator[str]:
    """A section of markdown for each command of ``recinet``."""
    import click

    from recinet_ase.cli.main import main

    for name in sorted(main.commands):
        command = main.commands[name]
        title = f"recinet {name}"
        context = click.Context(command, info_name=title, max_content_width=92)
        yield f"## {title}\n\n```text\n{command.get_help(context)}\n```"
