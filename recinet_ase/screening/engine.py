"""The screen: entries in, one row for each out, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from recinet_ase.errors import ReciNetError
from recinet_ase.predictor import Predictor
from recinet_ase.pretrained import default_model, load_model
from recinet_ase.properties import PropertyInfo, answer_for
from recinet_ase.screening.entries import Entry


def choose_predictor(
    infos: list[PropertyInfo] | None,
    models: list[str],
    device: str | None = None,
    batch_size: int | str = "auto",
    intervals: bool = False,
) -> Predictor:
    """The predictor that answers for the wanted properties.

    Named models answer for what they predict; the registry's default model answers for
    every other wanted property.

    Args:
        infos: Wanted properties; everything that the named models predict if None.
        models: Model names or folders given by the user.
        device: Torch device or ``"auto"``.
        batch_size: Crystals a batch, or ``"auto"``.
        intervals: Give 90 % intervals and say whether a crystal is in the models' domain.

    Raises:
        UnknownNameError: For an unknown model.
        ReciNetError: If nothing predicts a wanted property, two models do, or a named
            model predicts none of them.
    """
    loaded = [load_model(name) for name in models]
    if infos is None:
        return Predictor(loaded, device=device, batch_size=batch_size, intervals=intervals)
    given = [name for model in loaded for name in model.config.properties]
    # A named model of another functional answers for the property ("--model jarvis-opt").
    wanted = list(dict.fromkeys(answer_for(info.name, given) or info.name for info in infos))
    for model in loaded:
        if not set(model.config.properties) & set(wanted):
            raise ReciNetError(
                f"model {model.config.name!r} predicts {', '.join(model.config.properties)}, "
                f"none of the wanted {', '.join(wanted)}"
            )
    missing = [info for info in infos if info.name in wanted and info.name not in given]
    defaults = dict.fromkeys(default_model(info) for info in missing)
    loaded += [load_model(name) for name in defaults]
    return Predictor(
        loaded, device=device, batch_size=batch_size, properties=wanted, intervals=intervals
    )


def columns(predictor: Predictor) -> list[str]:
    """Columns of the result table."""
    numbers = []
    for name in predictor.properties:
        numbers += [name, f"{name}_low", f"{name}_high"] if predictor.intervals else [name]
    domain = ["in_domain"] if predictor.intervals else []
    return ["id", "formula", "natoms", *numbers, *domain, "error"]


def provenance(predictor: Predictor) -> list[str]:
    """For each column of numbers, the unit, model and functional, and any caution."""
    lines = []
    for info in predictor.infos:
        config = predictor.properties[info.name].config
        functional = config.functional_of(info.name)
        source = f"{config.name} ({functional})" if functional else config.name
        lines.append(f"{info.name}: {info.label} in {info.unit or '1'}, model {source}")
        if config.caution:
            lines.append(f"caution, {config.name}: {config.caution}")
        if predictor.intervals and predictor.properties[info.name].calibration is None:
            lines.append(f"{config.name} has no calibration: no intervals for {info.name}")
    return lines


def screen(entries: Iterable[Entry], predictor: Predictor) -> Iterator[dict[str, Any]]:
    """Predict for every entry; one row each, in input order, errors included."""
    names: deque[str] = deque()

    def structures() -> Iterator[Any]:
        for entry in entries:
            names.append(entry.id)
            yield entry.atoms

    for result in predictor.predict_iter(structures()):
        row: dict[str, Any] = {
            "id": names.popleft(),
            "formula": result.formula,
            "natoms": result.n_atoms or None,
        }
        for name in predictor.properties:
            row[name] = result.values.get(name)
            if predictor.intervals:
                low, high = result.intervals.get(name, (None, None))
                row |= {f"{name}_low": low, f"{name}_high": high}
        if predictor.intervals:
            row["in_domain"] = result.in_domain
        yield {**row, "error": result.error}
