"""The page from its template, and how it writes formulas, ids and decompositions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape


def render(context: Mapping[str, Any], data: Any) -> str:
    """The page from its template, with style, script and data in it."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("recinet_ase.screening.output.report")
    style, script = ((folder / name).read_text("utf-8") for name in ("style.css", "script.js"))
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
    )
    environment.filters["formula"] = _formula
    environment.filters["formula_of_mixture"] = _mixture
    environment.filters["link"] = _link
    environment.filters["short"] = lambda value: f"{value:.4g}" if value == value else ""
    return environment.get_template("page.html").render(
        context,
        style=Markup(style),
        script=Markup(script),
        # Nothing but these two runs or styles, whatever an id contains.
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=_json(data),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data: Any) -> Markup:
    """Json that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _formula(text: str | None) -> Markup:
    """A formula with its numbers as subscripts."""
    return Markup(re.sub(r"(\d+)", r"<sub>\1</sub>", str(escape(text or ""))))


_PAGES = (
    (re.compile(r"JVASP-\d+"), "https://www.ctcms.nist.gov/~knc6/static/JARVIS-DFT/{}.xml"),
    (re.compile(r"mp-\d+"), "https://materialsproject.org/materials/{}"),
)
"""Ids of public databases, and where their pages are."""


def _link(identity: Any) -> Markup:
    """An id, as a link where it is that of a public database."""
    text = str(identity)
    for pattern, address in _PAGES:
        if pattern.fullmatch(text):
            found = Markup('<a href="{}" rel="noreferrer" target="_blank">{}</a>')
            return found.format(address.format(text), text)
    return escape(text)


def _mixture(text: str) -> Markup:
    """A decomposition, the numbers of its formulas as subscripts."""
    parts = []
    for part in filter(None, text.split(" + ")):
        share, _, rest = part.partition(" ")
        formula, _, name = rest.partition(" ")
        parts.append(f"{share} {_formula(formula)}<small> {escape(name)}</small>")
    return Markup(" + ").join(map(Markup, parts))


def group_symbol(symbol: str) -> Markup:
    """``P-42_1m`` with an overline and a subscript."""
    text = str(escape(symbol))
    text = re.sub(r"-(\d)", r'<span class="bar">\1</span>', text)
    return Markup(re.sub(r"_(\d)", r"<sub>\1</sub>", text))
