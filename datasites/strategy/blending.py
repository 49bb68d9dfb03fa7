"""Distributed gradient blending: modalities that generalise step further than modalities that overfit.

From two successive evaluations, per modality combination S (docs/results.md compares the two rules)::

    O = (validation - train) now - (validation - train) before     overfitting gained
    G = validation before - validation now                         generalisation gained
    q = |G| / max(O^2, floor)                                      (Wang, Tran and Feiszli, CVPR 2020, section 3)

``published``: a site with modalities M normalises q over {m} for m in M, and M itself, to sum one; modality m steps
by its share. The default rule differs, each change with its reason:

* G counts as zero when validation got worse: the published size |G| rewards getting worse;
* the floor grows with the losses' own noise (half the typical O^2), not a constant near zero: one small O otherwise
  takes the whole weight;
* differences of less than two deviations of the noise that was added for privacy count as equal: where noise hides
  what modalities gain, blending does nothing rather than anything;
* log q is smoothed over evaluations and enters with exponent 1/2: two noisy losses do not decide a round;
* scales have mean 1 and stay within ``bound`` of each other: blending changes where the step goes, not how long it is.

Scales multiply what the optimiser has made, so they work under any optimiser. The losses are released with noise
through the ledger (``Mechanism.losses``).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from datasites.study.proposal import Proposal

Losses = Mapping[str, float]
_MEASURED = 0.4  # of the rounds
_HIDDEN = 2.0  # standard deviations


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Mean train and validation loss of every modality combination (``"mrna"``, ``"mrna+image"``, ...), in nats.

    ``noise`` is the standard deviation of what was added to a mean validation loss, at most, in nats; public.
    """

    train: Losses
    validation: Losses
    noise: float = 0.0


class Blending(Protocol):
    """Step scales of the modalities, from public numbers.

    ``blends``: a study's plans may have scales other than 1. ``reads_losses``: its sites release losses, with noise
    and charged.
    """

    blends: ClassVar[bool] = True
    reads_losses: ClassVar[bool] = False

    def check(self, proposal: Proposal) -> None:
        """Refuse a study that this rule cannot blend.

        Raises:
            InvalidInput: no losses are released.
        """
        if self.reads_losses and proposal.mechanism.losses is None:
            raise InvalidInput("gradient blending reads released losses: expected a mechanism that releases them")

    def observe(self, state: BlendingState, evaluation: Evaluation) -> BlendingState:
        """Return the state after one more evaluation; as it is in a rule that reads none."""
        return state

    @abstractmethod
    def scales(self, state: BlendingState, modalities: Sequence[str]) -> dict[str, float]:
        """Return the step scale of every modality, above 0; the plan makes the largest 1."""


class NoBlending(Blending):
    """All modalities step alike."""

    blends: ClassVar[bool] = False

    def scales(self, state: BlendingState, modalities: Sequence[str]) -> dict[str, float]:
        """Return 1 for every modality."""
        return dict.fromkeys(modalities, 1.0)


@dataclass(frozen=True, kw_only=True)
class GradientBlending(Blending):
    """How two evaluations become scales; see the module's docstring.

    ``smoothing`` in [0, 1) is the weight of the past; ``bound`` >= 1 is the largest scale over the mean and the
    mean over the smallest; ``exponent`` in (0, 1] tempers the ratio.
    """

    published: bool = False
    floor: float = 1e-6
    smoothing: float = 0.8
    bound: float = 1.25
    exponent: float = 0.5
    reads_losses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (self.floor > 0 and 0 <= self.smoothing < 1 and self.bound >= 1 and 0 < self.exponent <= 1):
            raise InvalidInput("expected floor > 0, smoothing in [0, 1), bound >= 1 and exponent in (0, 1]")

    def observe(self, state: BlendingState, evaluation: Evaluation) -> BlendingState:
        """Return the state with the smoothed log ratios of this evaluation and the one before."""
        return observe(state, evaluation, self)

    def scales(self, state: BlendingState, modalities: Sequence[str]) -> dict[str, float]:
        """Return the bounded scales, all 1 until two evaluations exist."""
        return scales(state, modalities, self)


@dataclass(frozen=True, kw_only=True)
class BlendingState:
    """The last evaluation, the smoothed log ratios, and how many ratios went into them."""

    last: Evaluation | None = None
    log_ratio: Mapping[str, float] = field(default_factory=dict)


def last_observed(rounds: int, every: int) -> int:
    """Return the last round whose losses are observed, every ``every`` rounds: early ones, and at least two."""
    return max(2 * every, int(_MEASURED * rounds))


def observe(state: BlendingState, evaluation: Evaluation, rule: GradientBlending) -> BlendingState:
    """Return the state after one more evaluation; the first one only sets the reference."""
    if state.last is None:
        return BlendingState(last=evaluation)
    raw = ratios(state.last, evaluation, rule)
    past = 0.0 if rule.published else rule.smoothing
    smoothed = {
        name: past * state.log_ratio.get(name, math.log(q)) + (1 - past) * math.log(q) for name, q in raw.items()
    }
    return BlendingState(last=evaluation, log_ratio={**state.log_ratio, **smoothed})


def ratios(before: Evaluation, now: Evaluation, rule: GradientBlending) -> dict[str, float]:
    """Return q of every combination that both evaluations have; always positive and finite."""
    names = [s for s in now.validation if s in before.validation and s in now.train and s in before.train]
    gained = {s: before.validation[s] - now.validation[s] for s in names}
    overfit = {s: (now.validation[s] - now.train[s]) - (before.validation[s] - before.train[s]) for s in names}
    if rule.published:
        return {s: max(abs(gained[s]), 1e-12) / max(overfit[s] ** 2, 1e-12) for s in names}
    typical = sum(o * o for o in overfit.values()) / max(1, len(names))
    hidden = _HIDDEN * math.hypot(before.noise, now.noise)  # a smaller difference may be nothing but noise
    floor = max(rule.floor, 0.5 * typical, hidden**2)
    least = max(0.1 * max([rule.floor, *(abs(g) for g in gained.values())]), hidden)
    return {s: max(gained[s], least) / max(overfit[s] ** 2, floor) for s in names}


def scales(state: BlendingState, modalities: Sequence[str], rule: GradientBlending) -> dict[str, float]:
    """Return the step scale of every modality; all 1 until two evaluations exist.

    ``published``: shares of a site that holds ``modalities``, which sum to one together with the fused term.
    ``robust``: mean 1, within ``bound``.
    """
    if not state.log_ratio:
        return dict.fromkeys(modalities, 1.0)
    if rule.published:
        return _shares(state.log_ratio, modalities)
    known = {m: rule.exponent * state.log_ratio[m] for m in modalities if m in state.log_ratio}
    if not known:
        return dict.fromkeys(modalities, 1.0)
    centre = sum(known.values()) / len(known)
    limit = math.log(rule.bound)
    raw = {m: math.exp(min(limit, max(-limit, v - centre))) for m, v in known.items()}
    mean = sum(raw.values()) / len(raw)
    return {m: raw[m] / mean if m in raw else 1.0 for m in modalities}


def _shares(log_ratio: Mapping[str, float], modalities: Sequence[str]) -> dict[str, float]:
    terms = list(dict.fromkeys([*modalities, "+".join(modalities)]))
    largest = max(log_ratio.get(t, 0.0) for t in terms)
    sizes = {t: math.exp(log_ratio.get(t, 0.0) - largest) for t in terms}
    total = sum(sizes.values())
    return {m: sizes[m] / total for m in modalities}
