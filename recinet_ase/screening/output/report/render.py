"""The page from its template."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from recinet_ase.screening.output.report.markup import formula, link, mixture
from recinet_ase.stability.phases import describe


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
    environment.filters["formula"] = formula
    environment.filters["mixture"] = mixture
    environment.filters["described"] = describe
    environment.filters["link"] = link
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
