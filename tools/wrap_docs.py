"""Wrap the text of the pages before column 100; tables, code and headings stay.

python tools/wrap_docs.py            # all pages
python tools/wrap_docs.py --check    # only say which would change
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 99
_ITEM = re.compile(r"( *)([-*+:]|\d+[.)]) +")
_FIXED = re.compile(r" *(\||#|>|<|!\[|```|\{\{|:::)")
_MARKER = re.compile(r"([-+*#>|=]|\d+[.)])$")  # would begin an item, a heading, a table


def pages() -> list[Path]:
    """The README, the files beside it and everything in docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def wrap(text: str) -> str:
    """The page with its long paragraphs and list items filled anew."""
    blocks = _blocks(text.split("\n"))
    return "\n".join(
        line for block, fixed in blocks for line in (block if fixed else _filled(block))
    )


def _blocks(lines: Iterable[str]) -> Iterator[tuple[list[str], bool]]:
    """Paragraphs and list items; every other line is a block of its own that stays as it is."""
    block: list[str] = []
    fenced = code = False
    blank = True
    item = False
    for line in lines:
        if line.lstrip().startswith("```"):
            fenced = not fenced
        # An indented line after a blank one is code, but for what continues a list.
        code = line.startswith("    ") and (code or (blank and not item))
        fixed = fenced or code or not line.strip() or _FIXED.match(line) is not None
        starts = _ITEM.match(line) is not None and not (fenced or code)
        if fixed or starts:
            if block:
                yield block, False
            block = []
        if fixed:
            yield [line], True
        else:
            block.append(line)
        blank = not line.strip()
        item = starts or (item and (blank or line.startswith(" ")))
    if block:
        yield block, False


def _filled(block: list[str]) -> list[str]:
    """A block with lines of at most `WIDTH`, as it stands where it has no longer one."""
    if all(len(line) <= WIDTH for line in block):
        return block
    first = _ITEM.match(block[0])
    lead = first[0] if first else re.match(" *", block[0])[0]  # type: ignore[index]
    rest = " " * len(lead)
    words: list[str] = []
    for word in " ".join([block[0][len(lead) :], *block[1:]]).split():
        if words and _MARKER.match(word):
            words[-1] += f" {word}"
        else:
            words.append(word)
    lines = [lead + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append(rest + word)
        else:
            lines[-1] += f" {word}"
    return lines


def main() -> None:
    """Wrap the pages, or name those that would change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    changed = [(p, new) for p in pages() if (new := wrap(old := p.read_text("utf-8"))) != old]
    for page, new in changed:
        print(page.relative_to(ROOT))
        if not check:
            page.write_text(new, encoding="utf-8")
    sys.exit(1 if check and changed else 0)


if __name__ == "__main__":
    main()
