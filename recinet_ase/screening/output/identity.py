"""Whose result a finished file is: what ``--resume`` asks before it calls a screen complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError
from recinet_ase.screening.output.metadata import sidecar_identity
from recinet_ase.screening.selection.selection import Selection

if TYPE_CHECKING:
    from recinet_ase.inference.predictor import Predictor

REPORTS = (".html", ".htm")


def what_answers(predictor: Predictor) -> list[dict[str, str]]:
    """For each model its name, and digests of its weights, configuration and calibration."""
    return [
        {
            "name": model.config.name,
            "weights": model.fingerprint,
            "configuration": _digest([m.config.to_json() for m in (model, *model.members)]),
            "calibration": "" if model.calibration is None else model.calibration.digest,
        }
        for model in predictor.models
    ]


def screen_identity(header: Mapping[str, Any], selection: Selection) -> str:
    """A digest of all that a finished output depends on."""
    return _digest([header, asdict(selection)])


def _digest(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def is_complete(files: Sequence[str | None], identity: str) -> bool:
    """Whether all wanted files are there, as results of the screen with this digest.

    Raises:
        ReciNetError: If one is of another screen, or only one of them is there.
    """
    wanted = [Path(name) for name in files if name is not None]
    missing = [path for path in wanted if not path.exists()]
    if missing == wanted:
        return False
    for path in wanted:
        if path not in missing:
            _check_result(path, identity)
    if missing:
        (there,) = (path for path in wanted if path not in missing)
        raise ReciNetError(
            f"{there} is complete, and {missing[0]} is not there; leave --resume out to write both"
        )
    return True


def _check_result(path: Path, identity: str) -> None:
    """Refuse a file that is another screen's, or of which nothing says whose."""
    if path.suffix.lower() in REPORTS:
        from recinet_ase.screening.output.report import report_identity

        found = report_identity(path)
    else:
        found = sidecar_identity(path)
    if found == identity:
        return
    what = (
        "is there, but nothing says that it is the result of this screen"
        if found is None
        else "is the finished result of another screen (other inputs, models, settings or "
        "version of recinet-ase)"
    )
    raise ReciNetError(f"{path} {what}; leave --resume out to write it anew")
