"""Five hundred malformed structures between good ones: none lost, none twice, none changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus import CorpusFile, write_corpus

from recinet_ase import Predictor
from recinet_ase.io import chunks, find_sources
from recinet_ase.screening.execution import chunk as execution


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[CorpusFile]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("jarvis-mbj", device="cpu", intervals=False)


def test_it_is_large_and_varied(corpus: list[CorpusFile], tmp_path: Path) -> None:
    faults = [case.fault for file in corpus for case in file.cases if case.fault]
    assert len(faults) == 500 and len(set(faults)) >= 25
    assert sum(not case.fault for file in corpus for case in file.cases) > 200
    again = write_corpus(tmp_path)
    assert [f.cases for f in again] == [f.cases for f in corpus]
    for file, other in zip(corpus, again, strict=True):
        if file.path.is_file() and file.path.suffix != ".db":  # ASE stamps its rows
            assert file.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize(
    "name", ["cifs", "blocks.cif", "frames.extxyz", "rows.db", "records.jsonl", "table.csv"]
)
def test_bad_ones_are_rows_and_good_ones_are_unchanged(
    name: str, corpus: list[CorpusFile], predictor: Predictor
) -> None:
    file = next(file for file in corpus if file.path.name == name)

    def screen(path: Path) -> list[dict[str, object]]:
        parts = (
            execution.prepare_chunk(predictor.preparation, None, chunk)
            for chunk in chunks(find_sources([str(path)]))
        )
        return [row for part in parts for row in execution.finish_chunk(predictor, part).rows]

    rows, clean = screen(file.path), iter(screen(file.clean))
    assert len(rows) == len(file.cases)
    assert len({row["id"] for row in rows}) == len(rows)
    for row, case in zip(rows, file.cases, strict=True):
        if case.fault:
            reason = str(row["error"])
            assert row["bandgap"] is None, (case, row)
            assert len(reason.split()) >= 3 and "\n" not in reason, (case, row)
        else:
            wanted = next(clean)
            assert not row["error"] and not wanted["error"], (case, row, wanted)
            assert row["formula"] == wanted["formula"], case
            assert row["bandgap"] == pytest.approx(wanted["bandgap"], rel=1e-5, abs=1e-5), case
    assert next(clean, None) is None
