"""The screen itself: a chunk of the input in, one row for each entry out.

The same functions serve this process, worker processes and a cluster; all that they have to be
told is a small `recinet_ase.screening.execution.spec.ScreenSpec`.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from recinet_ase.inference.result import ENDS, SPREAD
from recinet_ase.io import entries_of
from recinet_ase.io.entries import Chunk, Entry, structure_digest
from recinet_ase.screening.execution.spec import ScreenSpec, loaded_predictor
from recinet_ase.screening.execution.worker import Overlapped, beginning
from recinet_ase.screening.relaxation import Geometry, RelaxationSpec, geometry_of
from recinet_ase.screening.selection.columns import DECOMPOSITION, LACKS, WARNINGS
from recinet_ase.stability.derived import DISTANCE
from recinet_ase.stability.phases import describe

if TYPE_CHECKING:
    from recinet_ase.inference.computation import Computed, Loaded
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.inference.preparation import Preparation, PreparedWindow
    from recinet_ase.inference.result import Prediction


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
    said = result.warnings
    if result.lacks and predictor.stability is not None:  # has a column of its own
        said = tuple(w for w in said if w != predictor.stability.warning(result.lacks))
    return {**row, WARNINGS: "; ".join(said), "error": result.error}
