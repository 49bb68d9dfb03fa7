"""A lower bound on epsilon from one training run: an alarm, never a proof.

Each canary is put into the data by a coin toss and pushes one coordinate of a linear model. After training, the
coordinates that moved most are guessed to have had their canary, and those that moved least not to. A mechanism with
epsilon lets a guess be right with probability at most ``exp(epsilon) / (1 + exp(epsilon))``; too many right guesses
refute it at the stated confidence (Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", NeurIPS
2023, theorem 5.2).

    >>> round(lower_bound(100, guesses=100, canaries=100, delta=0.0, confidence=0.95), 2)
    3.49

The records are made up; an audit of private data would be a study of its own and charged. The bound is compared with
the claim for add/remove adjacency, as the coin tosses are. :data:`FAULTS` are three ways in which private training has
really been broken; the audit has to notice each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from scipy.stats import beta, binom, chi2
from torch import Tensor, nn

from privacy.dp.clipping import RecordLoss
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.sgd import train
from privacy.errors import InvalidInput

Inputs = dict[str, Tensor]
# Trains the model in place for one round: model, records, record loss, mechanism, keyed stream.
Trainer = Callable[[nn.Module, Inputs, RecordLoss, Mechanism, Randomness], None]
# The default mechanism of an audit: epsilon 2.65 at delta 1e-5, so that a broken step stands out.
AUDITED = Mechanism(
    max_grad_norm=1.0, noise_multiplier=2.5, sampling_rate=0.5, steps_per_round=4, rounds=2, target_delta=1e-5
)
# A canary's gradient is this many times the clip: without clipping it cannot be overlooked.
_LOUDNESS = 50.0
_FEATURES = 8
_LARGEST_EPSILON = 30.0


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What one audit found, at ``delta``, add/remove adjacency.

    ``lower`` is refuted from below with probability ``confidence``; ``claimed`` is the accountant's upper bound for the
    audited gradient steps; ``resolution`` is the largest ``lower`` this audit could have reported.
    """

    lower: float
    claimed: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    resolution: float

    @property
    def flagged(self) -> bool:
        """Whether the claim is refuted: the mechanism does not do what it is charged for."""
        return self.lower > self.claimed

    @property
    def conclusive(self) -> bool:
        """Whether this audit could have refuted the claim at all; if not, use more canaries or more noise."""
        return self.resolution > self.claimed


