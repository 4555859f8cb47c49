"""``OUT.meta.json``: where the numbers of an output file come from."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase._version import __version__
from recinet_ase.errors import ReciNetError
from recinet_ase.inference.result import ENDS, SPREAD
from recinet_ase.io import fingerprint
from recinet_ase.io.databases import masked
from recinet_ase.io.entries import encodable
from recinet_ase.models.files import replacing

if TYPE_CHECKING:
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.io.entries import Source
    from recinet_ase.stability.hull import Hull

_PACKAGES = ("ase", "numpy", "pymatgen", "torch")
_LISTED = 1000  # inputs named one by one


def sidecar_path(output: str | Path) -> Path:
    """Where the sidecar of an output file lies."""
    path = Path(output)
    return path.with_name(f"{path.name}.meta.json")


def sidecar_identity(output: str | Path) -> str | None:
    """The digest of the screen that an output file is the result of, None if nothing says."""
    try:
        document = json.loads(sidecar_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document.get("screen") if isinstance(document, dict) else None


def write_sidecar(
    output: str | Path,
    predictor: Predictor,
    sources: Sequence[Source],
    columns: Sequence[str],
    units: Mapping[str, str],
    counts: Mapping[str, int],
    started: datetime,
    ended: datetime | None = None,
    command: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write the sidecar, whole or not at all.

    Args:
        output: The output file.
        predictor: What gave the numbers.
        sources: The inputs.
        columns: Columns of the output, in order.
        units: Unit of each column of numbers, ``""`` for none.
        counts: What was counted, e.g. ``structures``, ``errors``, ``written``.
        started: When the work began; a resumed screen gives the first beginning.
        ended: When it ended, now by default.
        command: The command line, that of this process by default; passwords in addresses
            are masked.
        extra: Anything else to be kept (the screen's digest, the selection).

    Returns:
        Its path.

    Raises:
        ReciNetError: If it cannot be written.
    """
    document = {
        "command": encodable(shlex.join(map(masked, sys.argv if command is None else command))),
        "versions": _versions(),
        "models": models(predictor),
        "columns": [_column(name, units, predictor) for name in columns],
        "inputs": [_input(source) for source in sources[:_LISTED]],
        "input_count": len(sources),
        "input_fingerprint": fingerprint(sources),
        "counts": dict(counts),
        "started": _iso(started),
        "ended": _iso(ended or datetime.now(UTC)),
        "host": platform.node(),
        **(extra or {}),
    }
    path = sidecar_path(output)
    text = json.dumps(document, indent=2, default=str) + "\n"
    try:
        with replacing(path, synced=True) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReciNetError(f"cannot write {path}: {error.strerror}") from None
    return path


def models(predictor: Predictor) -> list[dict[str, Any]]:
    """Name, weights' sha256, properties and functionals of each model."""
    described = []
    for model in predictor.models:
        config = model.config
        described.append(
            {
                "name": config.name,
                "sha256": config.sha256,
                "members": [m.config.sha256 for m in model.members],
                "fingerprint": model.fingerprint,
                "properties": [
                    {"name": name, "unit": unit, "functional": config.functional_of(name)}
                    for name, unit in zip(config.properties, config.units, strict=True)
                ],
                "calibrated": model.calibration is not None,
                "caution": config.caution,
            }
        )
    return described


def references(hull: Hull) -> dict[str, Any]:
    """What ``ehull`` is measured from."""
    return {
        "name": hull.name,
        "functional": hull.functional,
        "phases": len(hull),
        "fingerprint": hull.fingerprint,
    }


def _versions() -> dict[str, str]:
    found = {"recinet-ase": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def _column(name: str, units: Mapping[str, str], predictor: Predictor) -> dict[str, str]:
    about = {"name": name}
    if name in units:
        about["unit"] = units[name]
    for prop, model in predictor.properties.items():
        if name in {prop + ending for ending in ("", *ENDS, SPREAD)}:
            about["model"] = model.config.name
    return about


def _input(source: Source) -> dict[str, Any]:
    """What the sidecar says of an input."""
    about: dict[str, Any] = {
        "name": source.title,
        "format": source.kind,
        "fingerprint": fingerprint([source]),
    }
    if source.selection is not None:
        about["selection"] = source.selection
    if source.fault is not None:
        about["fault"] = str(source.fault)
    return about


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
