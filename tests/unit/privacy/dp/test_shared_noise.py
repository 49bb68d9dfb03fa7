from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.sgd import clipped_gradient_sum
from privacy.dp.shared_noise import (
    SharedEncoding,
    choose_encoding,
    decode,
    encode,
    mean_gradient,
    stochastic_round,
)
from privacy.errors import InvalidInput, Refused

torch.set_num_threads(1)
MECHANISM = Mechanism(
    max_grad_norm=1.0,
    noise_multiplier=3.0,
    sampling_rate=1.0,
    steps_per_round=1,
    rounds=20,
    target_delta=1e-4,
    noise="shared",
    min_sites=8,
)


def stream(label: str = "a") -> Randomness:
    return Randomness(b"s" * 32, study="s", round=1, plan_hash=label, dataset_fingerprint="f")


def encoding(**change: object) -> SharedEncoding:
    settings_: dict = {"values": 2000, "bound": 10.0, "levels": 200}
    return choose_encoding(MECHANISM, **(settings_ | change))


def test_the_encoding_is_the_finest_that_fits_and_never_below_three_steps() -> None:
    chosen = encoding()
    assert chosen.levels <= 200
    assert chosen.share_steps >= 3
    assert chosen.deviation == pytest.approx(3.0 / math.sqrt(7), rel=1e-3)
    assert (chosen.bound + 8.5 * chosen.deviation) / chosen.step <= chosen.levels - 1
    finer = encoding(levels=100_000)
    assert finer.share_steps > chosen.share_steps


@pytest.mark.parametrize("change", [{"levels": 40}, {"bound": 1e6}, {"bound": 0.0}, {"bound": math.nan}])
def test_what_does_not_fit_the_field_is_refused(change: dict) -> None:
    with pytest.raises(InvalidInput):
        encoding(**change)


def test_only_shared_mechanisms_within_the_charged_size_have_an_encoding() -> None:
    with pytest.raises(Refused):
        encoding(values=50_001)
    for other in (replace(MECHANISM, noise="local"), replace(MECHANISM, noise_multiplier=0.0)):
        with pytest.raises(Refused):
            choose_encoding(other, values=10, bound=1.0, levels=200)


def test_no_integer_is_beyond_what_a_worker_hands_over_exactly() -> None:
    """Beyond 2**24 float32 would round each share once more, on a grid that depends on its size."""
    wide = replace(MECHANISM, noise_multiplier=0.1)
    chosen = choose_encoding(wide, values=50, bound=50.0, levels=2**30)
    assert chosen.levels <= 2**24
    integers = encode(np.full(50, 49.9), chosen, stream())
    assert np.array_equal(integers.astype(np.float32).astype(np.int64), integers)


def test_decoded_sums_are_unbiased_and_carry_exactly_the_shares() -> None:
    chosen = encoding()
    values = np.linspace(-9, 9, 2000)
    total = sum(encode(values / 9, chosen, stream(str(site))) for site in range(9))
    error = decode(total, chosen) - values
    expected = math.sqrt(9 * (chosen.deviation**2 + chosen.step**2 / 6))  # a random phase rounds with variance 1/6
    assert abs(error.mean()) < 4 * expected / math.sqrt(2000)
    assert error.std() == pytest.approx(expected, rel=0.06)
    assert stats.kstest(error / expected, "norm").pvalue > 0.001


def test_the_noise_that_arrives_is_never_below_what_is_charged() -> None:
    for sites in (8, 9):
        honest = sites - MECHANISM.colluders
        assert honest * encoding().deviation ** 2 >= (MECHANISM.noise_multiplier * MECHANISM.max_grad_norm) ** 2


def test_the_same_round_gives_the_same_integers() -> None:
    values = np.zeros(50)
    assert np.array_equal(encode(values, encoding(), stream()), encode(values, encoding(), stream()))
    assert not np.array_equal(encode(values, encoding(), stream()), encode(values, encoding(), stream("b")))


def test_integers_stay_within_their_field_whatever_comes() -> None:
    wild = np.array([1e300, -1e300, np.inf, -np.inf, np.nan, 0.0] * 300)
    found = encode(wild, encoding(), stream())
    assert np.abs(found).max() <= encoding().levels


def test_cutting_happens_only_beyond_the_box_and_eight_and_a_half_deviations() -> None:
    chosen = encoding()
    at_the_edge = np.full(2000, chosen.bound)
    assert encode(at_the_edge, chosen, stream()).max() < chosen.levels
    narrow = replace(chosen, levels=math.ceil((chosen.bound + 2 * chosen.deviation) / chosen.step))
    assert encode(at_the_edge, narrow, stream()).max() == narrow.levels


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=50), st.integers(0, 20))
def test_stochastic_rounding_lands_on_a_neighbour(fine: list[int], shift: int) -> None:
    values = np.array(fine, dtype=np.int64)
    found = stochastic_round(values, shift, stream())
    assert ((values >> shift) <= found).all() and (found <= -((-values) >> shift)).all()


