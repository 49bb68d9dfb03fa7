"""A simulated study is the live one without network and encryption: the same model, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from support.live_study import LiveStudies

from datasites.data.synthetic import SyntheticShape, generate
from datasites.training.local_parameters import newest
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.sites import patients, simulated_study
from orchestrator.studies.proposing.schedule import with_schedule
from orchestrator.studies.proposing.settings import StudySettings

torch.set_num_threads(1)
SHAPE = SyntheticShape(patients={"BRCA": 80, "LUSC": 60, "LIHC": 60}, genes=20, image_features=12, signal=0.6)
SETTINGS = StudySettings(
    study="twin", purpose="p", legal_basis="l", task="early-late", rounds=3, epsilon=8.0, seed=11, deadline_seconds=30
)


@pytest.fixture(scope="module")
def tables():
    return generate(seed=1, shape=SHAPE)


@pytest.fixture(scope="module")
def live(tables, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStudies]:
    folder = tmp_path_factory.mktemp("twin")
    made = LiveStudies.start(folder, tables, federation="tri-modal", task="early-late", sites=5)
    yield made
    made.close()


def simulated(settings: StudySettings, tables, federation):
    study = simulated_study(patients(tables, "early-late", federation.cohorts), federation, settings)
    return list(run_study(study.proposal, study.model, Shard(study.proposal, study.sites)))


STUDIES = {
    "local": replace(SETTINGS, study="local"),
    "adam": replace(SETTINGS, study="adam", aggregation="fedadam", architecture="mlp", learning_rate=0.05),
    "none": replace(SETTINGS, study="none", epsilon=None, aggregation="fedprox", evaluation_share=0.1),
    "blended": replace(SETTINGS, study="blended", rounds=5, epsilon=None, aggregation="dgb+pcw"),
    "weighed": replace(SETTINGS, study="weighed", rounds=4, aggregation="pcw"),
    "centred": replace(SETTINGS, study="centred", centred=True, cohort_gain=0.5, aggregation="dgb"),
    "means": with_schedule(replace(SETTINGS, study="means", noise="shared", epsilon=4.0), None),
    "shared": replace(SETTINGS, study="shared", noise="shared", evaluation_share=0.1, aggregation="dgb"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_simulation_gives_the_live_model_bit_for_bit(live, tables, name):
    settings = STUDIES[name]
    _, model, status = live.run(settings)
    rounds = simulated(settings, tables, live.federation)
    assert rounds[-1].model == model
    for done, checkpoint in zip(rounds, status["checkpoints"], strict=True):
        assert done.plan.weights == checkpoint["weights"]
        assert done.finished.releases == checkpoint["releases"]
        assert list(done.finished.sites) == checkpoint["sites"]
    if "dgb" in settings.aggregation and settings.epsilon is None:  # else noise hides what there is to blend
        assert min(rounds[-1].plan.scales.values()) < 1 == max(rounds[-1].plan.scales.values())
    if "pcw" in settings.aggregation:
        claims = [r["proximity.cosine"] for r in rounds[-1].finished.releases.values()]
        assert any(claims)


def test_heads_of_one_combination_stay_at_their_hospital_and_go_on_from_round_to_round(live, tables):
    settings = replace(SETTINGS, study="heads", architecture="mlp", fusion="combination", learning_rate=0.05)
    proposal, model, _ = live.run(settings)
    study = simulated_study(patients(tables, "early-late", live.federation.cohorts), live.federation, settings)
    shard = Shard(study.proposal, study.sites)
    assert list(run_study(study.proposal, study.model, shard))[-1].model == model
    for hospital, site in zip(live.consortium.hospitals, study.sites, strict=True):
        last = newest([hospital.home.round_folder("heads", 3)])  # those of earlier rounds are tidied away
        own = f"heads.{'+'.join(site.modalities)}.weight"
        assert own in last and not any(own in block.parameters for block in proposal.blocks)
        assert all((last[name] == values).all() for name, values in shard._own[site.name].items())
