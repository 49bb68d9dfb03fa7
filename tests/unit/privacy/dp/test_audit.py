from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from privacy.dp.audit import AUDITED, FAULTS, Trainer, _linear_loss, audit, honest, lower_bound, p_value
from privacy.dp.clipping import RecordLoss
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.errors import InvalidInput

torch.set_num_threads(1)


def noise_off(model: nn.Module, inputs: dict, loss: RecordLoss, mechanism: Mechanism, stream: Randomness) -> None:
    honest(model, inputs, loss, replace(mechanism, noise_multiplier=0.0), stream)


def clip_off(model: nn.Module, inputs: dict, loss: RecordLoss, mechanism: Mechanism, stream: Randomness) -> None:
    """The right noise for the clip that is claimed, around gradients that nobody clipped."""
    loud = replace(mechanism, max_grad_norm=1e4, noise_multiplier=mechanism.noise_multiplier / 1e4)
    honest(model, inputs, loss, loud, stream)


def column_loss(model: nn.Module, inputs: dict, loss: RecordLoss, mechanism: Mechanism, stream: Randomness) -> None:
    """Opacus' ghost clipping fed losses of shape (B, 1), as FINDINGS saw it: clip factors broadcast to (B, B)."""
    wrapped = GradSampleModuleFastGradientClipping(model, loss_reduction="sum", max_grad_norm=mechanism.max_grad_norm)
    try:
        for step in range(mechanism.steps_per_round):
            one = stream.child(f"step {step}")
            chosen = torch.from_numpy(one.poisson_sample(len(inputs["x"]), mechanism.sampling_rate))
            wrapped.zero_grad(set_to_none=True)
            wrapped.enable_hooks()
            losses = loss(model, {k: v[chosen] for k, v in inputs.items()}).unsqueeze(1)
            losses.sum().backward(retain_graph=True)
            factors = wrapped.get_clipping_coef()
            model.zero_grad(set_to_none=True)
            wrapped.disable_hooks()
            (factors * losses).sum().backward()
            weight = next(model.parameters())
            noise = one.gaussian(tuple(weight.shape), mechanism.noise_multiplier * mechanism.max_grad_norm)
            with torch.no_grad():
                weight -= weight.grad + torch.from_numpy(noise).float()
    finally:
        wrapped.to_standard_module()


def test_the_real_mechanism_passes_a_conclusive_audit() -> None:
    for seed in range(3):
        result = audit(seed=seed)
        assert result.conclusive
        assert not result.flagged
        assert result.lower <= result.claimed
    assert result.lower > 0.2  # the attack is not blind: it sees a good part of what is claimed


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # Opacus' hooks on a first layer
@pytest.mark.parametrize("broken", [noise_off, clip_off, column_loss])
def test_a_broken_mechanism_is_flagged(broken: Trainer) -> None:
    result = audit(trainer=broken)
    assert result.flagged, result
    assert result.lower > 1.5 * result.claimed


@pytest.mark.parametrize(("correct", "guesses"), [(100, 100), (90, 100), (500, 500)])
def test_without_delta_the_bound_is_the_binomial_one(correct: int, guesses: int) -> None:
    found = lower_bound(correct, guesses=guesses, canaries=guesses, delta=0.0, confidence=0.95)
    assert p_value(correct, guesses=guesses, canaries=guesses, epsilon=found, delta=0.0) == pytest.approx(
        0.05, rel=1e-3
    )
    if correct == guesses:
        right = 0.05 ** (1 / guesses)
        assert found == pytest.approx(math.log(right / (1 - right)), rel=1e-4)


def test_delta_and_fewer_right_guesses_lower_the_bound() -> None:
    def bound(correct: int, delta: float) -> float:
        return lower_bound(correct, guesses=200, canaries=1000, delta=delta, confidence=0.95)

    assert bound(190, 1e-5) < bound(190, 0.0)
    assert bound(180, 1e-5) < bound(190, 1e-5)
    assert bound(100, 1e-5) == 0.0


def test_the_slope_of_the_delta_term_is_that_of_its_definition() -> None:
    from scipy.stats import binom

    guesses, correct, epsilon, delta, canaries = 40, 30, 0.7, 1e-3, 100
    right = math.exp(epsilon) / (1 + math.exp(epsilon))

    def tail(v: int) -> float:
        return float(binom.sf(v - 1, guesses, right))

    slope = max((tail(correct - i) - tail(correct)) / i for i in range(1, correct + 1))
    expected = tail(correct) + 2 * canaries * delta * slope
    assert p_value(correct, guesses=guesses, canaries=canaries, epsilon=epsilon, delta=delta) == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_that_the_command_offers_is_flagged(name: str) -> None:
    result = audit(trainer=FAULTS[name])
    assert result.flagged, result


def test_an_audit_that_could_not_notice_says_so() -> None:
    assert not audit(replace(AUDITED, noise_multiplier=0.8), canaries=40, background=10).conclusive


@pytest.mark.parametrize(
    "change",
    [
        lambda: audit(canaries=5),
        lambda: audit(guesses=5000),
        lambda: audit(confidence=0.3),
        lambda: audit(replace(AUDITED, noise="shared", steps_per_round=1)),
        lambda: lower_bound(5, guesses=4, canaries=10, delta=0.0, confidence=0.95),
    ],
)
def test_arguments_out_of_range_are_refused(change: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput):
        change()


def test_the_canaries_push_their_own_coordinate_only() -> None:
    x = torch.eye(3, requires_grad=True)
    layer = nn.Linear(3, 1, bias=False)
    batch: dict[str, Tensor] = {"x": x, "sign": torch.ones(3)}
    gradient = torch.autograd.grad(_linear_loss(lambda b: layer(b["x"])[:, 0], batch)[1], layer.weight)[0]
    assert gradient.tolist() == [[0.0, -1.0, 0.0]]
