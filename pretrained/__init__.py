"""The models that come with the package: find them, verify them, load them.

Each model is a folder beside this file. Nothing is downloaded: a cluster node
without network loads the same weights as a workstation.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.models import ensemble_files
from recinet_ase.models.files import FORCES, refuse_properties
from recinet_ase.properties import get_property_info

if TYPE_CHECKING:
    import torch

    from recinet_ase.forces.model import ForceModel
    from recinet_ase.models.ensemble import AnyModel
    from recinet_ase.models.property_model import PropertyModel
    from recinet_ase.properties import PropertyInfo

_FOLDER = Path(__file__).parent


def available_models() -> list[str]:
    """Names of the shipped models of properties, sorted."""
    return [name for name in _shipped() if not _gives_forces(name)]


def available_ensembles() -> list[str]:
    """Names of the shipped ensembles (``"jarvis-eform:ensemble"``), sorted."""
    return [
        name + ensemble_files.SUFFIX
        for name in available_models()
        if ensemble_files.member_folders(_FOLDER / name / ensemble_files.FOLDER)
    ]


def available_force_models() -> list[str]:
    """Names of the shipped models of energies and forces, sorted."""
    return [name for name in _shipped() if _gives_forces(name)]


def _shipped() -> list[str]:
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def _gives_forces(name: str) -> bool:
    return model_card(name).get("kind") == FORCES


def model_folder(name_or_path: str | Path) -> Path:
    """The folder of a shipped model (by name) or of one's own (by path).

    Of an ensemble it is where its calibration and card are.

    Raises:
        UnknownNameError: If there is no such name; the nearest shipped ones are suggested.
        ReciNetError: If there is no such folder, or no model in it.
    """
    if str(name_or_path).endswith(ensemble_files.SUFFIX):
        return (
            _single_folder(str(name_or_path).removesuffix(ensemble_files.SUFFIX))
            / ensemble_files.FOLDER
        )
    return _single_folder(name_or_path)


def model_members(name_or_path: str | Path) -> list[Path]:
    """The folders of the networks behind a model: one, or those of an ensemble.

    Raises:
        UnknownNameError: If there is no such model.
        ReciNetError: If it is to be an ensemble and has no members.
    """
    folder = model_folder(name_or_path)
    if (folder / "config.json").is_file():
        return [folder]
    found = ensemble_files.member_folders(folder)
    if str(name_or_path).endswith(ensemble_files.SUFFIX):
        if not found:
            shipped = ", ".join(available_ensembles()) or "none"
            raise ReciNetError(
                f"there is no ensemble {name_or_path}: {folder} holds no member-2, member-3... "
                f"(shipped ensembles: {shipped})"
            )
        found = [folder.parent, *found]
    return found


def is_ensemble(name_or_path: str | Path) -> bool:
    """Whether a name or folder means several networks.

    Raises:
        UnknownNameError: If there is no such model.
        ReciNetError: If it is to be an ensemble and has no members.
    """
    return model_members(name_or_path) != [model_folder(name_or_path)]


def _single_folder(name_or_path: str | Path) -> Path:
    """The folder of a model of one network, or an error that says what is there instead."""
    if str(name_or_path) in _shipped():
        return _FOLDER / str(name_or_path)
    path = Path(name_or_path).expanduser()
    if (path / "config.json").is_file() or ensemble_files.member_folders(path):
        return path
    if path.is_dir() and str(name_or_path):
        raise ReciNetError(f"{path} is no model folder: it has no config.json")
    if path.is_file():
        raise ReciNetError(
            f"{path} is a file; name the folder that holds it ({path.parent}), if that is a model's"
        )
    if path.name != str(name_or_path):  # a path, which no shipped name is
        raise ReciNetError(f"no such model folder: {path}")
    known = [*_shipped(), *available_ensembles()]
    answering = {}  # a property in place of a model
    with suppress(UnknownNameError):
        info = get_property_info(str(name_or_path))
        if info.default_model:
            answering = {str(name_or_path).lower(): info.default_model}
    raise UnknownNameError("model", str(name_or_path), known, answering)


def model_card(name_or_path: str | Path) -> dict[str, Any]:
    """The parsed ``config.json`` of a model, without loading its weights (or torch).

    Of an ensemble it is what the members have in common
    (`recinet_ase.models.ensemble_files.merged_card`).
    """
    folders = model_members(name_or_path)
    cards = [_card(folder / "config.json") for folder in folders]
    if not is_ensemble(name_or_path):
        return cards[0]
    given = str(name_or_path)
    base = given.removesuffix(ensemble_files.SUFFIX)
    name = cards[0]["name"] + ensemble_files.SUFFIX if base != given else Path(given).name
    return ensemble_files.merged_card(name, model_folder(name_or_path), folders, cards)


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReciNetError(f"{path} is not a model configuration ({error})") from None
    if not isinstance(card, dict):
        raise ReciNetError(f"{path} is not a model configuration")
    return card


def model_properties(name_or_path: str | Path) -> list[PropertyInfo]:
    """What a model predicts, custom properties included, without loading its weights.

    Raises:
        UnknownNameError: If there is no such model.
        ReciNetError: If its configuration is broken.
    """
    from recinet_ase.properties import property_of

    card = model_card(name_or_path)
    _refuse_forces(card, name_or_path)
    try:
        pairs = zip(card["properties"], card["units"], strict=True)
        return [property_of(str(name), str(unit)) for name, unit in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise ReciNetError(
            f"{model_folder(name_or_path) / 'config.json'} is not a model configuration ({error})"
        ) from None


def default_model(info: PropertyInfo) -> str:
    """The shipped model that answers a property unless told otherwise.

    Raises:
        ReciNetError: If none is shipped yet.
    """
    shipped = available_models()
    if info.default_model in shipped:
        return info.default_model
    if "[" in info.name:
        base, _, source = info.name.partition("[")
        raise ReciNetError(
            f"{info.name} is a column where several models give {base}: name them with --model, "
            f"{source.removesuffix(']')} among them"
        )
    answers = sorted({p for name in shipped for p in model_card(name)["properties"]})
    why = ""
    if info.default_model:
        why = f" (its model {info.default_model!r} is not part of this release)"
    raise ReciNetError(
        f"no shipped model predicts {info.name!r}{why}; shipped models predict: "
        f"{', '.join(answers) or 'nothing'}. A model of your own is used with --model PATH"
    )


FORCE_MODEL = "jarvis-pes"
"""The force model for every element."""


def default_force_model() -> str:
    """The shipped force model that relaxes, vibrates and strains crystals unless told otherwise.

    Raises:
        ReciNetError: If it is not part of this release; says what the shipped ones know.
    """
    shipped = available_force_models()
    if FORCE_MODEL in shipped:
        return FORCE_MODEL
    from recinet_ase.elements import symbols

    known = "; ".join(
        f"{name} knows {', '.join(symbols()[z] for z in model_card(name)['elements'])}"
        for name in shipped
    )
    raise ReciNetError(
        f"{FORCE_MODEL}, the force model for every element, is not part of this release: name one "
        f"({known or 'none is shipped'}), a model folder, or any calculator of ASE's as "
        "MODULE:CLASS, for instance chgnet.model.dynamics:CHGNetCalculator"
    )


def load_model(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    calibrated: bool = True,
) -> AnyModel:
    """Load a model, ready for inference.

    Args:
        name_or_path: ``"jarvis-mbj"``, an ensemble (``"jarvis-eform:ensemble"``), or a folder
            with ``config.json`` and ``model.safetensors`` (a run folder of
            ``recinet-train``), or one with such folders ``member-1``, ``member-2``...
        device: Torch device.
        dtype: Torch dtype of the weights, float32 by default.
        calibrated: Read its calibration too, if it has one.

    Returns:
        The model in evaluation mode.

    Raises:
        UnknownNameError: If there is no such model.
        ReciNetError: If a file is damaged (sha256), missing or from a newer version, or the
            members of an ensemble do not match.
    """
    import torch

    from recinet_ase.models.ensemble import EnsembleModel
    from recinet_ase.models.property_model import ModelConfig, PropertyModel

    card = model_card(name_or_path)
    _refuse_forces(card, name_or_path)
    folder = model_folder(name_or_path)
    model: AnyModel
    if is_ensemble(name_or_path):
        config = ModelConfig.from_json(json.dumps(card), str(folder))
        folders = model_members(name_or_path)
        model = EnsembleModel.load(config, folder, folders, calibrated)
    else:
        model = PropertyModel.load(folder, calibrated)
    return model.to(device=device, dtype=dtype or torch.float32)


def load_network(name_or_path: str | Path) -> PropertyModel:
    """Load a model of one network, for what works on its weights.

    Raises:
        UnknownNameError: If there is no such model.
        ReciNetError: If it is an ensemble, or a file is damaged.
    """
    from recinet_ase.models.property_model import PropertyModel

    if is_ensemble(name_or_path):
        base = str(name_or_path).removesuffix(ensemble_files.SUFFIX)
        first = base if base != str(name_or_path) else model_members(name_or_path)[0]
        raise ReciNetError(f"{name_or_path} is an ensemble; use {first}, its first member")
    _refuse_forces(model_card(name_or_path), name_or_path)
    return PropertyModel.load(model_folder(name_or_path))


def load_force_model(name_or_path: str | Path) -> ForceModel:
    """Load a model of energies, forces and stresses.

    Args:
        name_or_path: ``"mlearn-pes"``, or a run folder of ``recinet-train --dataset mlearn``.

    Raises:
        UnknownNameError: If there is no such model.
        ReciNetError: If it predicts properties, not forces, or a file is damaged.
    """
    from recinet_ase.forces.model import ForceModel

    refuse_properties(model_card(name_or_path), name_or_path)
    return ForceModel.load(model_folder(name_or_path))


def _refuse_forces(card: dict[str, Any], name: str | Path) -> None:
    if card.get("kind") == FORCES:
        raise ReciNetError(
            f"{name} gives energies and forces, not properties; use it with ReciNetForceCalculator"
        )
