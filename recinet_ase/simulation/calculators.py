"""Calculators by name: shipped force models, ASE's own, one's own classes."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.models.ensemble_files import SUFFIX


def load_calculator(name: str | None = None, device: str = "auto") -> Any:
    """A calculator that gives forces.

    Args:
        name: A shipped force model (``"mlearn-pes"``; by default the one for every element,
            `recinet_ase.pretrained.default_force_model`) or a model folder; a calculator that ASE
            knows by name and that needs no settings (``"emt"``); or ``"module:Class"`` (also a
            function without arguments, or a calculator) from an installed package or a file
            in the working directory. The module is imported: name only what you trust.
        device: Torch device of a force model.

    Returns:
        An ASE calculator.

    Raises:
        UnknownNameError: If nothing goes by that name; the nearest are suggested.
        ReciNetError: If it gives no forces, or cannot be made.
    """
    from recinet_ase.pretrained import (
        available_force_models,
        available_models,
        default_force_model,
    )

    if name is None:
        name = default_force_model()
    if name.endswith(SUFFIX) and not _may_be_module(name.removesuffix(SUFFIX)):
        return _model(name, device)
    if ":" in name:
        return _with_forces(_imported(name), name)
    shipped = available_force_models()
    if name in (*shipped, *available_models()) or Path(name).is_dir():
        return _model(name, device)
    from ase.calculators.calculator import get_calculator_class, names

    if name.lower() not in names:
        raise UnknownNameError("calculator", name, [*shipped, *sorted(names)])
    try:
        calculator = get_calculator_class(name.lower())()
    except Exception as error:
        raise ReciNetError(
            f"ASE's calculator {name!r} cannot be made without settings ({error}); write a "
            "function that makes it and name that as module:function"
        ) from None
    return _with_forces(calculator, name)


def _may_be_module(name: str) -> bool:
    """Whether ``name:ensemble`` may mean the attribute ``ensemble`` of a module."""
    return not Path(name).is_dir() and all(part.isidentifier() for part in name.split("."))


def _model(name: str, device: str) -> Any:
    """The calculator of a force model, by name or folder."""
    from recinet_ase.forces.calculator import ReciNetForceCalculator
    from recinet_ase.models.files import refuse_properties
    from recinet_ase.pretrained import model_card

    refuse_properties(model_card(name), name)  # before torch is loaded
    return ReciNetForceCalculator(name, device=device)


def _imported(name: str) -> Any:
    """What ``module:attribute`` names, made into a calculator."""
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # an installed command does not look into the working directory
    try:
        found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ReciNetError(f"no calculator {name!r}: {error}") from None
    finally:
        sys.path.remove(here)
    if isinstance(found, type) or not hasattr(found, "get_property"):
        try:
            with redirect_stdout(sys.stderr):  # CHGNet's prints what it is, into our tables
                found = found()
        except Exception as error:
            raise ReciNetError(
                f"{name} cannot be made without arguments ({error}); write a function that makes "
                "the calculator and name that"
            ) from error
    return found


def _with_forces(calculator: Any, name: str) -> Any:
    if not hasattr(calculator, "get_property"):
        raise ReciNetError(f"{name} is no ASE calculator ({type(calculator).__name__})")
    if "forces" not in getattr(calculator, "implemented_properties", ["forces"]):
        raise ReciNetError(
            f"{name} gives no forces; use a shipped force model or your own calculator"
        )
    return calculator
