"""matgl, both ways: our graphs and networks in its tools, its graphs and networks on ours.

* `ReciNetGraphConverter`: our neighbour rules as one of matgl's graph converters;
* `ReciNetModel`: the network as one of matgl's models (its trainer, `matgl.load_model`);
* `from_matgl_graph`, `to_matgl_graph`: graphs there and back (these need no matgl).

matgl is an extra (``pip install "recinet-ase[matgl]"``) and is imported when one of the first two
is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recinet_ase._lazy import exports

if TYPE_CHECKING:
    from recinet_ase.matgl.converter import ReciNetGraphConverter
    from recinet_ase.matgl.graphs import from_matgl_graph, to_matgl_graph
    from recinet_ase.matgl.model import ReciNetModel

_EXPORTS = {
    "ReciNetGraphConverter": "converter",
    "ReciNetModel": "model",
    "from_matgl_graph": "graphs",
    "to_matgl_graph": "graphs",
}

__all__ = ["ReciNetGraphConverter", "ReciNetModel", "from_matgl_graph", "to_matgl_graph"]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
