"""Everything that ``recinet-analyze`` writes: plots, the numbers beside them, a summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.analysis import periodic, plots, tables
from recinet_ase.analysis.canvas import FORMATS, save
from recinet_ase.analysis.filters import ModelFilters, force_filters, property_filters
from recinet_ase.analysis.observe import RECIPROCAL, Observation, observe, single_network
from recinet_ase.analysis.routing import prediction_correlation
from recinet_ase.analysis.sample import Sample
from recinet_ase.analysis.tables import ALL, Table
from recinet_ase.errors import ReciNetError, UnknownNameError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recinet_ase.inference.predictor import Predictor

SUMMARY = "summary.md"

Drawing = Callable[[Table], "Figure"]


@dataclass
class Analysis:
    """Tables with their pictures, and the lines of the summary.

    Attributes:
        title: What was analysed.
        parts: Tables, each with the function that draws it, or None.
        lines: Lines of ``summary.md``.
    """

    title: str
    parts: list[tuple[Table, Drawing | None]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def table(self, name: str) -> Table:
        """A table by name.

        Raises:
            UnknownNameError: If the analysis has none of that name.
        """
        found = {table.name: table for table, _ in self.parts}
        if name not in found:
            raise UnknownNameError("table", name, found)
        return found[name]

    @property
    def summary(self) -> str:
        """The content of ``summary.md``."""
        return "\n".join([f"# {self.title}", *self.lines]) + "\n"

    def add(self, table: Table, draw: Drawing | None = None) -> None:
        """Add a table and its picture."""
        self.parts.append((table, draw))

    def write(self, folder: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
        """Write csv files, plots and summary into a folder, made if needed.

        Raises:
            UnknownNameError: For a format that is not in `FORMATS`.
            ReciNetError: If the folder is a file.
        """
        for suffix in formats:
            if suffix not in FORMATS:
                raise UnknownNameError("format", suffix, FORMATS)
        if folder.exists() and not folder.is_dir():
            raise ReciNetError(f"{folder} is a file; choose a folder for the analysis")
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for table, draw in self.parts:
            written.append(table.write(folder))
            if draw is not None:
                written += save(draw(table), folder, table.name, formats)
        written.append(folder / SUMMARY)
        written[-1].write_text(self.summary, encoding="utf-8")
        return written


def add_filters(analysis: Analysis, filters: ModelFilters) -> None:
    """Filters as curves and matrices, singular values, effective ranks."""
    spectra = filters.spectra()
    ranks = tables.rank_table(spectra)
    analysis.lines += ["", "## Reciprocal filters", ""]
    if filters.has_curves:
        analysis.add(tables.curve_table(filters), plots.filter_curves)
        analysis.add(tables.matrix_table(filters), plots.filter_matrices)
        first = filters.blocks[0].weights
        assert first is not None
        analysis.lines += [
            f"{first.shape[0]} radial functions and {first.shape[1]} channels, wave vectors up to "
            f"{filters.k_max:g} 1/A. Filters are those applied at 20 A^3 an atom "
            "(`filter_curves`, `filter_matrix`).",
            "",
        ]
    else:
        analysis.lines += [
            f"The blocks are of the kind {filters.mode!r} and have no filter of the wave number; "
            "only their output matrices are analysed.",
            "",
        ]
    analysis.add(tables.singular_table(spectra), plots.singular_values)
    analysis.add(ranks)
    analysis.lines += [
        "Effective rank (eq. 29): the singular values that hold 90 % and 95 % of the energy, and "
        "how many a random matrix of the same form needs.",
        "",
        *_markdown(
            ("block", "matrix", "size", "rank 90 %", "rank 95 %", "random 90 %", "random 95 %"),
            [(b, m, f"{r} x {c}", a, z, f"{p:.1f}", f"{q:.1f}")
             for b, m, r, c, a, z, p, q in ranks.rows],
        ),
    ]  # fmt: skip


def add_observation(analysis: Analysis, seen: Observation, units: dict[str, str]) -> None:
    """Contribution of the reciprocal block, gates, and routing or similarity of the tasks."""
    properties = list(units)
    if seen.refused:
        first = next(iter(seen.refused.items()))
        analysis.lines += [
            "",
            f"{len(seen.refused)} crystals were refused (the first: {first[0]}: {first[1]}).",
        ]
    if RECIPROCAL in seen.sizes:
        _add_contribution(analysis, seen, units)
    gates = tables.distance_table(seen.gates)
    analysis.add(tables.pair_table(seen.gates), plots.gate_pairs)
    analysis.add(tables.element_table(seen.gates), periodic.gate_elements)
    analysis.add(gates, plots.gate_distance)
    low, high = (np.percentile(gates.select()["gate"], q) for q in (5, 95))
    analysis.lines += [
        "",
        "## Gates of the local block",
        "",
        f"Mean over channels of the attention coefficient (eq. 23), {len(seen.gates.elements)} "
        f"elements; over distances and blocks 90 % of its means lie in {low:.2f} to {high:.2f}. "
        "`message` is the norm of gate times message, what the centre receives (`gates_*`).",
    ]
    _add_tasks(analysis, seen, properties)
    analysis.add(tables.crystal_table(seen, properties))


def _add_contribution(analysis: Analysis, seen: Observation, units: dict[str, str]) -> None:
    """What the reciprocal block adds to the local one, and what its absence changes."""
    ratios = tables.ratio_table(seen)
    changes = tables.change_table(seen, units)
    analysis.add(ratios, plots.update_ratio)
    analysis.add(changes, plots.switched_off)
    analysis.lines += [
        "",
        "## Contribution of the reciprocal block",
        "",
        f"Root mean square size of the reciprocal update over that of the local update, "
        f"{len(seen.ids)} crystals (median, quartiles; `update_ratio` has them by crystal family "
        "and bonding).",
        "",
        *_markdown(
            ("part", "block", "lower quartile", "median", "upper quartile"),
            [(r[3], r[4], *(f"{v:.3g}" for v in r[5:])) for r in ratios.rows if r[0] == ALL],
        ),
        "",
        "Predictions with a part of the update left out. The network was not trained without it: "
        "this says how much its answer rests on the part, not how good one without it could be.",
        "",
        *_markdown(
            ("property", "without", "group", "crystals", "mean abs. change", "mean change",
             "mean abs. prediction"),
            [
                (r[0], r[2], r[4] if r[3] != ALL else ALL, r[5],
                 f"{r[6]:.3g} {r[1]}".strip(), f"{r[8]:+.3g}", f"{r[9]:.3g}")
                for r in changes.rows
            ],
        ),
    ]  # fmt: skip


def _add_tasks(analysis: Analysis, seen: Observation, properties: list[str]) -> None:
    """How alike the tasks of a model of several properties are; nothing for one of one."""
    if seen.routing is not None:
        tally = seen.routing
        experts = tables.expert_table(properties, tally.frequencies, tally.weights)
        analysis.add(experts, plots.expert_frequencies)
        matrix, label = tally.similarity, "cosine of selection frequencies"
    elif len(properties) > 1:
        matrix, label = prediction_correlation(seen.predictions), "correlation of predictions"
    else:
        return
    similar = tables.similarity_table(properties, matrix)
    analysis.add(similar, lambda table: plots.task_similarity(table, label))
    rows = [(p, *(f"{v:.2f}" for v in row)) for p, row in zip(properties, matrix, strict=True)]
    analysis.lines += ["", f"## Similarity of the tasks: {label}", ""]
    analysis.lines += _markdown(("", *properties), rows)


def add_composition(analysis: Analysis, sample: Sample) -> None:
    """Ionic, polar, covalent and elemental crystals of the data (table 15)."""
    found = sample.composition
    table = tables.composition_table(found)
    analysis.add(table, plots.composition)
    rows = [
        (name, rule, f"{n:,}", "" if np.isnan(share) else f"{share:.1%}",
         f"{m:,}" if m != "" else "", f"{q:.1%}" if q != "" else "")
        for name, rule, n, share, m, q in table.rows
    ]  # fmt: skip
    columns: tuple[str, ...] = ("class", "rule", "crystals", "share", "paper", "paper's share")
    if not found.paper:
        columns = columns[:4]
    analysis.lines += [
        "",
        f"## Composition of {found.data} (table 15)",
        "",
        "By the largest difference of Pauling electronegativities (pymatgen's) among the elements "
        f"of a crystal; {found.total:,} crystals, {found.on_the_line:,} of them exactly at 0.5.",
        "",
        *_markdown(columns, [row[: len(columns)] for row in rows]),
    ]
    if sample.refused:
        first = next(iter(sample.refused.items()))
        analysis.lines += [
            "",
            f"{len(sample.refused)} entries cannot be used (the first: {first[0]}: {first[1]}).",
        ]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def analyse_model(
    predictor: Predictor, sample: Sample | None, progress: Callable[[int], None] | None = None
) -> Analysis:
    """Filters of a model of properties and, with crystals, what its blocks do with them.

    Args:
        predictor: Holds the model (one).
        sample: The crystals.
        progress: Called with the number of crystals done.

    Raises:
        ReciNetError: If the network has no reciprocal block, or no crystal can be predicted.
    """
    model = single_network(predictor)
    filters = property_filters(model)
    analysis = Analysis(f"Analysis of {model.config.name}")
    add_filters(analysis, filters)
    if sample is not None:
        units = dict(zip(model.config.properties, model.config.units, strict=True))
        add_observation(analysis, observe(predictor, sample, progress), units)
        add_composition(analysis, sample)
    return analysis


def analyse_force_model(name: str, sample: Sample | None) -> Analysis:
    """Filters of a model of energies and forces; it has no gates to watch.

    Raises:
        ReciNetError: If the model has no lattice sum, or cannot be loaded.
    """
    from recinet_ase.pretrained import load_force_model

    model = load_force_model(name)
    analysis = Analysis(f"Analysis of {model.config.name}")
    add_filters(analysis, force_filters(model))
    if sample is not None:
        analysis.lines += [
            "",
            "Contributions and gates are not given for force models: their lattice sum enters "
            "the same layer as the neighbours, without a gate.",
        ]
        add_composition(analysis, sample)
    return analysis


def analyse_data(sample: Sample) -> Analysis:
    """The composition of a data set alone."""
    analysis = Analysis(f"Analysis of {sample.data}")
    add_composition(analysis, sample)
    return analysis
