"""Files of models and runs: written whole or not at all, read with errors a user can act on."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recinet_ase.errors import ReciNetError

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORCES = "forces"
"""What a configuration of a force model says under ``kind``."""

T = TypeVar("T")


def temporary_beside(path: Path) -> Path:
    """A name for an unfinished file: of the same folder, and of no other process.

    Random, since processes on two machines that share a file system may have the same number.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:7]}.part")


@contextmanager
def replacing(path: Path, synced: bool = False) -> Iterator[Path]:
    """A file to write that takes the place of another, whole, when the block ends well.

    Args:
        path: The file that it becomes; untouched where the block fails.
        synced: Wait until the disk has it, so that a power cut leaves one of the two.

    Raises:
        OSError: If the disk refuses.
    """
    part = temporary_beside(path)
    try:
        yield part
        if synced:
            replace_synced(part, path)
        else:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def replace_synced(part: Path, path: Path) -> None:
    """Put a finished file in the place of another, so that a power cut leaves one of them.

    Raises:
        OSError: If the disk refuses.
    """
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, payload: bytes) -> None:
    """Write a file so that it is either the old or the whole new one."""
    with replacing(path) as part:
        part.write_bytes(payload)


def write_json(path: Path, record: Any) -> None:
    """Write a dataclass as json, atomically."""
    write_atomic(path, (json.dumps(asdict(record), indent=2) + "\n").encode())


@contextmanager
def parsing(source: str) -> Iterator[None]:
    """What a broken configuration raises, as one error with the name of its file.

    Raises:
        ReciNetError: If something is missing in it, or of the wrong kind.
    """
    try:
        yield
    except ReciNetError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReciNetError(f"{source} is not a model configuration ({error!r})") from None


def known_fields(cls: type[Any], data: dict[str, Any]) -> dict[str, Any]:
    """What of a json object a dataclass has fields for: other versions may have had more."""
    names = {f.name for f in fields(cls)}
    return {key: value for key, value in data.items() if key in names}


def strict_fields(cls: type[T], data: dict[str, Any], what: str) -> T:
    """A dataclass from a dictionary whose every key must mean something.

    Args:
        cls: The dataclass.
        data: Its fields.
        what: What it describes, for the message.

    Raises:
        ReciNetError: If it has keys that this version does not know.
    """
    unknown = set(data) - {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown:
        raise ReciNetError(
            f"{what} has unknown settings {sorted(unknown)}; "
            "it was made by a newer version of recinet-ase"
        )
    return cls(**data)


def check_version(version: int, newest: int, source: str | Path) -> None:
    """Refuse a file of a later layout.

    Raises:
        ReciNetError: If its version is above ``newest``.
    """
    if version > newest:
        raise ReciNetError(
            f"{source} has format version {version}; this recinet-ase reads up to {newest}. "
            "Upgrade recinet-ase"
        )


def read_settings(cls: type[T], path: Path, newest: int, tuples: Sequence[str] = ()) -> T:
    """A run's settings as `write_json` wrote them.

    Args:
        cls: Their dataclass, with a field ``network`` of name-value pairs.
        path: The file.
        newest: Version of the layout that this package writes.
        tuples: Fields that are tuples, empty where an older file has none.

    Raises:
        ReciNetError: If the file is missing, damaged, or of a later layout.
    """
    if not path.is_file():
        raise ReciNetError(f"{path.parent} is no training run: it has no {path.name}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        check_version(data.pop("version", 1), newest, path)
        values = known_fields(cls, data)
        values |= {key: tuple(values.get(key, ())) for key in tuples}
        values["network"] = tuple((key, value) for key, value in values["network"])
        return cls(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReciNetError(f"{path} is not a training configuration ({error})") from None


def refuse_properties(card: dict[str, Any], name: str | Path) -> None:
    """Refuse a model of properties where forces are needed.

    Args:
        card: The model's configuration.
        name: The model as the user named it, for the message.

    Raises:
        ReciNetError: If it gives no forces.
    """
    if card.get("kind") != FORCES:
        raise ReciNetError(
            f"{name} predicts {', '.join(card.get('properties', [])) or 'properties'} and gives no "
            "forces; use mlearn-pes or your own force model"
        )


def save_weights(folder: Path, state: dict[str, torch.Tensor]) -> str:
    """Write a model folder's weights, atomically.

    Returns:
        Their sha256.

    Raises:
        ReciNetError: If one is not finite.
    """
    import torch
    from safetensors.torch import save

    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise ReciNetError(f"cannot save {folder}: {key} is not finite")
    payload = save(state)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / WEIGHTS_FILE, payload)
    return hashlib.sha256(payload).hexdigest()


def read_config(folder: Path) -> str:
    """The text of a model folder's configuration.

    Raises:
        ReciNetError: If the folder is none of a model.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ReciNetError(f"{folder} is no model folder: it has no {name}")
    return (folder / CONFIG_FILE).read_text(encoding="utf-8")


def read_weights(folder: Path, sha256: str) -> dict[str, torch.Tensor]:
    """A model folder's weights, in single precision; nothing is unpickled.

    Args:
        folder: The folder.
        sha256: What the configuration says that their hash is.

    Raises:
        ReciNetError: If they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS_FILE
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise ReciNetError(
            f"{path} is damaged: its sha256 differs from {CONFIG_FILE}; "
            "copy or install the model again"
        )
    try:
        return {key: value.float() for key, value in load(payload).items()}
    except SafetensorError as error:
        raise ReciNetError(f"{path} does not fit its configuration ({error})") from None


def take_weights(network: torch.nn.Module, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Put weights into the network that they were saved from.

    Raises:
        ReciNetError: If they are those of another architecture.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ReciNetError(
            f"{folder / WEIGHTS_FILE} does not fit its configuration ({error})"
        ) from None
