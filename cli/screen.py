"""``recinet-screen``: predict properties for files full of structures."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from recinet_ase.cli.common import (
    Joined,
    StrictCommand,
    one_line_errors,
    open_standard_streams,
)
from recinet_ase.cli.progress import ScreenDisplay


class _Screen(StrictCommand):
    """``--unique`` takes its method only where one follows, never a file or an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for i, word in reversed(list(enumerate(args[:-1]))):
            follows = args[i + 1]
            if word == "--unique" and (set(follows) & set("./*?[") or Path(follows).exists()):
                args = [*args[:i], "--unique=fingerprint", *args[i + 1 :]]
        return super().parse_args(ctx, args)


@click.command(cls=_Screen, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True)
@click.option("--props", cls=Joined, help="Properties, comma-separated, e.g. bandgap,ehull.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Model name or folder, or all; may be repeated. By default each property's own.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Result: .csv, .jsonl, .parquet, .db or .json (ASE), .extxyz; csv to stdout if neither "
    "this nor --report is given.",
)
@click.option("--report", metavar="FILE", help="Write one self-contained html page.")
@click.option("--intervals", is_flag=True, help="Add 90 % intervals and in_domain.")
@click.option("--relax", is_flag=True, help="Relax each structure first (jarvis-pes).")
@click.option(
    "--relax-with",
    metavar="NAME",
    help="Relax with another force model, a model folder, or MODULE:CLASS of ASE's.",
)
@click.option(
    "--relax-fmax",
    type=click.FloatRange(0, min_open=True),
    default=0.02,
    show_default=True,
    help="Largest force that a relaxation leaves, eV/A.",
)
@click.option(
    "--relax-steps",
    type=click.IntRange(0),
    default=300,
    show_default=True,
    help="Steps after which a relaxation is given up.",
)
@click.option(
    "--decomposition", is_flag=True, help="Add the phases that compete with each crystal (ehull)."
)
@click.option(
    "--hull",
    multiple=True,
    metavar="FILE",
    help="References for ehull: a file of formation energies, jarvis, mp, or self (the screened "
    "crystals); may be repeated. By default those of the model's level of theory.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="TEXT",
    help="Keep rows, e.g. 'bandgap > 1 and ehull < 0.05'; where repeated, all must hold.",
)
@click.option(
    "--confident", is_flag=True, help="--where must hold on the whole 90 % interval, in the domain."
)
@click.option(
    "--pareto",
    cls=Joined,
    metavar="COLUMNS",
    help="Keep the best trade-offs, e.g. ehull,-bandgap.",
)
@click.option(
    "--sort",
    cls=Joined,
    metavar="COLUMNS",
    help="Order rows, e.g. ehull,-bandgap (- descending).",
)
@click.option(
    "--unique",
    is_flag=False,
    flag_value="fingerprint",
    metavar="[METHOD]",
    help="Keep one of each structure: fingerprint (default) or matcher (pymatgen's).",
)
@click.option("--top", type=int, metavar="N", help="Keep the first N rows.")
@click.option("--id-key", metavar="KEY", help="Take ids from this key of info/key_value_pairs.")
@click.option(
    "--select", cls=Joined, metavar="TEXT", help="ASE selection for databases, e.g. 'natoms<20,Li'."
)
@click.option("--structure-column", metavar="NAME", help="Column that holds the structures.")
@click.option("--format", "stdin_format", metavar="SUFFIX", help="Format of stdin (FILES is -).")
@click.option("--resume", is_flag=True, help="Go on where an earlier run of this line stopped.")
@click.option("--workers", type=click.IntRange(0), help="Processes; one a core by default.")
@click.option(
    "--scheduler", metavar="ADDRESS", help="Dask: 'local' or an address such as tcp://node01:8786."
)
@click.option(
    "--time-limit",
    type=click.FloatRange(1, 1e6),
    help="Seconds after which a structure is given up; 300 where there are worker processes.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:1, cuda:0,cuda:2, ...; auto is every GPU, else the CPU.",
)
@click.option("--batch-size", default="auto", show_default=True, help="Crystals a batch.")
@click.option(
    "--log", metavar="FILE", help="Add notes, lost structures and tracebacks of faults to this."
)
@click.option("-q", "--quiet", is_flag=True, help="No summary, no progress.")
@one_line_errors
def screen(files: tuple[str, ...], **options: Any) -> None:
    """Predict properties for every structure in FILES.

    FILES are ASE databases, extxyz, CIF, POSCAR, trajectories, pymatgen, JARVIS and matminer
    json, csv or parquet tables with a column of CIFs, folders, or quoted patterns such as
    'cifs/*.cif'; - is standard input. Every structure gives one row, in input order; one that
    no model can answer for gets its reason in the column "error".

    \b
    recinet-screen db.json --props bandgap,ehull
    recinet-screen 'cifs/*.cif' --model jarvis-mbj -o gaps.csv
    recinet-screen db.json --props bandgap,ehull --where 'bandgap > 1 and ehull < 0.05' \\
        --sort ehull --top 50 -o shortlist.csv --report shortlist.html
    """  # noqa: D301 (click looks for the character itself)
    display = ScreenDisplay(options["quiet"], options["log"])
    target = options["output"] or options["report"]
    try:
        with _logged(options["log"]):
            display.busy("loading")
            _run(files, options, display)
    except KeyboardInterrupt:
        again = ""
        if target and (part := Path(f"{os.path.realpath(target)}.part")).exists():
            again = f"; go on with --resume (rows so far: {part})"
        click.echo(f"interrupted after {display.done:,} structures{again}", err=True)
        raise SystemExit(130) from None
    finally:
        display.busy()


