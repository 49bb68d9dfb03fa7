"""The table of methods, and the benchmark end to end on synthetic tables."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from support.benchmarks import methods

from privacy.errors import InvalidInput

DEFAULT_METHODS, METHODS = methods.DEFAULT_METHODS, methods.METHODS
architecture_of, method, settings_of = methods.architecture_of, methods.method, methods.settings_of
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "staging.py"
GIVEN = {"rounds": 40, "delta": 1e-4, "sites": 9}


def test_the_nine_methods_of_the_comparison_are_there():
    assert DEFAULT_METHODS == (
        "local", "fedavg", "fedprox", "fedadam", "dgb", "pcw", "dgb+pcw", "pooled", "upper-bound",
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="unknown method"):
        method("magic")


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_a_private_study_is_charged_what_it_was_asked_for(noise):
    chosen = settings_of(method("fedavg"), "linear", epsilon=8.0, noise=noise, **GIVEN)
    assert chosen.mechanism.epsilon() == pytest.approx(8.0, abs=0.02)
    assert chosen.mechanism.noise == noise


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_the_losses_that_private_blending_observes_are_paid_for_by_the_same_epsilon(noise):
    chosen = settings_of(method("dgb"), "linear", epsilon=8.0, noise=noise, **GIVEN)
    plain = settings_of(method("fedavg"), "linear", epsilon=8.0, noise=noise, **GIVEN)
    assert chosen.mechanism.losses.noise_multiplier > 0
    assert chosen.mechanism.epsilon() == pytest.approx(8.0, abs=0.02)
    assert chosen.mechanism.noise_multiplier > plain.mechanism.noise_multiplier


def test_methods_differ_from_fedavg_only_where_they_say():
    plain = settings_of(method("fedavg"), "linear", epsilon=math.inf, noise="local", **GIVEN)
    blended = settings_of(method("dgb+pcw"), "linear", epsilon=math.inf, noise="local", **GIVEN)
    assert plain.blending is None is plain.proximity
    assert blended.blending is not None is not blended.proximity
    assert (plain.learning_rate, plain.rounds) == (blended.learning_rate, blended.rounds)
    assert all(m.change(plain, "linear").rounds == 40 for m in METHODS.values())


def test_blending_the_papers_network_brings_its_unimodal_losses():
    assert architecture_of(method("dgb"), "mlp") == "mlp-auxiliary"
    assert architecture_of(method("fedavg"), "mlp") == "mlp"


def benchmark(*arguments):
    command = [sys.executable, str(BENCHMARK), "--seeds", "1", "--rounds", "2", "--processes", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=BENCHMARK.parents[1])


def test_the_benchmark_prints_one_json_object_with_paired_intervals():
    ended = benchmark("--json", "--methods", "local", "fedavg", "dgb+pcw", "--corrupt", "flip:brca-2,lusc-1")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert set(report["methods"]) == {"local", "fedavg", "dgb+pcw"}
    assert report["methods"]["fedavg"]["auroc_minus_fedavg"]["mean"] == 0.0
    assert len(report["methods"]["dgb+pcw"]["curve"]) == 2
    assert set(report["methods"]["fedavg"]["combinations"]) >= {"mrna", "mrna+image+clinical"}
    assert len(report["methods"]["fedavg"]["sites"]) == 9


def test_the_benchmark_names_what_it_does_not_know():
    ended = benchmark("--methods", "magic")
    assert ended.returncode == 2
    assert "unknown method 'magic'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("noise", "rounds"), [("local", 10), ("shared", 20)])
def test_without_centring_the_schedule_that_suits_it_costs_the_same(noise, rounds):
    chosen = settings_of(method("fedavg-uncentred"), "linear", epsilon=8.0, noise=noise, **GIVEN)
    assert (chosen.rounds, chosen.mechanism.rounds, chosen.centre, chosen.cohort_gain) == (rounds, rounds, False, 1.0)
    assert chosen.mechanism.epsilon() == pytest.approx(8.0, abs=0.03)
