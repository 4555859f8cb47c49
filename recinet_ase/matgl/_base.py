"""matgl's base classes, or a message that says how to get them."""

from __future__ import annotations

try:
    from matgl.config import DEFAULT_ELEMENTS
    from matgl.graph.converters import GraphConverter
    from matgl.models import MatGLModel
except ImportError as error:
    raise ImportError(
        f"matgl 4 is needed here ({error}); it comes with the extra: "
        "pip install 'recinet-ase[matgl]'"
    ) from error

__all__ = ["DEFAULT_ELEMENTS", "GraphConverter", "MatGLModel"]
