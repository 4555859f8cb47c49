"""The screen itself: a chunk of the input in, one row for each entry out.

`ScreenSpec` is all that a worker has to be told; it is small and can be pickled, so that
the same function serves this process, worker processes and a cluster.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError
from recinet_ase.inference.result import ENDS, RELAXATION, SPREAD
from recinet_ase.io import entries_of
from recinet_ase.io.entries import Chunk, Entry, structure_digest
from recinet_ase.pretrained import default_model, load_model
from recinet_ase.properties import PropertyInfo, answer_for, source_of
from recinet_ase.screening.execution.worker import Overlapped, beginning
from recinet_ase.screening.relaxation import Geometry, RelaxationSpec, geometry_of
from recinet_ase.screening.selection.columns import DECOMPOSITION, LACKS
from recinet_ase.stability.derived import DISTANCE, has_references
from recinet_ase.stability.phases import describe

if TYPE_CHECKING:
    from recinet_ase.inference.computation import Computed, Loaded
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.inference.preparation import Preparation, PreparedWindow
    from recinet_ase.inference.result import Prediction


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


@dataclass(frozen=True)
class ChunkRows:
    """The rows of a chunk.

    Attributes:
        number: Number of the chunk.
        rows: One an entry, in order.
        without_key: Entries that lack the user's id key.
        lost: Places in ``rows`` of entries that ended their worker or took too long; they are
            not to be read again.
        digests: For each row the `structure_digest` of its structure; None for all if empty.
        other_keys: What there is, where no structure has the user's id key.
        faults: Place in ``rows`` and traceback of each error that is none of its structure but
            of this program or the machine.
        geometries: For each row what its structure was relaxed to; empty if none was.
    """

    number: int
    rows: list[dict[str, Any]]
    without_key: int = 0
    lost: tuple[int, ...] = ()
    digests: tuple[int | None, ...] = ()
    other_keys: tuple[str, ...] = ()
    faults: tuple[tuple[int, str], ...] = ()
    geometries: tuple[Geometry | None, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[ChunkRows]) -> ChunkRows:
        """The rows of a chunk that was done in parts, in order."""
        if len(parts) == 1:
            return parts[0]
        starts = list(accumulate((len(part.rows) for part in parts), initial=0))
        numbered = list(zip(starts, parts, strict=False))
        return cls(
            parts[0].number,
            [row for part in parts for row in part.rows],
            sum(part.without_key for part in parts),
            tuple(start + place for start, part in numbered for place in part.lost),
            tuple(d for part in parts for d in part.digests or [None] * len(part.rows)),
            tuple(sorted({key for part in parts for key in part.other_keys})),
            tuple((start + i, text) for start, part in numbered for i, text in part.faults),
            tuple(g for part in parts for g in part.geometries or [None] * len(part.rows))
            if any(part.geometries for part in parts)
            else (),
        )


@dataclass(frozen=True)
class PreparedChunk:
    """A chunk whose graphs are ready for the process that owns the device."""

    number: int
    ids: list[str]
    window: PreparedWindow
    without_key: int = 0
    digests: tuple[int | None, ...] = ()
    other_keys: tuple[str, ...] = ()


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
    named = [load_model(name) for name in models]
    given = [name for model in named for name in model.config.properties]
    wanted, defaults = list(given), []
    if infos is None and any(has_references(m.config, hull) for m in named):
        wanted += [DISTANCE]
    if infos is not None:
        # A named model of another functional answers for the property ("--model jarvis-opt").
        wanted = list(dict.fromkeys(answer_for(info.name, given) or info.name for info in infos))
        needed = {source_of(name, given) for name in wanted}
        for model in named:
            if not set(model.config.properties) & needed:
                raise ReciNetError(
                    f"model {model.config.name!r} predicts {', '.join(model.config.properties)}, "
                    f"none of the wanted {', '.join(wanted)}"
                )
        missing = [i for i in infos if i.name in wanted and source_of(i.name, given) is None]
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
    return ["id", "formula", "natoms", *numbers, *relaxation, *domain, "error"]


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


def provenance_lines(predictor: Predictor) -> list[str]:
    """For each column of numbers, the unit, model and functional; then each model's caution."""
    lines = []
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


def screen_chunk(spec: ScreenSpec, chunk: Chunk, device: str | None = None) -> ChunkRows:
    """Read a chunk and predict for every entry; errors included, in order.

    Args:
        spec: What to predict.
        chunk: The input.
        device: Where; the first of the spec's by default.
    """
    beginning(math.inf)  # loading models is no structure's time
    device = device or spec.devices[0]
    predictor = loaded_predictor(spec, device)
    prepare: Callable[[Iterable[Any]], PreparedWindow] = predictor.preparation
    if spec.relaxation is not None:
        spec.relaxation.load(device)
        prepare = partial(_prepare_relaxed, spec.relaxation, device, predictor.preparation)
    return finish_chunk(predictor, prepare_chunk(prepare, spec.id_key, chunk))


def _prepare_relaxed(
    relaxation: RelaxationSpec, device: str, preparation: Preparation, structures: Iterable[Any]
) -> PreparedWindow:
    from recinet_ase.inference.relaxed import relaxed_window

    read = list(structures)
    return relaxed_window(preparation, read, relaxation.relax(read, device, beginning))


