"""ReciNet for the atomistic world: property estimates of crystals in ASE, pymatgen and matgl.

Importing this package is cheap: torch, ASE and pymatgen are loaded when the
first object that needs them is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recinet_ase.annotations import annotate, key_value_pairs
    from recinet_ase.calculator import ReciNetCalculator
    from recinet_ase.errors import ReciNetError, StructureError, UnknownNameError
    from recinet_ase.forces.calculator import ReciNetForceCalculator
    from recinet_ase.prediction import predict, predict_structure
    from recinet_ase.predictor import Predictor
    from recinet_ase.pretrained import (
        available_ensembles,
        available_force_models,
        available_models,
        load_force_model,
        load_model,
    )
    from recinet_ase.properties import PROPERTIES, get_property_info

__version__ = "0.1.0"

_EXPORTS = {
    "annotate": "recinet_ase.annotations",
    "key_value_pairs": "recinet_ase.annotations",
    "predict": "recinet_ase.prediction",
    "predict_structure": "recinet_ase.prediction",
    "ReciNetCalculator": "recinet_ase.calculator",
    "ReciNetForceCalculator": "recinet_ase.forces.calculator",
    "Predictor": "recinet_ase.predictor",
    "available_ensembles": "recinet_ase.pretrained",
    "available_force_models": "recinet_ase.pretrained",
    "available_models": "recinet_ase.pretrained",
    "load_force_model": "recinet_ase.pretrained",
    "load_model": "recinet_ase.pretrained",
    "PROPERTIES": "recinet_ase.properties",
    "get_property_info": "recinet_ase.properties",
    "ReciNetError": "recinet_ase.errors",
    "StructureError": "recinet_ase.errors",
    "UnknownNameError": "recinet_ase.errors",
}

__all__ = [
    "PROPERTIES",
    "Predictor",
    "ReciNetCalculator",
    "ReciNetError",
    "ReciNetForceCalculator",
    "StructureError",
    "UnknownNameError",
    "__version__",
    "annotate",
    "available_ensembles",
    "available_force_models",
    "available_models",
    "get_property_info",
    "key_value_pairs",
    "load_force_model",
    "load_model",
    "predict",
    "predict_structure",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
