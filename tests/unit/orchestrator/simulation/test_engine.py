"""The simulation's engine: shards, the public seed, and which records validate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from datasites.data.synthetic import SyntheticShape, generate
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.sites import make_sites, patients, simulated_study
from orchestrator.studies.proposing.settings import StudySettings
from privacy.errors import InvalidInput

torch.set_num_threads(1)


SHAPE = SyntheticShape(patients={"BRCA": 80, "LUSC": 60, "LIHC": 60}, genes=20, image_features=12, signal=0.6)


SETTINGS = StudySettings(
    study="twin", purpose="p", legal_basis="l", task="early-late", rounds=3, epsilon=8.0, seed=11, deadline_seconds=30
)


@pytest.fixture(scope="module")
def tables():
    return generate(seed=1, shape=SHAPE)


def test_shards_of_any_size_add_up_to_the_same_model(tables):
    from datasites.data.federations import build

    federation = build("tri-modal", tables, task="early-late", seed=5, sites=5)
    study = simulated_study(patients(tables, "early-late", federation.cohorts), federation, SETTINGS)
    shards = [Shard(study.proposal, study.sites[:2]), Shard(study.proposal, study.sites[2:])]
    plan = next(iter(run_study(study.proposal, study.model, Shard(study.proposal, study.sites)))).plan
    whole = Shard(study.proposal, study.sites).round(plan, study.model)
    parts = [shard.round(plan, study.model) for shard in shards]
    for block, total in whole.totals.items():
        assert (total == sum(p.totals[block] for p in parts if block in p.totals)).all()


def test_a_simulation_without_a_public_seed_is_refused(tables):
    from datasites.data.federations import build

    federation = build("tri-modal", tables, task="early-late", seed=5, sites=5)
    everyone = patients(tables, "early-late", federation.cohorts)
    with pytest.raises(InvalidInput, match="public seed"):
        simulated_study(everyone, federation, replace(SETTINGS, seed=None))


def test_which_records_validate_hangs_on_the_seed_alone(tables):
    from datasites.data.federations import build

    federation = build("tri-modal", tables, task="early-late", seed=5, sites=5)
    everyone = patients(tables, "early-late", federation.cohorts)
    one, two = (simulated_study(everyone, federation, replace(SETTINGS, seed=s)).sites for s in (1, 2))
    assert any((a.trains != b.trains).any() for a, b in zip(one, two, strict=True))
    assert len(make_sites(everyone, federation)[0]) == len(one)
