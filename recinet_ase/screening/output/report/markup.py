"""Formulas, ids, decompositions and space groups as html."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

from recinet_ase.stability.phases import Component


def formula(text: str | None) -> Markup:
    """A formula with its numbers as subscripts."""
    return Markup(re.sub(r"(\d+)", r"<sub>\1</sub>", str(escape(text or ""))))


_PAGES = (
    (re.compile(r"JVASP-\d+"), "https://www.ctcms.nist.gov/~knc6/static/JARVIS-DFT/{}.xml"),
    (re.compile(r"mp-\d+"), "https://materialsproject.org/materials/{}"),
)
"""Ids of public databases, and where their pages are."""


def link(identity: Any) -> Markup:
    """An id, as a link where it is that of a public database."""
    text = str(identity)
    for pattern, address in _PAGES:
        if pattern.fullmatch(text):
            found = Markup('<a href="{}" rel="noreferrer" target="_blank">{}</a>')
            return found.format(address.format(text), text)
    return escape(text)


def mixture(components: Iterable[Component]) -> Markup:
    """A decomposition as `describe` gives it, the numbers of its formulas as subscripts."""
    parts = []
    for part in components:
        known = Markup("<small> [{}]</small>").format(link(part.phase.id)) if part.phase.id else ""
        parts.append(Markup("{:.2f} {}{}").format(part.moles, formula(part.phase.formula), known))
    return Markup(" + ").join(parts)


def group_symbol(symbol: str) -> Markup:
    """``P-42_1m`` with an overline and a subscript."""
    text = str(escape(symbol))
    text = re.sub(r"-(\d)", r'<span class="bar">\1</span>', text)
    return Markup(re.sub(r"_(\d)", r"<sub>\1</sub>", text))
