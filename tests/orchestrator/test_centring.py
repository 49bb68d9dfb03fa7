"""Feature means as a release: exact without privacy, noised as charged, and subtracted only where data is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasites.synthetic import SyntheticShape, generate
from datasites.tcga.federations import build
from models.config import INPUT_GAINS, ModelConfig
from orchestrator import centring
from orchestrator.centring import centred, centred_sites, released_centres
from orchestrator.simulate import SimulationSettings, simulate
from orchestrator.simulated_sites import make_sites, patients
from privacy.mechanism import Mechanism

torch.set_num_threads(1)
COHORTS = ("BRCA", "LUSC", "LIHC")
SHAPE = SyntheticShape(patients={"BRCA": 90, "LUSC": 80, "LIHC": 80}, genes=30, image_features=20, signal=0.6)


@pytest.fixture(scope="module")
def study():
    tables = generate(seed=1, shape=SHAPE)
    everyone = patients(tables, "early-late", COHORTS)
    sites, test = make_sites(everyone, build("tri-modal", tables, task="early-late", seed=2))
    config = ModelConfig(architecture="linear", features=everyone.features, cohorts=COHORTS, classes=2)
    return config, sites, test


def mechanism(noise="local", **more):
    given = {"steps_per_round": 1, "rounds": 8, "target_delta": 1e-4, "sampling_rate": 1.0, "max_grad_norm": 0.7}
    return Mechanism(noise_multiplier=2.0, noise=noise, max_parameters=200, **{**given, **more})


def test_without_privacy_and_clipping_the_centre_is_the_mean_over_the_sites_that_hold_the_modality(study, monkeypatch):
    monkeypatch.setattr(centring, "NORM", 1e6)
    _, sites, _ = study
    held = torch.cat([s.records["mrna"] for s in sites if "mrna" in s.modalities])
    np.testing.assert_allclose(released_centres(sites, None, seed=1)["mrna"], held.mean(dim=0).numpy(), atol=1e-6)


@pytest.mark.parametrize(("noise", "adding"), [("local", 6), ("shared", 9)])
def test_the_noise_of_the_sum_is_that_of_one_charged_step(study, noise, adding):
    _, sites, _ = study
    charged = mechanism(noise, **({"min_sites": 9} if noise == "shared" else {}))
    exact = released_centres(sites, None, seed=1)["mrna"]
    draws = np.stack([released_centres(sites, charged, seed=s)["mrna"] - exact for s in range(40)])
    patients_held = sum(s.patients for s in sites if "mrna" in s.modalities)
    scale = INPUT_GAINS["mrna"] / np.sqrt(exact.size)
    alone = charged.noise_multiplier * centring.NORM / (1.0 if noise == "local" else np.sqrt(8))
    assert draws.std() == pytest.approx(alone * np.sqrt(adding) / (patients_held * scale), rel=0.06)


def test_one_record_moves_the_sum_by_at_most_the_norm(study, monkeypatch):
    monkeypatch.setattr(centring, "NORM", 0.5)
    _, sites, _ = study
    one = sites[0]
    loud = replace(
        one, records={n: v * 1e4 if v.is_floating_point() and n != "presence" else v for n, v in one.records.items()}
    )
    squares = 0.0
    for modality, centre in released_centres(
        [replace(loud, records={n: v[:1] for n, v in loud.records.items()})], None, seed=1
    ).items():
        squares += float((centre.astype(np.float64) ** 2).sum()) * INPUT_GAINS[modality] ** 2 / centre.size
    assert np.sqrt(squares) == pytest.approx(0.5, rel=1e-4)


def test_absent_modalities_stay_zero(study):
    _, sites, test = study
    centres = released_centres(sites, None, seed=1)
    for records in (centred(test, centres), *(s.records for s in centred_sites(sites, centres))):
        for column, modality in enumerate(("mrna", "image", "clinical")):
            assert not records[modality][records["presence"][:, column] == 0].any()


def test_the_release_takes_the_first_round_of_the_study(study):
    config, sites, test = study
    settings = SimulationSettings(rounds=4, mechanism=mechanism(), learning_rate=3.0, centre=True)
    outcome = simulate(config, sites, test, settings, seed=3)
    assert len(outcome.curve) == 4
    assert outcome.curve[0] == 0.5
    assert outcome.centres["mrna"].any()