class CanaryModel(nn.Module):
    """A linear score with one coordinate per canary; its gradient on a record is the record itself, signed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, batch: Inputs) -> Tensor:
        """Return the scores, float32 [B]."""
        scores: Tensor = self.layer(batch["x"])[:, 0]
        return scores


def audit(
    mechanism: Mechanism = AUDITED,
    *,
    canaries: int = 1000,
    background: int = 200,
    guesses: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    trainer: Trainer | None = None,
) -> AuditResult:
    """Train once on canaries and report the lower bound on epsilon beside the claimed upper bound.

    Args:
        mechanism: local noise; its gradient steps are audited, its other releases are left out on both sides.
        canaries: coin tosses, at least 20.
        background: ordinary made-up records.
        guesses: how many canaries are guessed, half as present and half as absent; None means two fifths.
        confidence: probability that ``lower`` is no more than the true epsilon, in (0.5, 1).
        seed: public seed of canaries and training.
        trainer: what is audited; None means :func:`privacy.dp.sgd.train`.

    Raises:
        InvalidInput: an argument out of its range.
    """
    count = 2 * (canaries // 5) if guesses is None else guesses - guesses % 2
    if canaries < 20 or not 2 <= count <= canaries or not 0.5 < confidence < 1:
        raise InvalidInput("expected at least 20 canaries, 2 to that many guesses, and a confidence in (0.5, 1)")
    if mechanism.noise != "local":
        raise InvalidInput("expected local noise: under shared noise a single site has no guarantee to audit")
    steps = replace(mechanism, losses=None, count=None, evaluation=None)
    present = Randomness.public(seed, site="auditor", study="audit", round=1, plan_hash="coins").uniform(canaries) < 0.5
    moved = _moved(steps, present, background, seed, trainer or honest)
    correct = _correct(moved, present, count)
    delta = steps.target_delta
    bound = {"canaries": canaries, "guesses": count, "delta": delta, "confidence": confidence}
    return AuditResult(
        lower=lower_bound(correct, guesses=count, canaries=canaries, delta=delta, confidence=confidence),
        claimed=steps.epsilon(),
        delta=delta,
        confidence=confidence,
        canaries=canaries,
        guesses=count,
        correct=correct,
        resolution=lower_bound(count, **bound),  # type: ignore[arg-type]  # the ints are ints
    )


def lower_bound(correct: int, *, guesses: int, canaries: int, delta: float, confidence: float) -> float:
    """Return the largest epsilon that so many right guesses refute at ``confidence``; 0 when they refute none.

    Args:
        correct: right guesses, 0 to ``guesses``.
        guesses: guesses made, fixed in advance.
        canaries: coin tosses.
        delta: of the claim.
        confidence: in (0.5, 1).
    """
    if not 0 <= correct <= guesses <= canaries:
        raise InvalidInput("expected correct guesses among the guesses, and those among the canaries")

    def surplus(epsilon: float) -> float:
        return p_value(correct, guesses=guesses, canaries=canaries, epsilon=epsilon, delta=delta) - (1 - confidence)

    if surplus(0.0) >= 0:
        return 0.0
    if surplus(_LARGEST_EPSILON) < 0:
        return _LARGEST_EPSILON
    return float(brentq(surplus, 0.0, _LARGEST_EPSILON, xtol=1e-6))


@dataclass(frozen=True, kw_only=True)
class CurveResult:
    """Whether observed error rates pass the claimed trade-off curve.

    ``threshold`` is the quantile of the absent canaries' scores at which the observed rates pass the curve most;
    there at least ``observed`` of the present canaries score higher, where the claim allows at most ``allowed``.
    """

    threshold: float
    observed: float
    allowed: float
    canaries: int
    tests: int

    @property
    def flagged(self) -> bool:
        """Whether the claim is refuted."""
        return self.observed > self.allowed


def against_curve(
    present: npt.NDArray[np.float64],
    absent: npt.NDArray[np.float64],
    profile: Sequence[tuple[float, float]],
    *,
    failure: float,
    thresholds: int = 16,
) -> CurveResult:
    """Test scores of canaries against a claimed privacy profile.

    For every epsilon an adversary's rate of true alarms is at most ``exp(epsilon)`` times that of false alarms, plus
    delta (Kairouz, Oh and Viswanath 2015, theorem 2.1), and the same with the two swapped. At each threshold both
    rates get an exact interval (Clopper and Pearson 1934); all tests together fail with probability ``failure``.

    Args:
        present, absent: scores of canaries that were in the data and that were not; larger means in.
        profile: pairs of epsilon and the delta that is claimed at it.
        failure: probability of refuting a true claim, in (0, 1).
        thresholds: how many, at fixed quantiles of the absent scores' normal fit.
    """
    if not len(present) or not len(absent):
        raise InvalidInput("expected canaries of both kinds")
    tests = 2 * thresholds
    level = failure / (2 * tests)
    epsilons, deltas = (np.array(column) for column in zip(*profile, strict=True))
    worst = CurveResult(threshold=0.0, observed=0.0, allowed=1.0, canaries=len(present) + len(absent), tests=tests)
    for quantile in np.linspace(-2.0, 2.0, thresholds):
        cut = absent.mean() + quantile * absent.std()
        alarms, false = int((present > cut).sum()), int((absent > cut).sum())
        sides = (
            (_least(alarms, len(present), level), _most(false, len(absent), level)),
            (_least(len(absent) - false, len(absent), level), _most(len(present) - alarms, len(present), level)),
        )
        for observed, mistaken in sides:
            allowed = float(np.min(np.exp(epsilons) * mistaken + deltas))
            if observed - allowed > worst.observed - worst.allowed:
                worst = replace(worst, threshold=float(quantile), observed=observed, allowed=allowed)
    return worst


def _least(count: int, trials: int, level: float) -> float:
    return float(beta.ppf(level, count, trials - count + 1)) if count else 0.0


def _most(count: int, trials: int, level: float) -> float:
    return float(beta.ppf(1 - level, count + 1, trials - count)) if count < trials else 1.0


def too_quiet(noise: npt.NDArray[np.float64], deviation: float) -> float:
    """Return the probability that noise of this deviation or more has so small a sum of squares (chi-square).

    Args:
        noise: float64 [n], what left from no records at all.
        deviation: claimed, above 0.
    """
    return float(chi2.cdf(float(np.square(noise / deviation).sum()), noise.size))


def p_value(correct: int, *, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Bound the probability of at least ``correct`` right guesses under (epsilon, delta)-DP (theorem 5.2)."""
    right = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    if correct == 0 or delta == 0:
        return min(1.0, tail)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    slope = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * slope)


