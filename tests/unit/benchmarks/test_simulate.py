"""The simulated consortium: it learns, it is what its parts say, and its mechanisms have an effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from research import simulate as module
from research.simulate import simulate
from research.simulation_settings import SimulationSettings

from datasites.data.federations import build
from datasites.data.synthetic import SyntheticShape, generate
from datasites.strategy.blending import GradientBlending
from datasites.strategy.proximity import ProximityWeights
from models.build import build_model, record_loss
from models.config import ModelConfig
from models.parameters import flatten
from orchestrator.simulation.sites import flip_labels, make_sites, patients, permute_labels, pool
from privacy.dp.mechanism import Mechanism
from privacy.errors import InvalidInput, Refused

torch.set_num_threads(1)
COHORTS = ("BRCA", "LUSC", "LIHC")
SHAPE = SyntheticShape(patients={"BRCA": 150, "LUSC": 120, "LIHC": 120}, genes=30, image_features=20, signal=0.6)
QUICK = SimulationSettings(rounds=8, local_steps=3)


@pytest.fixture(scope="module")
def study():
    tables = generate(seed=1, shape=SHAPE)
    everyone = patients(tables, "early-late", COHORTS)
    sites, test = make_sites(everyone, build("tri-modal", tables, task="early-late", seed=2))
    config = ModelConfig(architecture="linear", features=everyone.features, cohorts=COHORTS, classes=2)
    return config, sites, test


def mechanism(noise="local", multiplier=0.5, **more):
    given = {"steps_per_round": 1, "rounds": 8, "target_delta": 1e-4, "sampling_rate": 1.0, "max_grad_norm": 1.0}
    return Mechanism(noise_multiplier=multiplier, noise=noise, max_parameters=200, **{**given, **more})


def test_it_learns_the_planted_signal_and_not_from_permuted_labels(study):
    config, sites, test = study
    learned = simulate(config, sites, test, QUICK, seed=1).final.auroc
    nulls = [simulate(config, permute_labels(sites, s), test, QUICK, seed=1).final.auroc for s in range(6)]
    assert learned > 0.8
    assert 0.4 < np.mean(nulls) < 0.6


def test_one_full_batch_step_is_the_weighted_mean_of_the_holders_gradients(study):
    config, sites, test = study
    settings = SimulationSettings(rounds=1, local_steps=1, learning_rate=2.0, weight_decay=0.0)
    outcome = simulate(config, sites, test, settings, seed=1)
    model = build_model(config, seed=1)
    name = "branches.image.weight"
    gradients, counts = [], []
    for site in sites:
        if "image" in site.modalities:
            (g,) = torch.autograd.grad(record_loss(model, site.records).mean(), [model.get_parameter(name)])
            gradients.append(g.numpy().ravel())
            counts.append(site.patients)
    expected = -2.0 * np.average(gradients, axis=0, weights=counts)
    np.testing.assert_allclose(flatten(outcome.model, [name]), expected, rtol=1e-4, atol=1e-7)


def test_the_same_seed_repeats_bit_for_bit_with_and_without_noise(study):
    config, sites, test = study
    for settings in (QUICK, replace(QUICK, mechanism=mechanism()), replace(QUICK, mechanism=mechanism("shared"))):
        one, two = (simulate(config, sites, test, replace(settings, rounds=2), seed=4) for _ in range(2))
        assert one.curve == two.curve


def test_noise_costs_accuracy_and_shared_noise_costs_less(study):
    config, sites, test = study
    loud = {"multiplier": 6.0}

    def auroc(chosen):
        outcomes = [simulate(config, sites, test, replace(QUICK, mechanism=chosen), seed=s) for s in range(3)]
        return np.mean([o.final.auroc for o in outcomes])

    none = simulate(config, sites, test, replace(QUICK, local_steps=1), seed=0).final.auroc
    shared = auroc(mechanism("shared", min_sites=9, **loud))
    assert auroc(mechanism("local", **loud)) < shared < none


def test_a_block_with_too_few_holders_is_not_exchanged(study):
    config, sites, test = study
    alone = [s for s in sites if s.name in ("brca-1", "brca-3", "lihc-2")]  # one holder of images
    outcome = simulate(config, alone, test, replace(QUICK, rounds=2), seed=1)
    assert not flatten(outcome.model, ["branches.image.weight"]).any()
    assert set(outcome.weights) == {"mrna", "shared"}


def test_under_shared_noise_a_block_with_one_holder_is_exchanged_too(study):
    config, sites, test = study
    alone = [s for s in sites if s.name in ("brca-1", "brca-3", "lihc-2")]
    settings = replace(QUICK, rounds=1, mechanism=mechanism("shared", min_sites=3))
    outcome = simulate(config, alone, test, settings, seed=1)
    assert flatten(outcome.model, ["branches.image.weight"]).any()
    assert set(outcome.weights) == {"mrna", "image", "clinical", "shared"}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_blending_scale_of_a_thousandth_shrinks_that_modalitys_step_a_thousandfold(study, optimizer, monkeypatch):
    config, sites, test = study
    rate = 1.0 if optimizer == "sgd" else 0.01
    settings = replace(QUICK, rounds=1, optimizer=optimizer, learning_rate=rate, blending=GradientBlending())
    plain = simulate(config, sites, test, settings, seed=1).model
    monkeypatch.setattr(module, "scales", lambda *_: {"mrna": 0.001})
    scaled = simulate(config, sites, test, settings, seed=1).model
    for modality, factor in (("mrna", 0.001), ("image", 1.0)):
        name = f"branches.{modality}.weight"
        np.testing.assert_allclose(flatten(scaled, [name]), factor * flatten(plain, [name]), rtol=1e-3, atol=1e-9)


def test_leave_one_out_weighting_turns_down_sites_with_flipped_labels(study):
    config, sites, test = study
    flipped = flip_labels(sites, ["brca-2", "lihc-2"], 2)
    outcome = simulate(config, flipped, test, replace(QUICK, proximity=ProximityWeights()), seed=1)
    weights = outcome.weights["mrna"]
    assert max(weights["brca-2"], weights["lihc-2"]) < min(weights["brca-1"], weights["lusc-1"])
    plain = simulate(config, flipped, test, QUICK, seed=1)
    assert outcome.final.auroc > plain.final.auroc


def test_proximity_under_shared_noise_is_refused(study):
    config, sites, test = study
    with pytest.raises(Refused):
        simulate(
            config, sites, test, replace(QUICK, mechanism=mechanism("shared"), proximity=ProximityWeights()), seed=1
        )


def test_pooling_keeps_every_record_with_its_own_modalities(study):
    _, sites, _ = study
    together = pool(sites)
    assert together.patients == sum(s.patients for s in sites)
    assert together.records["presence"].sum() == sum(s.records["presence"].sum() for s in sites)


def test_the_papers_heads_are_averaged_over_the_sites_with_records_of_just_their_combination(study):
    config, sites, test = study
    paper = replace(config, architecture="mlp", heads="combination")
    settings = SimulationSettings(rounds=1, local_steps=1, learning_rate=0.1, weight_decay=0.0)
    outcome = simulate(paper, sites, test, settings, seed=1)
    with pytest.raises(InvalidInput, match="without privacy only"):
        simulate(paper, sites, test, replace(settings, mechanism=mechanism()), seed=1)
    model = build_model(paper, seed=1)
    for name in (n for n, _ in model.named_parameters() if n.startswith("heads.")):
        wanted = torch.tensor([float(m in name.split(".")[1].split("+")) for m in ("mrna", "image", "clinical")])
        holders = [s for s in sites if (s.records["presence"] == wanted).all(dim=1).any()]
        moved = flatten(outcome.model, [name]) - flatten(model, [name])
        if not holders:
            assert not moved.any()
            continue
        given = outcome.weights[f"head {name.split('.')[1]}"]
        assert list(given) == [s.name for s in holders]
        gradients = [
            torch.autograd.grad(record_loss(model, s.records).mean(), [model.get_parameter(name)])[0].numpy().ravel()
            for s in holders
        ]
        expected = -0.1 * np.average(gradients, axis=0, weights=[given[s.name] for s in holders])
        np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-6)
