"""Many structures at once, and one without a calculator: `predict` and `predict_structure`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError
from recinet_ase.graph.ordering import check_ordering, ordered
from recinet_ase.inference.predictor import Predictor
from recinet_ase.inference.result import Prediction, Predictions
from recinet_ase.models.ensemble import AnyModel
from recinet_ase.stability.derived import SELF

if TYPE_CHECKING:
    import torch

    from recinet_ase.simulation.relaxation import RelaxationSettings
    from recinet_ase.stability.derived import References

ModelLike = str | Path | AnyModel
Models = ModelLike | Sequence[ModelLike] | Predictor
"""Name, folder, loaded model, a list of these, ``"all"``, or a `Predictor`."""

ALL = "all"
"""In place of model names: every shipped property, each from its default model."""


DEFAULT = "jarvis-mbj"
"""The model where neither models nor properties are named."""


def default_models() -> list[str]:
    """The shipped models behind ``"all"``: one for each property, sorted by name.

    Where several shipped models give a property, it is the registry's default model.
    """
    from recinet_ase.pretrained import available_models, model_properties

    chosen: dict[str, str] = {}
    for name in available_models():
        for info in model_properties(name):
            if info.name not in chosen or info.default_model == name:
                chosen[info.name] = name
    return sorted(set(chosen.values()))


def as_predictor(
    models: Models | None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    props: str | Iterable[str] | None = None,
    hull: References | None = None,
) -> Predictor:
    """A `Predictor` of whatever names models; a given one is shared, not copied.

    Args:
        models: As for `predict`.
        device: Torch device.
        dtype: Type of the numbers.
        props: Properties to give, comma-separated or a list.
        hull: As for `predict`.

    Raises:
        UnknownNameError: For an unknown model or property.
        ReciNetError: If a file is damaged, two models give the same property, none gives a wanted
            one, or anything is given beside a predictor that has its own.
    """
    wanted = props.split(",") if isinstance(props, str) else None if props is None else [*props]
    if isinstance(models, Predictor):
        given = {"device": device, "dtype": dtype, "props": props, "hull": hull}
        for name, value in given.items():
            if value is not None:
                raise ReciNetError(f"a Predictor has its {name}; do not give {name} again")
        return models
    if hull == SELF or (isinstance(hull, Sequence) and SELF in hull):
        raise ReciNetError(f"{SELF!r} means the crystals of one recinet-screen: give it a Hull")
    if wanted is not None:
        wanted = [name.strip() for name in wanted]
        if models is None or (isinstance(models, str) and models == ALL):
            from recinet_ase.pretrained import default_model
            from recinet_ase.properties import get_property_info

            models = list(dict.fromkeys(default_model(get_property_info(n)) for n in wanted))
    elif models is None:
        models = DEFAULT
    if isinstance(models, str) and models == ALL:
        models = list(default_models())
    return Predictor(models, device=device, dtype=dtype, properties=wanted, hull=hull)


def predict(
    structures: Iterable[Any],
    models: Models | None = None,
    *,
    props: str | Iterable[str] | None = None,
    order: str | None = None,
    progress: bool | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    hull: References | None = None,
    relax: Any = False,
    relaxation: RelaxationSettings | None = None,
) -> Predictions:
    """Properties of many structures, in batches.

    >>> predict(structures, props="bandgap,bulk_modulus").to_frame()
    >>> predict(candidates, props="ehull", relax=True)[0].relaxation.atoms

    Args:
        structures: ASE ``Atoms`` or database rows, pymatgen ``Structure`` or
            ``ComputedStructureEntry``, ``PhonopyAtoms``, or dictionaries of pymatgen or JARVIS;
            or an ASE ``Trajectory``.
        models: Model name, folder, loaded model, a list of these, ``"all"``, or a `Predictor`
            (which saves loading the models in every call). By default the shipped models of
            ``props``, or ``"jarvis-mbj"`` without these.
        props: Properties to give, by name or alias, comma-separated or a list; everything that the
            models give by default.
        order: ``"ewald"`` gives disordered structures the arrangement of lowest Ewald energy
            (pymatgen); by default they are refused.
        progress: Show a bar on stderr; by default where that is a terminal.
        device: Torch device; a GPU where there is one by default.
        dtype: ``"float32"`` (default) or ``"float64"``.
        hull: References for ``ehull``: a `recinet_ase.stability.Hull`, a file, ``"jarvis"`` or
            ``"mp"``, or a list of these; by default the shipped ones of the model's level of
            theory.
        relax: Relax each structure before it is judged: True (with the shipped force model for
            every element), the name of a calculator
            (`recinet_ase.simulation.calculators.load_calculator`), or a calculator. What became
            of it is in ``relaxation`` of its result; one that did not come to rest carries a
            warning, one that exploded or collapsed an ``error``.
        relaxation: How, where the defaults of `RelaxationSettings` are not wanted.

    Returns:
        One `Prediction` for each structure, in order, with its units; a bad structure carries its
        ``error`` and no value. ``.to_frame()`` makes a pandas table of them.

    Raises:
        UnknownNameError: For an unknown model, property or ``order``.
        ReciNetError: If ``structures`` is a single one, a model cannot be used, or none gives a
            wanted property.
    """
    check_ordering(order)
    single = isinstance(structures, Mapping) or hasattr(structures, "sites")
    single = single or isinstance(structures, str | Path) or not isinstance(structures, Iterable)
    # Atoms and Structures can be iterated, too; a Trajectory has numbers, of its atoms.
    if single or hasattr(structures, "positions"):
        raise ReciNetError("predict takes a list of structures; for one, use predict_structure")
    predictor = as_predictor(models, device, dtype, props, hull)
    total = len(structures) if isinstance(structures, Sized) else None
    stream = structures if order is None else _each_ordered(structures, order)
    if relax is False or relax is None:
        results = predictor.predict_iter(stream)
    else:
        from recinet_ase.inference.relaxed import choose_calculator, predict_relaxed

        calculator = choose_calculator(relax, predictor.device)
        results = predict_relaxed(predictor, stream, calculator, relaxation)
    return predictor.collect(_shown(results, total, progress))


def predict_structure(
    structure: Any,
    models: Models | None = None,
    *,
    props: str | Iterable[str] | None = None,
    order: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    hull: References | None = None,
) -> dict[str, float]:
    """Properties of one structure, by name and in their units.

    Args:
        structure: A pymatgen ``Structure`` or ``IStructure``, or any other accepted structure.
        models: As for `predict`.
        props: As for `predict`.
        order: As for `predict`.
        device: As for `predict`.
        dtype: As for `predict`.
        hull: As for `predict`.

    Raises:
        StructureError: If a model cannot answer for the structure.
        UnknownNameError: For an unknown model or ``order``.
        ReciNetError: If a model cannot be used.
    """
    structure = ordered(structure, order)
    return as_predictor(models, device, dtype, props, hull).predict(structure)


def _each_ordered(structures: Iterable[Any], order: str) -> Iterator[Any]:
    """Ordered structures; the reason in place of one that cannot be ordered."""
    for structure in structures:
        try:
            yield ordered(structure, order)
        except Exception as error:  # one bad structure must never stop the others
            yield error


def _shown(
    results: Iterator[Prediction], total: int | None, progress: bool | None
) -> Iterator[Prediction]:
    """The results, with a bar on stderr while they come."""
    if progress is None:
        progress = sys.stderr.isatty()
    if not progress:
        return results
    from rich.console import Console
    from rich.progress import track

    return iter(track(results, "predicting", total=total, console=Console(stderr=True)))
