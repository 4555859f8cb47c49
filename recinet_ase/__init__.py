"""ReciNet for the atomistic world: property estimates of crystals in ASE, pymatgen and matgl.

Importing this package is cheap: torch, ASE and pymatgen are loaded when the
first object that needs them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recinet_ase._lazy import exports
from recinet_ase._version import __version__

if TYPE_CHECKING:
    from recinet_ase.calculator import ReciNetCalculator
    from recinet_ase.errors import ReciNetError, StructureError, UnknownNameError
    from recinet_ase.forces.calculator import ReciNetForceCalculator
    from recinet_ase.inference.annotate import annotate, key_value_pairs
    from recinet_ase.inference.predict import predict, predict_structure
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.pretrained import (
        available_ensembles,
        available_force_models,
        available_models,
        load_force_model,
        load_model,
    )
    from recinet_ase.properties import PROPERTIES, get_property_info

_EXPORTS = {
    "annotate": "inference.annotate",
    "key_value_pairs": "inference.annotate",
    "predict": "inference.predict",
    "predict_structure": "inference.predict",
    "ReciNetCalculator": "calculator",
    "ReciNetForceCalculator": "forces.calculator",
    "Predictor": "inference.predictor",
    "available_ensembles": "pretrained",
    "available_force_models": "pretrained",
    "available_models": "pretrained",
    "load_force_model": "pretrained",
    "load_model": "pretrained",
    "PROPERTIES": "properties",
    "get_property_info": "properties",
    "ReciNetError": "errors",
    "StructureError": "errors",
    "UnknownNameError": "errors",
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

__getattr__, __dir__ = exports(__name__, _EXPORTS)
