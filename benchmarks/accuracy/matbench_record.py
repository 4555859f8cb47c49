"""MatBench's scores, and its file of recorded results (Dunn et al. 2020).

The layout is that of ``MatbenchBenchmark.to_file`` of the package ``matbench``, which pins
old versions of half the scientific stack and is not needed to write it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recinet_ase.errors import ReciNetError

BENCHMARK = "matbench_v0.1"
LAYOUT_VERSION = "0.4"
_SMALLEST = 1e-5  # labels below it are left out of the percentage, as MatBench does
_DATESTAMP = "%Y.%m.%d %H:%M.%S"


@dataclass(frozen=True)
class FoldResult:
    """Predictions for one test fold.

    Attributes:
        predictions: By MatBench id, one for every id of the fold.
        targets: Labels by id; none where they are withheld.
        parameters: Anything worth recording: plain values, lists and dictionaries.
    """

    predictions: Mapping[str, float]
    targets: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, float]:
        """MatBench's four scores, none if a label of the fold is not known."""
        if not self.predictions or set(self.predictions) - set(self.targets):
            return {}
        ids = list(self.predictions)
        return regression_scores(
            [self.targets[key] for key in ids], [self.predictions[key] for key in ids]
        )


def regression_scores(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> dict[str, float]:
    """MAE, RMSE, mean absolute percentage error (a fraction) and largest error."""
    true, predicted = np.asarray(targets, float), np.asarray(predictions, float)
    error = np.abs(true - predicted)
    large = np.abs(true) > _SMALLEST
    return {
        "mae": float(error.mean()),
        "rmse": math.sqrt(float((error**2).mean())),
        "mape": float((error[large] / np.abs(true[large])).mean()) if large.any() else 0.0,
        "max_error": float(error.max()),
    }


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean over the folds and their standard deviation, as MatBench states them (``np.std``)."""
    return float(np.mean(values)), float(np.std(values))


def results_document(
    tasks: Mapping[str, Sequence[FoldResult]], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of a results file.

    Args:
        tasks: The five folds of each task.
        metadata: What to say of the method: plain values, lists and dictionaries.

    Raises:
        ReciNetError: If a fold has no scores: MatBench takes no file without.
    """
    recorded = {}
    for name, folds in tasks.items():
        results = {}
        for number, fold in enumerate(folds):
            if not fold.scores:
                raise ReciNetError(
                    f"{name}, fold {number}: the labels are withheld, and MatBench records scores"
                )
            results[f"fold_{number}"] = {
                "data": dict(fold.predictions),
                "parameters": dict(fold.parameters),
                "scores": fold.scores,
            }
        recorded[name] = {
            "@module": "matbench.task",
            "@class": "MatbenchTask",
            "benchmark_name": BENCHMARK,
            "dataset_name": name,
            "results": results,
        }
    document = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": LAYOUT_VERSION,
        "tasks": recorded,
        "user_metadata": dict(metadata),
        "benchmark_name": BENCHMARK,
        "datestamp": datetime.now(UTC).strftime(_DATESTAMP),
    }
    return {**document, "hash": document_hash(document)}


def document_hash(document: Mapping[str, Any]) -> str:
    """MatBench's checksum: sha256 of the json text with all keys in order."""
    content = {key: value for key, value in document.items() if key != "hash"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_results(document: Mapping[str, Any], path: Path) -> None:
    """Write a results file (``.json`` or ``.json.gz``)."""
    text = json.dumps(document).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
