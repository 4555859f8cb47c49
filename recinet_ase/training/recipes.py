"""Recipes: training settings in small files that a person can read and change.

A recipe is a TOML file with fields of `TrainingConfig`, those of the network in a
``[network]`` table. A file of ids to leave out lies beside it. The shipped ones lie in
``recinet_ase/training/recipes``: ``paper/*`` follow tables 7, 8 and 10 of the paper, the others
are the settings of the shipped models.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.nn.recinet import ReciNetConfig
from recinet_ase.training.config import TrainingConfig

RECIPES = Path(__file__).with_name("recipes")


def recipe_names() -> list[str]:
    """Names of the shipped recipes, e.g. ``"paper/jarvis-mbj"``."""
    return sorted(
        p.relative_to(RECIPES).with_suffix("").as_posix() for p in RECIPES.rglob("*.toml")
    )


def _recipe_path(name: str) -> Path:
    return Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"


def recipe_text(name: str) -> str:
    """The text of a recipe, given its name or the path of a ``.toml`` file.

    Raises:
        UnknownNameError: If there is neither a recipe nor a file of that name.
        ReciNetError: If there is no such file, or it is no text.
    """
    path = _recipe_path(name)
    if not path.is_file():
        if name.endswith(".toml"):
            raise ReciNetError(f"no such recipe: {path}")
        raise UnknownNameError("recipe", name, recipe_names())
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ReciNetError(f"{path} is not a text file ({error})") from None


def load_recipe(name: str) -> dict[str, Any]:
    """Settings of a recipe, as keyword arguments of `TrainingConfig`.

    Args:
        name: A shipped recipe's name, or the path of a ``.toml`` file.

    Raises:
        UnknownNameError: If there is neither a recipe nor a file of that name.
        ReciNetError: If the file is no recipe; the wrong setting is named.
    """
    try:
        settings = tomllib.loads(recipe_text(name))
    except tomllib.TOMLDecodeError as error:
        raise ReciNetError(f"{name} is not a TOML file ({error})") from None
    network = settings.pop("network", {})
    if not isinstance(network, dict):
        raise ReciNetError(f"network in {name} must be a table, [network]")
    from recinet_ase.forces.network import ForceNetworkConfig
    from recinet_ase.forces.settings import ForceTrainingConfig

    barred = {"version", "recipe", "network", "kind"}
    if "forces" in settings.get("properties", ()):
        _check(settings, ForceTrainingConfig, barred, name)
        _check(network, ForceNetworkConfig, set(), f"[network] of {name}")
    else:
        _check(settings, TrainingConfig, barred, name)
        _check(network, ReciNetConfig, {"outputs"}, f"[network] of {name}")
    for key, value in settings.items():
        if isinstance(value, list):
            settings[key] = tuple(value)
    if "leave_out" in settings:  # a file beside the recipe
        settings["leave_out"] = str(_recipe_path(name).parent / settings["leave_out"])
    return {**settings, "network": tuple(network.items()), "recipe": name}


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "bool": (bool,), "int": (int,), "float": (float, int), "tuple": (list,),
}  # fmt: skip


def _check(settings: dict[str, Any], owner: type, barred: set[str], where: str) -> None:
    """Refuse settings that ``owner`` does not have, or of the wrong kind."""
    kinds = {f.name: str(f.type).split(" ")[0].split("[")[0] for f in fields(owner)}
    known = kinds.keys() - barred
    for key, value in settings.items():
        if key not in known:
            raise UnknownNameError(f"setting in {where}", key, known)
        wanted = _KINDS[kinds[key]]
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            kind = "list" if list in wanted else kinds[key]
            raise ReciNetError(f"{key} in {where} must be of type {kind}, not {value!r}")
