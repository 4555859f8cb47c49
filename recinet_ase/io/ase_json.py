"""ASE's json, decoded with checks.

ASE's own decoder allocates whatever shape an array claims, and makes objects of several
classes by the name that stands in the text.
"""

from __future__ import annotations

import json
import math
from typing import Any

from recinet_ase.errors import ReciNetError

_OBJECTS = ("cell",)  # every other named object stays a dictionary
_MAXIMUM_SIZE = 100_000_000
_DTYPES = "biufcU"  # no objects


def decode(text: str) -> Any:
    """What ``ase.io.jsonio.decode`` gives, for numbers, arrays and cells.

    Raises:
        ValueError: If it is not valid json.
        ReciNetError: If an array does not hold what it claims.
    """
    from ase.io.jsonio import fix_int_keys_in_dicts, numpyfy

    return numpyfy(fix_int_keys_in_dicts(json.loads(text, object_hook=_hook)))


def _hook(dct: dict[str, Any]) -> Any:
    from ase.io.jsonio import object_hook

    if "__ndarray__" in dct:
        return _array(dct["__ndarray__"])
    if "__ase_objtype__" in dct and dct["__ase_objtype__"] not in _OBJECTS:
        return {k: v for k, v in dct.items() if k != "__ase_objtype__"}
    return object_hook(dct)


def _array(fields: Any) -> Any:
    """An array that holds as many plain numbers as it claims."""
    import numpy as np
    from ase.io.jsonio import create_ndarray

    try:
        shape, name, data = fields
        dtype = np.dtype(str(name))
        claimed = math.prod(int(n) for n in shape)
        held = len(data) // (2 if dtype.kind == "c" else 1)
    except (TypeError, ValueError) as error:
        raise ReciNetError(f"an array is damaged ({error})") from None
    if dtype.kind not in _DTYPES or claimed != held or claimed > _MAXIMUM_SIZE:
        raise ReciNetError(f"an array of shape {shape} and type {dtype} holds {held} numbers")
    return create_ndarray(shape, dtype, data)
