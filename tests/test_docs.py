"""The documentation's statements: its blocks run, its commands parse, its links and lines hold."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from support import EXAMPLES, ROOT

from recinet_ase._version import __version__

PAGES = sorted(p.relative_to(ROOT) for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NEEDS = {"phonons.md": "phonopy", "integrations.md": "matgl"}
"""Extras without which the blocks of a page cannot run."""


DOWNLOADS = ("data.md", "evaluate.md")
"""Pages whose blocks read published data."""


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks of a page in one of the languages, without their indentation."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, flags=re.S | re.M)
    return [
        "\n".join(line[len(indent) :] for line in body.split("\n"))
        for indent, language, body in found
        if language in languages
    ]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=str)
def test_blocks_of_python_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    if page.name in DOWNLOADS and not os.environ.get("RECINET_DATA_DIR"):
        pytest.skip("needs the downloads (RECINET_DATA_DIR)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python"])
    (tmp_path / "crystals.json").write_bytes(EXAMPLES.read_bytes())
    space: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), space)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every line of shell in a page that calls one of the package's commands."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.split("\n"):
        found = re.match(r"(?:    |)(?:\S+=\S+ |.*&& )?(?:\S*/)?(recinet[-a-z]*) (.*)$", line)
        if found is None or line.lstrip().startswith(("|", "-", "<")):
            continue
        words = shlex.split(found[2], comments=True)
        if found[1] == "recinet":
            yield words
        else:
            yield [found[1].removeprefix("recinet-"), *words]


def test_commands_of_the_pages_parse() -> None:
    from recinet_ase.cli.main import main

    seen = 0
    for page in PAGES:
        for words in commands(page):
            if words[0] not in main.commands or "..." in words:
                assert words[0] in main.commands or not words[0].isidentifier(), (page, words)
                continue
            seen += 1
            command = main.commands[words[0]]
            try:
                command.make_context(words[0], words[1:])
            except click.exceptions.Exit:
                continue
            except click.ClickException as error:
                pytest.fail(f"{page}: recinet {shlex.join(words)}: {error.format_message()}")
    assert seen > 50


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_lines_end_before_column_100(page: Path) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").split("\n")
    plain = [x for x in lines if not re.match(r" *(\||!\[|    |<|python3 -m venv)", x)]
    assert [x for x in plain if len(x) > 100 and "](" not in x] == []


def test_links_lead_somewhere() -> None:
    broken = []
    for page in [*PAGES, Path("CONTRIBUTING.md"), Path("CHANGELOG.md")]:
        text = (ROOT / page).read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text)
        inside = [target for target in targets if "://" not in target]
        broken += [(page, t) for t in inside if not (ROOT / page.parent / t).exists()]
    assert broken == []


def test_every_page_is_in_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": (\S+\.md)$", nav, flags=re.M))
    assert listed == {p.relative_to("docs").as_posix() for p in PAGES if p.parts[0] == "docs"}


def test_the_page_of_commands_is_made_from_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import site_hooks

    text = site_hooks.on_page_markdown((ROOT / "docs/reference/cli.md").read_text(encoding="utf-8"))
    for name, option in [("screen", "--where"), ("train", "--recipe"), ("phonons", "--mesh")]:
        assert f"## recinet {name}" in text and option in text


def test_pages_are_made_from_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import site_hooks

    page = (ROOT / "docs/start/first-hour.md").read_text(encoding="utf-8")
    text = site_hooks.on_page_markdown(page)
    assert text.startswith("# The first hour\n") and "examples/first_hour.ipynb" in text
    assert "```python\n" in text and "](../howto/unrelaxed.md)" in text and "ipynb]" not in text


def test_the_citation_has_the_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in text


def test_the_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__}]" in text and "## [Unreleased]" in text
