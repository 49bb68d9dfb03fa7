"""Every schema that comes with Tessera: its tables are read, and a round trains on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from datasites.data.dataset import load, read_schema
from datasites.data.reading.schema_files import read_schema_document, shipped
from orchestrator.demo.schema_data import prepare_tables
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.runs import SimulationRequest, study_of

TCGA = os.environ.get("TESSERA_TCGA", "")
MODALITIES = {"tcga-staging": 3, "tcga-staging-5": 5, "tcga-survival": 3, "heart": 3, "embedding": 2, "toy": 2}


def test_all_of_them_are_checked_here() -> None:
    assert set(shipped()) == set(MODALITIES)


@pytest.mark.parametrize("name", MODALITIES)
def test_a_round_trains_on_made_up_tables_of_a_shipped_schema(name: str) -> None:
    document = read_schema_document(Path(name))
    assert len(document.modalities) == MODALITIES[name]
    request = SimulationRequest(
        data=None, federation="tri-modal", sites=3, task="early-late", methods=("fedavg",), architecture="linear",
        rounds=1, epsilon=float("inf"), delta=1e-4, noise="local", synthetic_patients=45, schema=Path(name),
    )  # fmt: skip
    study = study_of(request, "fedavg", 0)
    gains = {m.name: m.gain for m in document.modalities if m.gain is not None}
    assert dict(study.proposal.model.gains) == gains
    (done,) = run_study(study.proposal, study.model, Shard(study.proposal, study.sites))
    assert done.model != study.model


def test_embeddings_of_a_thousand_columns_and_their_three_outcomes() -> None:
    document = read_schema_document(Path("embedding"))
    assert len(document.modality("slides").names) == 1024
    assert [outcome.kind for outcome in document.outcomes] == ["survival", "categorical", "count"]


@pytest.mark.skipif(not TCGA, reason="needs the TCGA tables (TESSERA_TCGA)")
@pytest.mark.parametrize(("name", "outcome"), [("tcga-staging-5", "I-II"), ("tcga-survival", "overall-survival")])
def test_real_tables_are_dealt_and_read_by_a_shipped_schema(tmp_path: Path, name: str, outcome: str) -> None:
    made = prepare_tables(Path(name), Path(TCGA), tmp_path, outcome=outcome, federation="tri-modal", sites=3, seed=0)
    assert not (tmp_path / "dealt-tables").exists()
    for site in made.sites:
        folder = next((tmp_path / site.name / "datasets").glob("*/v1"))
        schema = read_schema(folder)
        batch = load(folder / "private", schema)
        assert len(batch["label"]) == len(site.cases) > 150
        assert set(schema.modalities) == set(site.modalities)
        for modality in schema.modalities:
            rows = batch[modality][np.abs(batch[modality]).sum(axis=1) > 0]
            assert len(rows) > 0.6 * len(site.cases)
            assert float(rows.std()) > 0.05
