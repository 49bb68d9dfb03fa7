"""The table of methods."""

from __future__ import annotations

import math

import pytest
from research.methods import DEFAULT_METHODS, METHODS, architecture_of, method, settings_of

from models.config import ModelConfig
from privacy.errors import InvalidInput

LINEAR = ModelConfig(architecture="linear", features={"mrna": 30, "image": 20}, cohorts=("BRCA",), classes=2)
GIVEN = {"rounds": 40, "delta": 1e-4, "sites": 9}


def test_the_nine_methods_of_the_comparison_are_there():
    assert DEFAULT_METHODS == (
        "local", "fedavg", "fedprox", "fedadam", "dgb", "pcw", "dgb+pcw", "pooled", "upper-bound",
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="unknown method"):
        method("magic")


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_a_private_study_is_charged_what_it_was_asked_for(noise):
    chosen = settings_of(method("fedavg"), LINEAR, epsilon=8.0, noise=noise, **GIVEN)
    assert chosen.mechanism.epsilon() == pytest.approx(8.0, abs=0.02)
    assert chosen.mechanism.noise == noise


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_the_losses_that_private_blending_observes_are_paid_for_by_the_same_epsilon(noise):
    chosen = settings_of(method("dgb"), LINEAR, epsilon=8.0, noise=noise, **GIVEN)
    plain = settings_of(method("fedavg"), LINEAR, epsilon=8.0, noise=noise, **GIVEN)
    assert chosen.mechanism.losses.noise_multiplier > 0
    assert chosen.mechanism.epsilon() == pytest.approx(8.0, abs=0.02)
    assert chosen.mechanism.noise_multiplier > plain.mechanism.noise_multiplier


def test_methods_differ_from_fedavg_only_where_they_say():
    plain = settings_of(method("fedavg"), LINEAR, epsilon=math.inf, noise="local", **GIVEN)
    blended = settings_of(method("dgb+pcw"), LINEAR, epsilon=math.inf, noise="local", **GIVEN)
    assert plain.blending is None is plain.proximity
    assert blended.blending is not None is not blended.proximity
    assert (plain.learning_rate, plain.rounds) == (blended.learning_rate, blended.rounds)
    assert all(m.change(plain, "linear").rounds == 40 for m in METHODS.values())


def test_blending_the_papers_network_brings_its_unimodal_losses():
    assert architecture_of(method("dgb"), "mlp") == "mlp-auxiliary"
    assert architecture_of(method("fedavg"), "mlp") == "mlp"


@pytest.mark.parametrize(("noise", "rounds"), [("local", 10), ("shared", 20)])
def test_without_centring_the_schedule_that_suits_it_costs_the_same(noise, rounds):
    chosen = settings_of(method("fedavg-uncentred"), LINEAR, epsilon=8.0, noise=noise, **GIVEN)
    assert (chosen.rounds, chosen.mechanism.rounds, chosen.centre, chosen.cohort_gain) == (rounds, rounds, False, 1.0)
    assert chosen.mechanism.epsilon() == pytest.approx(8.0, abs=0.03)
