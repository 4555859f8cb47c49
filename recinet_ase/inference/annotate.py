"""Predictions that survive a file: flat entries of ``atoms.info``, and database columns.

ASE's writers keep only results that ASE knows by name, and drop all others silently. What stands
in ``atoms.info`` is kept by extxyz and traj, and what is given as ``key_value_pairs`` by ASE's
databases (``.db``, ``.json``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.inference.result import ENDS, SPREAD
from recinet_ase.stability.derived import DISTANCE
from recinet_ase.stability.phases import describe

if TYPE_CHECKING:
    from ase import Atoms

    from recinet_ase.inference.predict import Models
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.inference.result import Prediction

PREFIX = "recinet_"
"""Start of every key, so that labels such as a computed ``bandgap`` stay untouched."""

InfoValue = float | bool | str


@runtime_checkable
class PredictingCalculator(Protocol):
    """A `recinet_ase.ReciNetCalculator`, of which `annotate` needs no more than this."""

    predictor: Predictor

    def get_prediction(self, atoms: Atoms) -> Prediction:
        """The prediction for these atoms."""


_MODEL = "_model"
_DECOMPOSITION = "_decomposition"
_KEY_ENDS = ("", *ENDS, SPREAD, "_unit", _DECOMPOSITION, _MODEL)


def entries(
    prediction: Prediction, predictor: Predictor, prefix: str = PREFIX
) -> dict[str, InfoValue]:
    """A prediction as flat entries.

    Returns:
        For each property ``p`` (after the prefix): ``p``, ``p_low`` and ``p_high`` (ends of
        the 90 % interval, where the model is calibrated), ``p_spread`` (standard deviation of
        the members of an ensemble), ``p_unit`` (missing where it has none), ``p_model``; for
        ``ehull`` also ``ehull_decomposition``, the known phases that compete with the crystal;
        and ``in_domain``, where a model can tell.
    """
    flat: dict[str, InfoValue] = {}
    for info in predictor.infos:
        if info.name not in prediction.values:
            continue
        key = prefix + info.name
        flat[key] = prediction.values[info.name]
        if info.name in prediction.intervals:
            for end, value in zip(ENDS, prediction.intervals[info.name], strict=True):
                flat[key + end] = value
        if info.name in prediction.spreads:
            flat[key + SPREAD] = prediction.spreads[info.name]
        if info.unit:
            flat[f"{key}_unit"] = info.unit
        if info.name == DISTANCE and prediction.decomposition:
            flat[key + _DECOMPOSITION] = describe(prediction.decomposition)
        flat[key + _MODEL] = predictor.properties[info.name].config.name
    if prediction.in_domain is not None:
        flat[f"{prefix}in_domain"] = prediction.in_domain
    return flat


def annotate(
    atoms: Atoms,
    models: Models | PredictingCalculator | None = None,
    *,
    prefix: str = PREFIX,
    overwrite: bool = False,
) -> dict[str, InfoValue]:
    """Predict, and put the result into ``atoms.info``.

    Args:
        atoms: The crystal; only its ``info`` is changed.
        models: Models as for `recinet_ase.predict`, or a calculator; the one attached to the
            atoms by default.
        prefix: Start of the keys, with ``_`` at its end. What an earlier call wrote under it is
            replaced.
        overwrite: Replace entries under these keys that another program wrote.

    Returns:
        The new entries (`entries` explains them), e.g. ``{"recinet_bandgap": 1.2,
        "recinet_bandgap_unit": "eV", "recinet_bandgap_model": "jarvis-mbj"}``.

    Raises:
        ReciNetError: If there is no model, or a key is taken; ``info`` is then unchanged.
        StructureError: If a model cannot answer for the atoms.
    """
    from recinet_ase.inference.predict import as_predictor

    _check_prefix(prefix)
    models = atoms.calc if models is None else models
    if models is None:
        raise ReciNetError("no models: attach a ReciNetCalculator to the atoms, or name models")
    if isinstance(models, PredictingCalculator):
        predictor, prediction = models.predictor, models.get_prediction(atoms)
    else:
        predictor = as_predictor(models)
        (prediction,) = predictor.predict_many([atoms])
    if prediction.error:
        raise StructureError(prediction.error)
    new = entries(prediction, predictor, prefix)
    ours = _written(atoms.info, prefix)
    taken = sorted(key for key in new if key in atoms.info and key not in ours)
    if taken and not overwrite:
        raise ReciNetError(
            f"atoms.info already has {', '.join(taken)}; choose another prefix, or overwrite=True"
        )
    for key in ours:
        del atoms.info[key]
    atoms.info.update(new)
    return new


def key_value_pairs(atoms: Atoms, prefix: str = PREFIX) -> dict[str, InfoValue]:
    """What `annotate` put into ``atoms.info``, for ASE's databases.

    >>> db.write(atoms, key_value_pairs=key_value_pairs(atoms))

    Raises:
        ReciNetError: If the atoms are not annotated under this prefix.
    """
    kept = {key: atoms.info[key] for key in atoms.info if key in _written(atoms.info, prefix)}
    if not kept:
        raise ReciNetError(f"the atoms hold no predictions under {prefix!r}; annotate them first")
    # Readers of some formats give numpy's numbers, which not every database takes, and keys of
    # databases are plain words.
    return {re.sub(r"\W+", "_", k): v.item() if hasattr(v, "item") else v for k, v in kept.items()}


def _written(info: Mapping[str, Any], prefix: str) -> set[str]:
    """The keys that `annotate` wrote under a prefix: each property has an entry ``p_model``."""
    keys = set()
    for key, value in info.items():
        if isinstance(value, str) and key.startswith(prefix) and key.endswith(_MODEL):
            base = key.removesuffix(_MODEL)
            keys |= {base + end for end in _KEY_ENDS}
            keys.add(f"{prefix}in_domain")
    return keys & info.keys()


def _check_prefix(prefix: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*_", prefix):
        raise ReciNetError(
            f"{prefix!r} cannot start the keys: use letters, digits and '_' with '_' at the end, "
            "such as 'predicted_'"
        )
