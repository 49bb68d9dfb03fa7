"""Generated hospital tables: nothing is lost, changed or invented without a line in the reading report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import support.benchmarks  # noqa: F401 - makes the harness importable
from harness.hospital_tables import losses, make, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasites.data.reading import groups, tables
from datasites.data.reading.cells import numbers
from datasites.data.reading.cells.words import CategoryColumn
from datasites.study.schema.document import PatientId


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_no_generated_table_loses_a_value_in_silence(seed: int) -> None:
    report = run(seed, 1)
    assert (report["silent_losses"], report["tracebacks"]) == (0, 0), report["examples"]


@pytest.mark.thorough
def test_ten_thousand_tables_lose_nothing_in_silence() -> None:
    report = run(0, 10_000)
    assert (report["silent_losses"], report["tracebacks"]) == (0, 0), report["examples"]
    assert report["accepted"] > 2000


def prefix(self: CategoryColumn, word: str) -> str:
    return next((known for known in self._known if word.startswith(known[:1])), word)


@pytest.mark.parametrize("fault", ["prefix", "units", "ids", "names", "missing"])
def test_a_reader_with_a_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison must be able to see a loss: each fault of a real reader is found among sixty tables."""
    if fault == "prefix":
        monkeypatch.setattr(CategoryColumn, "_code_of", prefix)
    elif fault == "units":
        monkeypatch.setattr(numbers, "unit_factor", lambda *_: 1.0)
    elif fault == "ids":
        monkeypatch.setattr(PatientId, "of", lambda _, text: text.strip()[:-1])
    elif fault == "names":
        monkeypatch.setattr(groups, "table_facts", no_hint(groups.table_facts))
        monkeypatch.setattr("datasites.data.reading.hospital.table_facts", no_hint(groups.table_facts))
    else:
        monkeypatch.setattr(tables, "_plain", dropping(tables._plain))
    assert any(run(seed, 1)["silent_losses"] for seed in range(60))


def no_hint(real):
    def facts(*arguments):
        from dataclasses import replace

        found = real(*arguments)
        return replace(found, joined=found.patients, hint="")

    return facts


def dropping(real):
    def plain(batch):
        table: pd.DataFrame = real(batch)
        return table.map(lambda cell: "" if cell in ("NA", "None", "none") else cell)

    return plain


def test_a_loss_in_the_truth_is_seen(tmp_path: Path) -> None:
    made = next(m for seed in range(40) if losses(m := make(seed, fresh(tmp_path, seed)))[1])
    name = made.schema.modalities[0].names[0]
    for one in made.truth[name].values():
        one.value = None
    assert losses(made)[0]


def fresh(folder: Path, seed: int) -> Path:
    (folder / str(seed)).mkdir()
    return folder / str(seed)