def prepare_chunk(
    preparation: Callable[[Iterable[Any]], PreparedWindow], id_key: str | None, chunk: Chunk
) -> PreparedChunk:
    """Read a chunk and build its graphs: all but the network."""
    entries: list[Entry] = []

    def structures() -> Iterator[Any]:
        reading = entries_of(chunk, id_key)
        for place in range(len(chunk)):
            beginning(1, place)
            entries.append(next(reading))
            yield entries[-1].atoms
        beginning(len(chunk))  # what is done for all of them together

    window = preparation(structures())
    return PreparedChunk(
        chunk.number,
        [entry.id for entry in entries],
        window,
        sum(not entry.has_key for entry in entries),
        tuple(structure_digest(entry.atoms) for entry in entries),
        () if id_key is None else _other_keys(entries),
    )


def _other_keys(entries: Sequence[Entry]) -> tuple[str, ...]:
    """The keys beside the structures, if none of these has the user's."""
    readable = [entry for entry in entries if not isinstance(entry.atoms, Exception)]
    if any(entry.has_key for entry in readable):
        return ()
    return tuple(sorted({str(key) for entry in readable for key in entry.values}))


def finish_chunk(predictor: Predictor, prepared: PreparedChunk) -> ChunkRows:
    """Run the network for a chunk that is prepared."""
    return _chunk_rows(predictor, prepared, predictor.run(prepared.window, beginning))


def _chunk_rows(
    predictor: Predictor, prepared: PreparedChunk, results: Sequence[Prediction]
) -> ChunkRows:
    """The rows of a chunk, from its predictions."""
    rows = [
        _row(predictor, name, result) for name, result in zip(prepared.ids, results, strict=True)
    ]
    return ChunkRows(
        prepared.number,
        rows,
        prepared.without_key,
        digests=prepared.digests,
        other_keys=prepared.other_keys,
        faults=tuple((i, result.fault) for i, result in enumerate(results) if result.fault),
        geometries=tuple(geometry_of(result.relaxation) for result in results)
        if any(result.relaxation for result in results)
        else (),
    )


def prepare_packed(
    preparation: Preparation, id_key: str | None, chunk: Chunk
) -> tuple[bytes, bytes]:
    """`prepare_chunk` in two parts, what rows are made of and graphs, as bytes.

    As objects torch would send every tensor through a file of shared memory.
    """
    prepared = prepare_chunk(preparation, id_key, chunk)
    graphs = prepared.window.batches
    rest = replace(prepared, window=replace(prepared.window, batches=[]))
    return pickle.dumps(rest, protocol=5), pickle.dumps(graphs, protocol=5)


def computing(spec: ScreenSpec) -> Overlapped:
    """What makes of the graphs of several chunks, as bytes, what the networks make of them."""
    return Overlapped(partial(_load, spec), partial(_compute, spec), _packed)


def _load(spec: ScreenSpec, graphs: Sequence[bytes], device: str) -> Loaded:
    computation = loaded_predictor(spec, device).computation
    return computation.load([pickle.loads(data) for data in graphs])


def _compute(spec: ScreenSpec, loaded: Loaded, device: str) -> list[list[Computed]]:
    return loaded_predictor(spec, device).computation.together(loaded, beginning)


def _packed(windows: list[list[Computed]]) -> list[bytes]:
    return [pickle.dumps(parts, protocol=5) for parts in windows]


def read_packed(spec: ScreenSpec, parts: tuple[bytes, bytes]) -> ChunkRows:
    """The rows of a chunk, from the first part of `prepare_packed` and what was computed."""
    beginning(math.inf)
    predictor = loaded_predictor(spec)
    prepared, computed = (pickle.loads(data) for data in parts)
    beginning(len(prepared.ids))
    return _chunk_rows(predictor, prepared, predictor.results_of(prepared.window, computed))


def failed_chunk(chunk: Chunk, columns: Iterable[str], error: str) -> ChunkRows:
    """The rows of entries that nothing could be made of, by their place in the input."""
    empty = dict.fromkeys(columns)
    rows = [
        {**empty, "id": f"{piece.source.name}#{i}", "formula": "", "error": error}
        for piece in chunk.pieces
        for i in range(piece.start, piece.start + len(piece.items))
    ]
    return ChunkRows(chunk.number, rows, lost=tuple(range(len(rows))))


def _row(predictor: Predictor, name: str, result: Prediction) -> dict[str, Any]:
    """A row of the result table."""
    row: dict[str, Any] = {
        "id": name,
        "formula": result.formula,
        "natoms": result.n_atoms or None,
    }
    for prop in predictor.properties:
        row[prop] = result.values.get(prop)
        if predictor.intervals:
            low, high = result.intervals.get(prop, (None, None))
            row |= {prop + ENDS[0]: low, prop + ENDS[1]: high}
            if len(predictor.properties[prop].members) > 1:
                row[prop + SPREAD] = result.spreads.get(prop)
        if prop == DISTANCE and predictor.stability is not None:
            row |= {LACKS: result.lacks, DECOMPOSITION: describe(result.decomposition)}
    if result.relaxation is not None:
        row |= result.relaxation.columns()
    if predictor.intervals:
        row["in_domain"] = result.in_domain
    return {**row, "error": result.error}
