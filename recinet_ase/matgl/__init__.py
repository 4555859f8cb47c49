"""matgl, both ways: our graphs and networks in its tools, its graphs and networks on ours.

* `ReciNetGraphConverter`: our neighbour rules as one of matgl's graph converters;
* `ReciNetModel`: the network as one of matgl's models (its trainer, `matgl.load_model`);
* `from_matgl_graph`, `to_matgl_graph`: graphs there and back (these need no matgl).

matgl is an extra (``pip install "recinet-ase[matgl]"``) and is imported when one of the first two
is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recinet_ase.matgl.converter import ReciNetGraphConverter
    from recinet_ase.matgl.graphs import from_matgl_graph, to_matgl_graph
    from recinet_ase.matgl.model import ReciNetModel

_EXPORTS = {
    "ReciNetGraphConverter": "recinet_ase.matgl.converter",
    "ReciNetModel": "recinet_ase.matgl.model",
    "from_matgl_graph": "recinet_ase.matgl.graphs",
    "to_matgl_graph": "recinet_ase.matgl.graphs",
}

__all__ = ["ReciNetGraphConverter", "ReciNetModel", "from_matgl_graph", "to_matgl_graph"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