def _moved(
    mechanism: Mechanism, present: npt.NDArray[np.bool_], background: int, seed: int, trainer: Trainer
) -> npt.NDArray[np.float64]:
    """Return how far each canary's coordinate moved in its own direction."""
    inputs = _records(mechanism, present, background, seed)
    model = CanaryModel(inputs["x"].shape[1])
    for number in range(1, mechanism.rounds + 1):
        stream = Randomness.public(seed, site="audited", study="audit", round=number, plan_hash="training")
        trainer(model, inputs, _linear_loss, mechanism, stream)
    return model.layer.weight.detach()[0, _FEATURES:].double().numpy()


def _records(mechanism: Mechanism, present: npt.NDArray[np.bool_], background: int, seed: int) -> Inputs:
    chosen = np.flatnonzero(present)
    stream = Randomness.public(seed, site="auditor", study="audit", round=1, plan_hash="background")
    x = torch.zeros(len(chosen) + background, _FEATURES + len(present))
    x[torch.arange(len(chosen)), _FEATURES + torch.from_numpy(chosen)] = _LOUDNESS * mechanism.max_grad_norm
    x[len(chosen) :, :_FEATURES] = torch.from_numpy(stream.gaussian((background, _FEATURES), 1.0)).float()
    return {"x": x, "sign": torch.ones(len(x))}


def _linear_loss(model: nn.Module, batch: Inputs) -> Tensor:
    loss: Tensor = -batch["sign"] * model(batch)
    return loss


def honest(
    model: nn.Module, inputs: Inputs, record_loss: RecordLoss, mechanism: Mechanism, randomness: Randomness
) -> None:
    """Train one round as every study does (:func:`privacy.dp.sgd.train`): what is audited by default."""
    train(
        model,
        inputs,
        record_loss,
        mechanism,
        randomness,
        optimizer="sgd",
        learning_rate=1.0,
        weight_decay=0.0,
        expected_records=float(len(inputs["x"])),
    )


def _correct(moved: npt.NDArray[np.float64], present: npt.NDArray[np.bool_], guesses: int) -> int:
    order = np.argsort(moved, kind="stable")
    absent, here = order[: guesses // 2], order[-(guesses // 2) :]
    return int(present[here].sum() + (~present[absent]).sum())


def without_noise(
    model: nn.Module, inputs: Inputs, record_loss: RecordLoss, mechanism: Mechanism, randomness: Randomness
) -> None:
    """Clip, and leave out the noise."""
    honest(model, inputs, record_loss, replace(mechanism, noise_multiplier=0.0), randomness)


def without_clipping(
    model: nn.Module, inputs: Inputs, record_loss: RecordLoss, mechanism: Mechanism, randomness: Randomness
) -> None:
    """Add the right noise for the clip that is claimed, around gradients that nobody clipped."""
    loud = replace(mechanism, max_grad_norm=1e4, noise_multiplier=mechanism.noise_multiplier * 1e-4)
    honest(model, inputs, record_loss, loud, randomness)


def with_column_losses(
    model: nn.Module, inputs: Inputs, record_loss: RecordLoss, mechanism: Mechanism, randomness: Randomness
) -> None:
    """Multiply clip factors [B] with losses of shape [B, 1]: they broadcast to [B, B], and each record counts B times.

    For the audit's linear model, in which the norm of a record's gradient is the norm of the record.
    """
    weight = next(model.parameters())
    for step in range(mechanism.steps_per_round):
        stream = randomness.child(f"step {step}")
        chosen = torch.from_numpy(stream.poisson_sample(len(inputs["x"]), mechanism.sampling_rate))
        batch = {name: tensor[chosen] for name, tensor in inputs.items()}
        factors = (mechanism.max_grad_norm / batch["x"].norm(dim=1)).clamp(max=1.0)
        (gradient,) = torch.autograd.grad((factors * record_loss(model, batch).unsqueeze(1)).sum(), weight)
        noise = stream.gaussian(tuple(weight.shape), mechanism.noise_multiplier * mechanism.max_grad_norm)
        with torch.no_grad():
            weight.sub_(gradient + torch.from_numpy(noise).float())


FAULTS: Mapping[str, Trainer] = MappingProxyType(
    {"noise": without_noise, "clip": without_clipping, "loss": with_column_losses}
)
