"""What a screen predicts and how: all that a worker has to be told, and the columns that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from recinet_ase.errors import ReciNetError
from recinet_ase.inference.result import ENDS, RELAXATION, SPREAD
from recinet_ase.pretrained import default_model, load_model
from recinet_ase.properties import PropertyInfo, answers_for, source_of, told_apart
from recinet_ase.screening.relaxation import RelaxationSpec
from recinet_ase.screening.selection.columns import DECOMPOSITION, LACKS, WARNINGS
from recinet_ase.stability.derived import DISTANCE, SOURCE, has_references

if TYPE_CHECKING:
    from recinet_ase.inference.predictor import Predictor


@dataclass(frozen=True)
class ScreenSpec:
    """What is to be predicted, and how.

    Attributes:
        models: Names or folders of the models.
        properties: Canonical names of the wanted properties.
        devices: Torch devices that networks run on; the first where there are no workers.
        batch_size: Crystals a batch, or ``"auto"``.
        intervals: Give 90 % intervals and say whether a crystal is in the models' domain.
        id_key: Key of the values that holds the identity, or None.
        hull: References for ``ehull``, names and files; those of the model's level if empty.
        decomposition: Give the competing phases of each crystal.
        relaxation: What relaxes crystals before they are judged, or None.
    """

    models: tuple[str, ...]
    properties: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    batch_size: int | str = "auto"
    intervals: bool = False
    id_key: str | None = None
    hull: tuple[str, ...] = ()
    decomposition: bool = False
    relaxation: RelaxationSpec | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether workers run the network themselves."""
        return self.devices == ("cpu",)

    @property
    def takes_steps(self) -> bool:
        """Whether graphs are built by other workers than those that run the network on a device.

        Where crystals are relaxed they are not: reading is nothing beside it.
        """
        return not self.on_cpu and self.relaxation is None

    def predictor(self, device: str = "cpu") -> Predictor:
        """The predictor, loaded on a device."""
        from recinet_ase.inference.predictor import Predictor

        return Predictor(
            list(self.models),
            device=device,
            batch_size=self.batch_size,
            properties=self.properties,
            intervals=self.intervals,
            hull=self.hull or None,
            decomposition=self.decomposition,
        )


def choose_spec(
    infos: list[PropertyInfo] | None,
    models: Sequence[str],
    devices: tuple[str, ...] = ("cpu",),
    batch_size: int | str = "auto",
    intervals: bool = False,
    id_key: str | None = None,
    hull: Sequence[str] = (),
    decomposition: bool = False,
) -> ScreenSpec:
    """The models that answer for the wanted properties.

    Named models answer for what they predict; the registry's default model answers for
    every other wanted property.

    Args:
        infos: Wanted properties; everything that the named models predict if None.
        models: Model names or folders given by the user.
        devices: From `recinet_ase.screening.execution.gpus.choose_devices`.
        batch_size: Crystals a batch, or ``"auto"``.
        intervals: Give 90 % intervals and say whether a crystal is in the models' domain.
        id_key: Key that holds the identity.
        hull: References for ``ehull``, names and files.
        decomposition: Give the competing phases of each crystal.

    Raises:
        UnknownNameError: For an unknown model.
        ReciNetError: If nothing predicts a wanted property, two models do, or a named
            model predicts none of them.
    """
    named = [load_model(name).config for name in models]
    outputs = told_apart((config.name, config.properties) for config in named)
    given = [name for own in outputs for name in own]
    wanted, defaults = list(given), []
    if infos is None and any(has_references(config, hull) for config in named):
        wanted += [DISTANCE] if SOURCE in given else []
    if infos is not None:
        # A named model of another functional answers for the property ("--model jarvis-opt").
        answers = {info.name: answers_for(info.name, given) or [info.name] for info in infos}
        wanted = [name for found in answers.values() for name in found]
        needed = {source_of(name, given) for name in wanted}
        if DISTANCE in wanted:
            needed |= {*answers_for(SOURCE, given)}
        for config, own in zip(named, outputs, strict=True):
            if not set(own) & needed:
                raise ReciNetError(
                    f"model {config.name!r} predicts {', '.join(config.properties)}, "
                    f"none of the wanted {', '.join(wanted)}"
                )
        missing = [i for i in infos if i.name in wanted and not answers_for(i.name, given)]
        missing = [i for i in missing if not answers_for(i.derived_from or "", given)]
        defaults = list(dict.fromkeys(default_model(info) for info in missing))
    return ScreenSpec(
        models=(*models, *defaults),
        properties=tuple(dict.fromkeys(wanted)),
        devices=devices,
        batch_size=batch_size,
        intervals=intervals,
        id_key=id_key,
        hull=tuple(hull),
        decomposition=decomposition,
    )


def result_columns(predictor: Predictor, relaxed: bool = False) -> list[str]:
    """Columns of the result table.

    Args:
        predictor: What gives the numbers.
        relaxed: Whether crystals are relaxed before.
    """
    numbers = []
    for name in predictor.properties:
        numbers += [name + ending for ending in _endings(predictor, name)]
        if name == DISTANCE and predictor.stability is not None:
            numbers += [LACKS, *([DECOMPOSITION] if predictor.stability.decomposition else [])]
    domain = ["in_domain"] if predictor.intervals else []
    relaxation = RELAXATION if relaxed else ()
    return ["id", "formula", "natoms", *numbers, *relaxation, *domain, WARNINGS, "error"]


def _endings(predictor: Predictor, name: str) -> tuple[str, ...]:
    """What is told of a property: its value, its interval, and how far an ensemble agrees."""
    if not predictor.intervals:
        return ("",)
    return ("", *ENDS, SPREAD) if len(predictor.properties[name].members) > 1 else ("", *ENDS)


def column_units(predictor: Predictor, relaxed: bool = False) -> dict[str, str]:
    """Unit of each column of numbers (``""`` for pure numbers); arguments as `result_columns`."""
    found = {"natoms": ""}
    if relaxed:
        found |= dict.fromkeys(RELAXATION[:2], "")
    for info in predictor.infos:
        for ending in _endings(predictor, info.name):
            found[info.name + ending] = info.unit
    return found


def provenance_lines(predictor: Predictor, relaxation: RelaxationSpec | None = None) -> list[str]:
    """What relaxes; for each column of numbers unit, model and functional; each model's caution."""
    lines = [] if relaxation is None else [str(relaxation)]
    cautions: dict[str, None] = {}
    for info in predictor.infos:
        config = predictor.properties[info.name].config
        functional = config.functional_of(info.name)
        source = f"{config.name} ({functional})" if functional else config.name
        lines.append(f"{info.name}: {info.label} in {info.unit or '1'}, model {source}")
        if config.caution:
            cautions[f"caution, {config.name}: {config.caution}"] = None
        if info.name == DISTANCE and predictor.stability is not None:
            lines[-1] += f", {predictor.stability.described}"
        if predictor.intervals and predictor.properties[info.name].calibration is None:
            lines.append(f"{config.name} has no calibration: no intervals for {info.name}")
    return [*lines, *cautions]


def loaded_predictor(spec: ScreenSpec, device: str = "cpu") -> Predictor:
    """The predictor of a spec, loaded once in each process.

    On the CPU by default: what it gives is known there, without taking a GPU from the process
    that owns it.
    """
    return _cached(spec, device)


@lru_cache(maxsize=2)
def _cached(spec: ScreenSpec, device: str) -> Predictor:
    # Called with both arguments always: a cache tells a default from the same value given.
    return spec.predictor(device)
