"""The one road from structures to predictions.

The calculator, the screen and the evaluation all call `Predictor`, so that a number
does not depend on the door it came through.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.inference.assembly import Assembly
from recinet_ase.inference.computation import Computation, Computed
from recinet_ase.inference.devices import choose_device, choose_dtype
from recinet_ase.inference.embed import Embeddings, embed
from recinet_ase.inference.preparation import WINDOW, Preparation, PreparedWindow
from recinet_ase.inference.result import Prediction, Predictions
from recinet_ase.models.ensemble import AnyModel, EnsembleModel
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.reciprocal import FULL_GRAPHS
from recinet_ase.properties import (
    PropertyInfo,
    answers_for,
    get_property_info,
    parse_properties,
    source_of,
    told_apart,
)
from recinet_ase.stability.derived import (
    DISTANCE,
    SOURCE,
    HullDistance,
    References,
    choose_hull,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    from recinet_ase.inference.contributions import Contributions

_LOG = logging.getLogger(__name__)


class Predictor:
    """Predicts properties of structures with one or several models.

    Models with the same neighbour rule share one graph, and models with the same
    reciprocal basis share one set of lattice sums. An ensemble (``"jarvis-eform:ensemble"``)
    answers with the mean of its members. What two models give is named by the model
    (``"bulk_modulus[jarvis-bulk]"``, ``"bulk_modulus[mp-bulk]"``).

    Args:
        models: A model name, a model folder, a loaded model, or a list of these.
        device: Torch device; a GPU where there is one by default.
        dtype: ``"float32"`` (default) or ``"float64"``.
        batch_size: Crystals a batch at most, or ``"auto"``: as many as fit a budget of
            edges that follows from the device's memory.
        properties: Names or aliases of what to predict, or one; everything that the models
            give by default.
        intervals: Give intervals and warnings where a model has a calibration.
        hull: References for ``ehull``, the distance of predicted formation energies to the hull of
            known phases: shipped ones by name, a file, a `recinet_ase.stability.Hull`, or a list;
            by default those that are shipped for the model's level of theory.
        decomposition: Give the phases that compete with a crystal, where ``ehull`` is given.
        reduce: Compute atoms that the network cannot tell apart once; the same answer
            for less work.

    Raises:
        UnknownNameError: For an unknown model.
        ReciNetError: If two models of one name are given, none predicts a wanted property, or a
            file is damaged.
    """

    def __init__(
        self,
        models: str | Path | AnyModel | Sequence[str | Path | AnyModel],
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int | str = "auto",
        properties: str | Iterable[str] | None = None,
        intervals: bool = True,
        reduce: bool = True,
        hull: References | None = None,
        decomposition: bool = True,
    ) -> None:
        from recinet_ase.pretrained import load_model

        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype)
        chosen = [models] if isinstance(models, str | Path | AnyModel) else models
        if not isinstance(chosen, Iterable):
            raise ReciNetError(f"{models!r} names no model; give a name, a folder or a list")
        chosen = list(chosen)
        if not chosen:
            raise ReciNetError("no model given")
        self.models = [
            # A copy: moving the caller's own model would change it behind their back.
            copy.deepcopy(model).to(device=self.device, dtype=self.dtype).eval()
            if isinstance(model, PropertyModel | EnsembleModel)
            else load_model(model, self.device, self.dtype)
            for model in chosen
        ]
        _tell_apart(self.models)
        wanted = None
        if properties is not None:
            given = [info for model in self.models for info in model.config.infos]
            names = [properties] if isinstance(properties, str) else list(properties)
            wanted = [found for name in names for found in _canonical(name, given)]
        self._outputs = self._sources(wanted)
        self.properties: dict[str, AnyModel] = dict(self._outputs)
        self.stability = self._stability(wanted, hull, decomposition)
        if self.stability is not None:
            self.properties[DISTANCE] = self._outputs[SOURCE]
        if wanted is not None:
            for name in wanted:
                if name not in self.properties:
                    source = f" (or {SOURCE!r}, which it follows from)" if name == DISTANCE else ""
                    raise ReciNetError(f"no given model predicts {name!r}{source}")
            self.properties = {name: self.properties[name] for name in wanted}
        if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size > 0):
            raise ReciNetError(
                f"batch_size must be 'auto' or a positive number, not {batch_size!r}"
            )
        self.intervals = intervals
        asked = list(dict.fromkeys(self._outputs.values()))
        self.computation = Computation(asked, self.device, batch_size, intervals)
        self._assembly = Assembly(self._outputs, asked, intervals)
        networks = [m.config.network for model in self.models for m in model.members]
        cutoffs = [network.k_max for network in networks if network.reciprocal == "lattice"]
        self.preparation = Preparation(
            settings=tuple(dict.fromkeys(model.config.graph for model in self.models)),
            k_max=max(cutoffs, default=None),
            dtype=self.dtype,
            # The equations as printed tell apart atoms that symmetry does not.
            reduce=reduce and all(network.reciprocal not in FULL_GRAPHS for network in networks),
            describe=intervals and any(model.calibration is not None for model in asked),
        )

    def _sources(self, wanted: Sequence[str] | None) -> dict[str, AnyModel]:
        """The model of each output that is wanted, or that something wanted follows from.

        Raises:
            ReciNetError: If there are two of one.
        """
        given = [name for model in self.models for name in model.config.properties]
        needed = None if wanted is None else {source_of(name, given) for name in wanted}
        source: dict[str, AnyModel] = {}
        for model in self.models:
            for name in model.config.properties:
                if needed is not None and name not in needed:
                    continue
                if name in source:
                    raise ReciNetError(f"two models are called {model.config.name!r}; choose one")
                source[name] = model
        return source

    def _stability(
        self, wanted: Sequence[str] | None, hull: References | None, decomposition: bool
    ) -> HullDistance | None:
        """What turns formation energies into distances to the hull, where these are given."""
        asked = wanted is not None and DISTANCE in wanted
        given = [name for model in self.models for name in model.config.properties]
        several = answers_for(SOURCE, given)
        if (asked or hull is not None) and len(several) > 1:
            raise ReciNetError(
                f"{DISTANCE} follows from one {SOURCE}, and there are {' and '.join(several)}: "
                "choose one model"
            )
        if DISTANCE in self._outputs or SOURCE not in self._outputs:
            if hull is not None:
                raise ReciNetError(f"references are of use where {SOURCE} is predicted")
            return None
        if not asked and wanted is not None:
            return None
        config = self._outputs[SOURCE].config
        functional = config.functional_of(SOURCE)
        chosen = choose_hull(hull, functional, config.name, wanted=asked)
        if chosen is None:
            return None
        return HullDistance(chosen, config.name, decomposition, asked or hull is not None)

    def __repr__(self) -> str:
        """``<Predictor: bandgap (eV, jarvis-mbj) on cpu>``."""
        told = [
            f"{info.name} ({info.unit or '1'}, {self.properties[info.name].config.name})"
            for info in self.infos
        ]
        return f"<Predictor: {', '.join(told)} on {self.device}>"

    @property
    def infos(self) -> list[PropertyInfo]:
        """What each number is that this predictor gives, in order."""
        return [
            next((i for i in model.config.infos if i.name == name), None) or get_property_info(name)
            for name, model in self.properties.items()
        ]

    def predict(self, structure: Any) -> dict[str, float]:
        """Properties of one structure.

        Args:
            structure: ASE ``Atoms``, a pymatgen ``Structure`` or a JARVIS dictionary.

        Returns:
            Value of each property, in its unit.

        Raises:
            StructureError: If a model cannot answer for this structure.
        """
        (result,) = self.predict_iter([structure])
        if result.error:
            raise StructureError(result.error)
        return result.values

    def predict_many(self, structures: Iterable[Any]) -> Predictions:
        """Properties of many structures, in order; a bad one carries its error."""
        return self.collect(self.predict_iter(structures))

    def collect(self, results: Iterable[Prediction]) -> Predictions:
        """Results of this predictor as a list that knows the units."""
        units = {info.name: info.unit for info in self.infos}
        return Predictions((replace(result, units=units) for result in results), units)

    def predict_iter(self, structures: Iterable[Any]) -> Iterator[Prediction]:
        """Like `predict_many` for a stream of any length, with constant memory.

        An element of the stream may be an exception: it becomes that structure's error.
        """
        stream = iter(structures)
        while window := list(islice(stream, WINDOW)):
            for result in self.run(self.preparation(window)):
                if result.fault:
                    _LOG.error("%s: %s", result.formula or "a structure", result.fault)
                yield result

    def embed(self, structures: Iterable[Any], model: str | None = None) -> np.ndarray:
        """Representations of crystals, what the model's last layers make a property of.

        Args:
            structures: The crystals.
            model: Name of the model, where there are several.

        Returns:
            float32 ``[n, d]``; NaN in the rows of structures without an answer.
        """
        numbered = ((str(i), structure) for i, structure in enumerate(structures))
        return self.embeddings(numbered, model).vectors

    def embeddings(
        self, entries: Iterable[tuple[str, Any]], model: str | None = None
    ) -> Embeddings:
        """Representations that can be saved, and compared with those of other crystals.

        Args:
            entries: Id and structure of each crystal; an exception stands for a bad one.
            model: Name of the model, where there are several.

        Raises:
            ReciNetError: If it is not clear which model is meant.
        """
        models = {m.config.name: m for m in self.properties.values()}
        if model is None and len(models) == 1:
            (model,) = models
        if model not in models:
            raise ReciNetError(f"say which model is to embed: {', '.join(models)}")
        return embed(models[model], self.preparation, self.computation, entries)

    def contributions(self, structure: Any, prop: str | None = None) -> Contributions:
        """What each site adds to a value.

        Args:
            structure: The crystal.
            prop: The property, where there are several.

        Raises:
            StructureError: If the model cannot answer for the structure.
            ReciNetError: For a model that is no single network, has no mean over the sites,
                learns a logarithm, or has no calibration (which knows the training crystals).
        """
        from recinet_ase.inference.contributions import contributions

        # What follows from another property is explained by that one.
        infos = [i for i in self.infos if i.name in self.properties[i.name].config.properties]
        given = [info.name for info in infos]
        names = given if prop is None else _canonical(prop, infos)
        if len(names) > 1:
            raise ReciNetError(f"say which property is to be explained: {', '.join(names)}")
        (name,) = names
        if name not in given:
            raise ReciNetError(f"no network here gives {prop}; there is {', '.join(given)}")
        return contributions(self.properties[name], name, self.preparation, structure)

    def run(
        self, window: PreparedWindow, beginning: Callable[[int], None] = lambda crystals: None
    ) -> list[Prediction]:
        """The predictions for a window that `preparation` made, in order.

        Args:
            window: The crystals.
            beginning: Told the number of crystals of each batch before its turn.
        """
        return self.results_of(window, self.computation(window, beginning))

    def results_of(self, window: PreparedWindow, parts: Iterable[Computed]) -> list[Prediction]:
        """The predictions for a window, in order, from what the networks made of it."""
        results = list(window.results)
        for part in parts:
            self._assembly.read(window, part, results)
        if self.stability is not None:
            results = self.stability(results)
            if SOURCE not in self.properties:
                results = [_without(result, SOURCE) for result in results]
        return results


def _without(result: Prediction, name: str) -> Prediction:
    """The result without one property."""
    if name not in result.values:
        return result
    return replace(
        result,
        values={key: value for key, value in result.values.items() if key != name},
        intervals={key: ends for key, ends in result.intervals.items() if key != name},
        spreads={key: spread for key, spread in result.spreads.items() if key != name},
    )


def _tell_apart(models: Sequence[AnyModel]) -> None:
    """Name what two models give by the model (`recinet_ase.properties.told_apart`)."""
    names = told_apart((m.config.name, m.config.properties) for m in models)
    for model, own in zip(models, names, strict=True):
        known = dict(zip(model.config.properties, own, strict=True))
        logarithmic = tuple(known[name] for name in model.config.logarithmic)
        model.config = replace(model.config, properties=own, logarithmic=logarithmic)


def _canonical(name: str, infos: Sequence[PropertyInfo]) -> list[str]:
    """The outputs that a property's name or alias means, or what follows from one of them."""
    (known,) = parse_properties([name], infos)
    return answers_for(known.name, [info.name for info in infos]) or [known.name]