def _run(files: tuple[str, ...], options: dict[str, Any], display: ScreenDisplay) -> None:
    """From words to options, the screen, and what is told of it."""
    from recinet_ase.errors import ReciNetError

    props, models = options["props"], options["models"]
    if props is None and not models:
        raise ReciNetError("say what to predict: --props bandgap,ehull or --model NAME")
    from recinet_ase.pretrained import model_properties
    from recinet_ase.properties import parse_properties
    from recinet_ase.screening.selection.selection import Selection

    if models == ("all",):
        from recinet_ase.inference.predict import default_models

        models = () if props else tuple(default_models())  # props have their models by default
    known = [info for name in models for info in model_properties(name)] if props else []
    infos = None if props is None else parse_properties(props, known)
    selection = Selection(
        where=_joined(options["where"]),
        confident=options["confident"],
        sort=_keys("--sort", options["sort"]),
        top=options["top"],
        pareto=_keys("--pareto", options["pareto"]),
        unique=options["unique"],
    )
    from recinet_ase.screening.options import ScreenOptions
    from recinet_ase.screening.run import run_screen

    relaxation = None
    if options["relax"] or options["relax_with"]:
        from recinet_ase.screening.relaxation import RelaxationSpec
        from recinet_ase.simulation.relaxation import RelaxationSettings

        settings = RelaxationSettings(options["relax_fmax"], options["relax_steps"])
        relaxation = RelaxationSpec.chosen(options["relax_with"], settings)
    wanted = ScreenOptions(
        files=files,
        infos=infos,
        models=models,
        selection=selection,
        ase_selection=options["select"],
        relaxation=relaxation,
        batch_size=_batch_size(options["batch_size"]),
        **{
            name: options[name]
            for name in (
                "output", "report", "intervals", "id_key", "structure_column", "stdin_format",
                "device", "workers", "scheduler", "time_limit", "resume", "hull", "decomposition",
            )
        },
    )  # fmt: skip
    command = ["recinet-screen", *sys.argv[1:]]
    with run_screen(wanted, display, command) as outcome:
        _tell(outcome, wanted, display)
    if outcome.rows and outcome.errors == outcome.rows:
        raise SystemExit(1)


def _joined(conditions: tuple[str, ...]) -> str | None:
    """One condition that holds where all of them do."""
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    from recinet_ase.screening.selection.expression import parse

    lines = [" ".join(text.splitlines()).strip() for text in conditions]
    for line in lines:
        parse(line)  # each must stand alone: `a) or (b` would become a part of the others
    return " and ".join(f"({line})" for line in lines)


@contextmanager
def _logged(path: str | None) -> Iterator[None]:
    """What the package logs, in a file, or nowhere."""
    from recinet_ase.errors import ReciNetError

    handler: logging.Handler = logging.NullHandler()
    if path is not None:
        try:
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise ReciNetError(f"cannot write {path}: {error.strerror}") from None
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("recinet_ase")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        handler.close()


def _keys(option: str, text: str | None) -> tuple[str, ...]:
    from recinet_ase.errors import ReciNetError
    from recinet_ase.screening.selection.selection import parse_keys

    keys = parse_keys(text)
    if text is not None and not keys:
        raise ReciNetError(f"{option} names no column")
    return keys


def _interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _batch_size(text: str) -> int | str:
    from recinet_ase.errors import ReciNetError

    if text == "auto":
        return text
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ReciNetError(f"--batch-size must be 'auto' or a positive number, not {text!r}")
    return int(text)


def _tell(outcome: Any, wanted: Any, display: ScreenDisplay) -> None:
    """The summary, and where the results are."""
    display.busy()
    if outcome.was_complete:
        click.echo(f"{wanted.output or wanted.report} is complete; nothing to resume", err=True)
        return
    if outcome.table is not None and not display.quiet:
        from recinet_ase.screening.output.terminal import print_summary

        print_summary(
            outcome.table, outcome.indices, selection=wanted.selection if wanted.selection else None
        )
    if outcome.table is not None and wanted.selection.where and not len(outcome.indices):
        from recinet_ase.cli.common import printable
        from recinet_ase.screening.selection.misses import told

        for line in told(outcome.table, wanted.selection):
            display.note(printable(line))
    if outcome.without_key:
        display.note(
            f"{outcome.without_key} structures have no key {wanted.id_key!r}; their ids are those "
            "of the input, or file#index"
        )
    if outcome.unwritten:
        display.note(f"{outcome.unwritten} rows have no structure and are not in {wanted.output}")
    if wanted.relaxation is not None and outcome.table is not None:
        flags, errors = outcome.table.column("relaxed"), outcome.table.column("error")
        moving = sum(f is False and not e for f, e in zip(flags, errors, strict=True))
        if moving:
            display.note(f"{moving} structures did not come to rest (relaxed is false)")
    if outcome.faults:
        see = f"tracebacks: {display.log}" if display.log else "--log FILE keeps tracebacks"
        display.note(
            f"warning: {outcome.faults} errors are faults of this program or of the machine's "
            f"memory, not of structures ({see})"
        )
    if outcome.lost:
        display.note(
            f"warning: {outcome.lost} structures ended their worker process or took too long"
        )
    where = ", ".join(name for name in (wanted.output, wanted.report) if name)
    display.note(
        f"{outcome.rows} structures, {outcome.errors} with errors{where and f' -> {where}'}"
    )


def main() -> None:
    """Entry point of ``recinet-screen``."""
    open_standard_streams()
    # A job scheduler's last warning, or a terminal that is closed, ends a screen as Ctrl-C does:
    # resumable, workers stopped.
    signal.signal(signal.SIGTERM, _interrupted)
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:  # else nohup
        signal.signal(hangup, _interrupted)
    screen(prog_name="recinet-screen")


if __name__ == "__main__":
    main()
