"""Ray carries the same sums: the same model as the local engine, bit for bit; without Ray a clear word."""

from __future__ import annotations

import importlib.util
import warnings

import pytest
import torch

from datasites.data.federations import build
from datasites.data.synthetic import SyntheticShape, generate
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.ray_engine import ray_cluster
from orchestrator.simulation.sites import patients, simulated_study
from orchestrator.studies.proposing.settings import StudySettings
from privacy.errors import InvalidInput

torch.set_num_threads(1)
HERE = importlib.util.find_spec("ray") is not None
SHAPE = SyntheticShape(patients={"BRCA": 80, "LUSC": 60, "LIHC": 60}, genes=20, image_features=12, signal=0.6)
SETTINGS = StudySettings(
    study="ray", purpose="p", legal_basis="l", task="early-late", rounds=4, seed=11, aggregation="dgb+pcw"
)


@pytest.mark.skipif(not HERE, reason="needs Ray: pip install 'tessera-fl[ray]'")
@pytest.mark.slow
def test_sites_in_ray_processes_give_the_model_of_the_local_engine():
    tables = generate(seed=1, shape=SHAPE)
    federation = build("dirichlet", tables, task="early-late", seed=5, sites=9, alpha=50)
    everyone = patients(tables, "early-late", federation.cohorts)
    study = simulated_study(everyone, federation, SETTINGS)
    here = list(run_study(study.proposal, study.model, Shard(study.proposal, study.sites)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, at start and shutdown
        with ray_cluster(None, processes=2) as make:
            there = list(run_study(study.proposal, study.model, make(study)))
    assert [r.model for r in there] == [r.model for r in here]
    assert there[-1].finished.releases == here[-1].finished.releases


@pytest.mark.skipif(HERE, reason="Ray is installed here")
def test_without_ray_it_says_what_to_install():
    with pytest.raises(InvalidInput, match=r"tessera-fl\[ray\]"), ray_cluster(None, processes=2):
        pass
