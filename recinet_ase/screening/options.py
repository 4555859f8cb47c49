"""What a screen is asked for, and what it tells."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from recinet_ase.screening.selection.selection import Selection

if TYPE_CHECKING:
    import numpy as np

    from recinet_ase.properties import PropertyInfo
    from recinet_ase.screening.journal_table import JournalTable
    from recinet_ase.screening.relaxation import RelaxationSpec


@dataclass(frozen=True)
class ScreenOptions:
    """What the user asked for.

    Attributes:
        files: Inputs, as `recinet_ase.io.find_sources` takes them.
        infos: Wanted properties; all that the models predict if None.
        models: Names or folders of models.
        output: Result file, or None for csv on standard output.
        report: Html report, or None.
        selection: Which rows, in what order.
        intervals: Give 90 % intervals and say whether a crystal is in the models' domain.
        id_key: Key that holds the identity.
        ase_selection: ASE selection string for databases.
        structure_column: Column that holds the structures of a table.
        stdin_format: Format of standard input.
        device: Torch devices, comma-separated, or ``"auto"``: every GPU, else the CPU.
        batch_size: Crystals a batch or ``"auto"``.
        workers: Worker processes; None chooses.
        scheduler: ``"local"`` or the address of a Dask scheduler.
        time_limit: Seconds a structure may take, which needs a worker process; None is
            `TIME_LIMIT` where there are any.
        resume: Go on where an earlier run stopped.
        hull: References for ``ehull``: names, files, ``"self"``; those of the model's level of
            theory if empty.
        decomposition: Add the phases that compete with each crystal.
        relaxation: What relaxes crystals before they are judged, or None.
    """

    files: tuple[str, ...]
    infos: list[PropertyInfo] | None = None
    models: tuple[str, ...] = ()
    output: str | None = None
    report: str | None = None
    selection: Selection = field(default_factory=Selection)
    intervals: bool = False
    id_key: str | None = None
    ase_selection: str | None = None
    structure_column: str | None = None
    stdin_format: str | None = None
    device: str | None = None
    batch_size: int | str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    time_limit: float | None = None
    resume: bool = False
    hull: tuple[str, ...] = ()
    decomposition: bool = False
    relaxation: RelaxationSpec | None = None


class Display(Protocol):
    """What a screen tells while it runs."""

    def busy(self, what: str) -> None:
        """Work that nothing counts, until the next note or bar."""

    def note(self, line: str) -> None:
        """A line for the user: where numbers come from, or what went otherwise than expected."""

    def progress(self, total: int | None, done: int) -> AbstractContextManager[Callback]:
        """A bar that starts at ``done``; yields a function that takes further rows done."""


class Callback(Protocol):
    """Takes numbers of rows done."""

    def __call__(self, rows: int, /) -> None:
        """Count further rows."""


@dataclass
class ScreenOutcome:
    """What came out.

    Attributes:
        rows: Structures screened.
        errors: Rows with an error.
        faults: Of these, rows whose error is none of the structure but of this program or of the
            machine (its memory): a traceback of each is logged.
        lost: Of these, rows whose structure ended its worker or took too long.
        without_key: Entries that lack the user's id key.
        written: Rows of the output.
        unwritten: Selected rows that the output's format could not hold.
        table: All rows, while the screen's files are there.
        indices: The rows selected, or None if no selection was asked for.
        was_complete: There was nothing to resume: the output is this screen's result.
    """

    rows: int = 0
    errors: int = 0
    faults: int = 0
    lost: int = 0
    without_key: int = 0
    written: int = 0
    unwritten: int = 0
    table: JournalTable | None = None
    indices: np.ndarray | None = None
    was_complete: bool = False
