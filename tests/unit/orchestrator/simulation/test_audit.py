"""The audit of the whole path: the honest one passes, a broken one is found, by the test that should find it.

benchmarks/audit.py measures how often; here each kind of fault runs once, on few canaries.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from orchestrator.simulation.audit import FAULTS, Levels, audit_path, claim_of
from orchestrator.simulation.noise_patterns import most_alike, odd_batches, odd_shape, silent
from privacy.dp.audit import against_curve, too_quiet
from privacy.dp.gaussian import gaussian_delta
from privacy.errors import InvalidInput

torch.set_num_threads(1)
EPSILONS = np.linspace(0, 6, 61)


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_what_runs_is_not_accused(noise: str) -> None:
    result = audit_path(noise, canaries=300)  # type: ignore[arg-type]
    assert not result.flagged
    assert set(result.quiet) == {"update of image", "update of mrna", "update of many patients", "losses", "histograms"}
    assert set(result.patterns) == {"alike", "silent", "shape", "batches"}
    assert [result.moved[name] for name in ("histograms", "losses")] == pytest.approx([1.0, 1.0])
    assert 0.98 < result.moved["update"] <= 1


@pytest.mark.parametrize("paths", [1, 2])
def test_the_command_accuses_honest_code_with_at_most_the_chance_it_says(paths: int) -> None:
    levels = Levels.of(0.95, paths=paths)
    assert levels.step + paths * levels.path == pytest.approx(0.05)


def test_half_of_the_noise_is_found_by_chi_square_wherever_it_is_missing() -> None:
    result = audit_path("shared", canaries=100, fault=FAULTS["half-noise"])
    assert result.flagged
    assert max(result.quiet.values()) < 1e-6


def test_records_read_twice_are_found_by_the_curve() -> None:
    result = audit_path("local", canaries=2400, fault=FAULTS["doubled-records"])
    assert result.curve.flagged
    assert min(result.quiet.values()) > 1e-4


def test_the_curve_accuses_a_claim_that_is_too_small_and_no_other() -> None:
    stream = np.random.default_rng(0)
    present, absent = stream.normal(1.0, 1.0, 1500), stream.normal(0.0, 1.0, 1500)
    for mu, flagged in ((1.0, False), (1.2, False), (0.6, True)):
        profile = [(e, gaussian_delta(mu, e)) for e in EPSILONS]
        assert against_curve(present, absent, profile, failure=0.01).flagged is flagged


def test_noise_of_the_claimed_size_is_not_too_quiet() -> None:
    noise = np.random.default_rng(0).normal(0.0, 2.0, 2000)
    assert too_quiet(noise, 2.0) > 1e-3
    assert too_quiet(0.9 * noise, 2.0) < 1e-4


def test_independent_normals_are_not_odd_and_each_pattern_is_seen() -> None:
    stream = np.random.default_rng(0)
    rows = [stream.normal(size=400) for _ in range(6)]
    assert min(most_alike([rows]), silent(rows), odd_shape(np.concatenate(rows), jitter=stream)) > 0.01
    assert most_alike([[*rows, 0.5 * rows[0] + 0.9 * stream.normal(size=400)]]) < 1e-6
    assert most_alike([[np.concatenate([rows[0], -rows[0]])]]) < 1e-6
    assert most_alike([[np.zeros(400), rows[0]]]) == 0
    assert silent([np.where(np.arange(400) == 7, 0.0, row) for row in rows]) < 1e-6
    assert odd_shape(stream.uniform(-1.0, 1.0, 4000), jitter=stream) < 1e-6
    assert odd_shape(np.rint(4 * stream.normal(size=8000)), jitter=stream) > 0.01
    assert odd_shape(np.zeros(10), jitter=stream) == 0


def test_batches_are_told_from_too_many_records_fixed_sizes_and_the_same_ones() -> None:
    stream, law = np.random.default_rng(0), {"records": 1000, "rate": 0.5, "steps": 1, "deviation": 1.5}
    assert odd_batches(stream.binomial(1000, 0.5, 8) + stream.normal(0, 1.5, 8), **law) > 0.01
    assert odd_batches(stream.binomial(1000, 0.55, 8) + stream.normal(0, 1.5, 8), **law) < 1e-6
    assert odd_batches(500 + stream.normal(0, 1.5, 8), **law) < 1e-6


def test_nothing_to_audit_is_bad_input() -> None:
    with pytest.raises(InvalidInput, match="canaries"):
        audit_path("local", canaries=10)
    with pytest.raises(InvalidInput, match="noise"):
        audit_path("local", claimed=replace(claim_of("local"), noise_multiplier=0.0))
    with pytest.raises(InvalidInput, match="kinds"):
        against_curve(np.zeros(0), np.zeros(3), [(0.0, 0.5)], failure=0.01)
