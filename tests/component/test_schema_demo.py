"""The demo's made-up hospitals of any schema: read like a hospital's own tables, with odd modalities and outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.outcome_schemas import SEVEN

from datasites.data.dataset import load, read_schema
from orchestrator.demo.schema_data import PATIENTS, prepare_schema


@pytest.mark.parametrize(
    ("outcome", "classes", "labels"),
    [("how bad", 3, 3), ("relapse", 2, 2), ("sub-type (WHO)", 4, 4), ("nodes", 0, 10), ("size", 0, 100), ("os", 0, 8)],
)
def test_hospitals_of_seven_modalities_read_their_tables_and_hold_every_patient(
    tmp_path: Path, outcome: str, classes: int, labels: int
) -> None:
    (tmp_path / "seven.toml").write_text(SEVEN, encoding="utf-8")
    made = prepare_schema(tmp_path / "seven.toml", tmp_path / "out", outcome=outcome, sites=4, seed=1)
    assert [len(site.cases) for site in made.sites] == [PATIENTS] * 4
    assert [len(site.modalities) for site in made.sites] == [7, 7, 7, 6]
    for site in made.sites:
        folder = next((tmp_path / "out" / site.name / "datasets").glob("*/v1"))
        schema = read_schema(folder)
        assert (schema.task, schema.classes, len(schema.features)) == (outcome, classes, 7)
        batch = load(folder / "private", schema)
        assert batch["presence"].shape == (PATIENTS, 7)
        found = set(batch["label"].tolist())
        assert found == set(range(classes)) if classes else len(found) >= labels
        mock = load(folder / "mock", schema)["label"]
        assert mock.dtype == batch["label"].dtype
        assert len(set(mock.tolist())) > 1
        assert schema.predicts is None if outcome in ("how bad", "relapse") else schema.predicts is not None
    assert read_schema(made.test).cohorts == ("Ä 1", "b")