def test_stochastic_rounding_has_the_exact_probability() -> None:
    found = stochastic_round(np.full(100_000, 5, dtype=np.int64), 3, stream())
    assert abs(float(found.mean()) - 5 / 8) < 4 * math.sqrt(15 / 64 / 100_000)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_one_record_moves_the_projected_sum_by_at_most_the_clip(seed: int) -> None:
    """Projection on the box is 1-Lipschitz, the fine grid adds at most its own step per coordinate."""
    rng = np.random.default_rng(seed)
    chosen = encoding(values=64)
    base, record = rng.normal(0, 12, 64), rng.normal(0, 1, 64)
    record *= 1.0 / max(1.0, np.linalg.norm(record))
    grids = [np.rint(np.clip(v, -10, 10) / chosen.fine_step) * chosen.fine_step for v in (base, base + record)]
    assert np.linalg.norm(grids[0] - grids[1]) <= 1.0 + math.sqrt(64) * chosen.fine_step


def test_rounding_first_would_multiply_the_sensitivity() -> None:
    """Why the share comes first: rounding each coordinate to the coarse grid moves 2,000 of them by a whole step."""
    chosen = encoding()
    low = np.full(2000, 0.5 * chosen.step - 1e-9)
    high = low + 1.0 / math.sqrt(2000)
    moved = np.linalg.norm(np.rint(high / chosen.step) - np.rint(low / chosen.step)) * chosen.step
    assert moved > 6 * np.linalg.norm(high - low)


class Linear(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.layer(batch["x"])[:, 0]


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(batch), batch["y"], reduction="none")


FEATURES, PER_SITE, SITES, ROUNDS = 40, 60, 9, 15


def federation(seed: int) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    direction = torch.randn(FEATURES, generator=g) / math.sqrt(FEATURES)

    def draw(count: int) -> dict[str, Tensor]:
        x = torch.randn(count, FEATURES, generator=g)
        chance = torch.sigmoid(2.5 * x @ direction)
        return {"x": x, "y": torch.bernoulli(chance, generator=g)}

    return [draw(PER_SITE) for _ in range(SITES)], draw(4000)


def trained(sites: list[dict[str, Tensor]], how: str, seed: int) -> Linear:
    """Run the rounds of one study; each round is one clipped, noised gradient step."""
    model, mechanism = Linear(FEATURES), replace(MECHANISM, rounds=ROUNDS, noise_multiplier=6.0)
    values = FEATURES + 1
    chosen = choose_encoding(mechanism, values=values, bound=30.0, levels=400)
    pooled = {k: torch.cat([s[k] for s in sites]) for k in ("x", "y")}
    for number in range(ROUNDS):
        rounds = [stream(f"{seed} {how} {number} {k}") for k in range(SITES)]
        parts = [pooled] if how == "pooled" else sites
        sums = [clipped_gradient_sum(model, p, loss, mechanism, r) for p, r in zip(parts, rounds, strict=False)]
        flat = [np.concatenate([v.ravel() for v in s.values()]) for s in sums]
        if how == "shared":
            total = sum(encode(f, chosen, r.child("share")) for f, r in zip(flat, rounds, strict=True))
            step = mean_gradient(total, chosen, sampling_rate=1.0, expected_records=SITES * PER_SITE)
        else:  # what arrives of the shares, once; or the whole noise, from every site
            arriving = math.sqrt(SITES / (mechanism.min_sites - mechanism.colluders)) if how == "pooled" else 1.0
            sigma = mechanism.noise_multiplier * arriving
            noised = [r.child("noise").add_gaussian(f, sigma) for f, r in zip(flat, rounds, strict=False)]
            step = np.sum(noised, axis=0) / (SITES * PER_SITE)
        moved = torch.from_numpy(4.0 * step).float()
        with torch.no_grad():
            model.layer.weight -= moved[:FEATURES].reshape(1, -1)
            model.layer.bias -= moved[FEATURES:]
    return model


def test_shared_noise_over_nine_sites_reaches_pooled_training_and_beats_local_noise() -> None:
    scores: dict[str, list[float]] = {"shared": [], "pooled": [], "local": []}
    for seed in range(5):
        sites, test = federation(seed)
        for how, found in scores.items():
            logits = trained(sites, how, seed)(test).detach()
            found.append(float(roc_auc_score(test["y"], logits)))
    mean = {how: float(np.mean(found)) for how, found in scores.items()}
    assert mean["shared"] > 0.7
    assert abs(mean["shared"] - mean["pooled"]) <= 0.01, mean
    assert mean["shared"] > mean["local"] + 0.03, mean
