"""The mechanism of a study: one frozen value that is run and that is charged.

A :class:`Mechanism` says everything a hospital will release in one study: noised gradient sums of Poisson batches,
noised loss sums, one noised count, noised score histograms. It holds public facts only, is part of the approved
proposal, and is the only thing the accounting reads.

    >>> plan = Mechanism(max_grad_norm=1.0, noise_multiplier=1.0, sampling_rate=0.16, steps_per_round=10,
    ...                  rounds=35, target_delta=1e-5)
    >>> round(plan.epsilon(), 1)     # at delta 1e-5, add/remove adjacency, PLD accountant
    23.3

Adjacency is add or remove of one patient at one hospital. Rounds are numbered from 1.

``dp_accounting`` takes seconds and 100 MB to import. It is imported only where an event or an epsilon is asked for:
most processes merely read and compare mechanisms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from privacy.dp.distance import (
    MAX_PARAMETERS,
    MIN_SHARE_STEPS,
    SAMPLER_DISTANCE,
    rounding_distance,
    saturation_distance,
)
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from dp_accounting import DpEvent


class _Strict:
    """Has pydantic refuse unknown fields and wrong types."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True, kw_only=True)
class LossRelease(_Strict):
    """Noised sums of clipped per-record losses, released every ``every_rounds`` rounds.

    Each record belongs to training or to validation, never to both, and adds at most ``terms`` losses (fused and one
    per modality), each clipped to ``[0, bound]``: one release is a Gaussian mechanism of L2 sensitivity
    ``bound * sqrt(terms)`` over training and validation together.

    Args:
        every_rounds: released in the rounds that this divides, at least 1.
        bound: largest loss a record may add to one sum, nats, above 0.
        noise_multiplier: noise standard deviation over the sensitivity, at least 0.
        terms: losses per record, at least 1.
        last_round: none are released after this round, and all records train then; None means never.
    """

    every_rounds: int
    bound: float
    noise_multiplier: float
    terms: int = 1
    last_round: int | None = None

    def __post_init__(self) -> None:
        _floats(self, "bound", "noise_multiplier")
        _require(self.every_rounds >= 1, "every_rounds of the loss release", "at least 1", self.every_rounds)
        _require(_positive(self.bound), "the loss bound", "a finite number above 0", self.bound)
        _require(self.terms >= 1, "the number of loss terms", "at least 1", self.terms)
        last = self.last_round
        _require(last is None or last >= self.every_rounds, "last_round", "None or at least every_rounds", last)
        _require(_multiplier(self.noise_multiplier), *_MULTIPLIER, self.noise_multiplier)

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of one release, nats."""
        return self.bound * math.sqrt(self.terms)

    def times(self, rounds: int) -> int:
        """Return how often losses are released in the first ``rounds`` rounds."""
        return (rounds if self.last_round is None else min(rounds, self.last_round)) // self.every_rounds


@dataclass(frozen=True, kw_only=True)
class CountRelease(_Strict):
    """One noised vector of patient counts by class (L2 sensitivity 1); their sum is the public number of patients.

    Part of a study's mechanism only when the count was not already charged when the dataset was published.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _floats(self, "noise_multiplier")
        _require(_multiplier(self.noise_multiplier), *_MULTIPLIER, self.noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class HistogramRelease(_Strict):
    """Noised score histograms by class, 32 fixed bins, released every ``every_rounds`` rounds.

    A record counts once in each of ``outputs`` histograms (one per scored output), so that the L2 sensitivity of a
    release is ``sqrt(outputs)``. One evaluation at the end is ``every_rounds = rounds``.

    ``scored_apart`` says that a record that is scored trains in no round of the study. A patient then pays for the
    training or for the histograms, never for both (docs/shared-noise.md, section 9). Studies from before pay the sum.
    """

    every_rounds: int
    noise_multiplier: float
    outputs: int = 1
    scored_apart: bool = False

    def __post_init__(self) -> None:
        _floats(self, "noise_multiplier")
        _require(self.every_rounds >= 1, "every_rounds of the evaluation", "at least 1", self.every_rounds)
        _require(self.outputs >= 1, "the number of scored outputs", "at least 1", self.outputs)
        _require(_multiplier(self.noise_multiplier), *_MULTIPLIER, self.noise_multiplier)

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of one release, patients."""
        return math.sqrt(self.outputs)

    def times(self, rounds: int) -> int:
        """Return how often histograms are released in the first ``rounds`` rounds."""
        return rounds // self.every_rounds


@dataclass(frozen=True, kw_only=True)
class Mechanism(_Strict):
    """Poisson-subsampled Gaussian DP-SGD and the other releases of a study.

    With ``noise = "local"`` every site adds noise of standard deviation ``noise_multiplier * max_grad_norm`` to every
    step. With ``noise = "shared"`` it adds a share, of variance that times ``1 / (min_sites - colluders)``, to the
    single step of a round: what is charged is what the orchestrator and ``colluders`` sites see together.

    Args:
        max_grad_norm: L2 bound C of one record's gradient, 1e-9 to 1e9.
        noise_multiplier: noise standard deviation over C, at least 0; 0 is no privacy and epsilon is infinite.
        sampling_rate: probability q that a record is in a batch, in (0, 1].
        steps_per_round: noised steps in a round, at least 1; exactly 1 for shared noise.
        rounds: rounds of the study, at least 1.
        target_delta: delta at which epsilon is stated, in (0, 1).
        noise: who adds the noise, see above.
        min_sites: fewest sites in a sum that may be decrypted, at least 3.
        colluders: sites assumed to work with the orchestrator, 1 to ``min_sites - 1``.
        max_sites: most sites in a shared sum, ``min_sites`` to 64; enters the saturation part of delta.
        max_parameters: most coordinates of an update under shared noise, at most 65,536; enters delta, and a model
            with more is refused. Local noise allows ``distance.MAX_PARAMETERS``.
        sampling: only ``"poisson"`` has an accountant here.
        clipping: whether one norm bounds the whole gradient or one norm per modality (squares add up to C squared).
        losses, count, evaluation: the other releases, None when there are none.

    Raises:
        InvalidInput: a value out of its range, or a combination without a proof.
    """

    max_grad_norm: float
    noise_multiplier: float
    sampling_rate: float
    steps_per_round: int
    rounds: int
    target_delta: float
    noise: Literal["local", "shared"] = "local"
    min_sites: int = 3
    colluders: int = 1
    max_sites: int = 16
    max_parameters: int = 50_000
    sampling: Literal["poisson"] = "poisson"
    clipping: Literal["record", "modality"] = "record"
    losses: LossRelease | None = None
    count: CountRelease | None = None
    evaluation: HistogramRelease | None = None

    def __post_init__(self) -> None:
        _floats(self, "max_grad_norm", "noise_multiplier", "sampling_rate", "target_delta")
        _check_gradient_fields(self)
        _check_shared_fields(self)

    @property
    def steps(self) -> int:
        """Noised gradient steps of the whole study."""
        return self.steps_per_round * self.rounds

    @property
    def private(self) -> bool:
        """Whether every release carries noise; otherwise epsilon is infinite."""
        extra = (self.losses, self.count, self.evaluation)
        return self.noise_multiplier > 0 and all(e is None or e.noise_multiplier > 0 for e in extra)

    @property
    def share_deviation(self) -> float:
        """Standard deviation of the noise one site adds to one step's sum, in units of the gradient."""
        local = self.noise_multiplier * self.max_grad_norm
        return local if self.noise == "local" else local / math.sqrt(self.min_sites - self.colluders)

    def central(self) -> Mechanism:
        """Return what a party sees that colludes with no site: more noise under shared noise, the same otherwise.

        For display beside the charged epsilon; never what a ledger charges.
        """
        if self.noise == "local":
            return self
        gain = math.sqrt(self.min_sites / (self.min_sites - self.colluders))
        return replace(self, noise_multiplier=self.noise_multiplier * gain)

    def check_study(self, *, noise: str, rounds: int, min_sites: int, colluders: int, sites: int) -> None:
        """Refuse a study whose rounds are not those this mechanism is charged for.

        A sum over fewer sites than the shares are made for would carry less noise than the ledger says.

        Args:
            noise: the study's noise mode.
            rounds: the study's rounds.
            min_sites: fewest sites the keyholder decrypts a sum of.
            colluders: sites the study assumes to collude.
            sites: sites that may take part.

        Raises:
            InvalidInput: a difference; the message names it.
        """
        _require(noise == self.noise, "the study's noise", f"{self.noise!r} as in its mechanism", noise)
        _require(rounds <= self.rounds, "the study's rounds", f"at most {self.rounds} as in its mechanism", rounds)
        if self.noise == "shared":
            _require(min_sites >= self.min_sites, "the study's min_sites", f"at least {self.min_sites}", min_sites)
            _require(colluders <= self.colluders, "the study's colluders", f"at most {self.colluders}", colluders)
            _require(sites <= self.max_sites, "the study's sites", f"at most {self.max_sites}", sites)

    def releases_losses(self, round_number: int) -> bool:
        """Return whether losses are released in this round (1 is the first)."""
        self._check_round(round_number)
        return self.losses is not None and self.losses.times(round_number) > self.losses.times(round_number - 1)

    def releases_evaluation(self, round_number: int) -> bool:
        """Return whether score histograms are released in this round (1 is the first)."""
        self._check_round(round_number)
        return self.evaluation is not None and round_number % self.evaluation.every_rounds == 0

    def events(self, rounds: int | None = None) -> tuple[DpEvent, ...]:
        """Return what the first ``rounds`` rounds release of each kind of patient, as events of dp-accounting.

        The first kind trains. Where records are scored apart there is a second, the patients that are scored. Every
        patient is of one kind for the whole study, so the worst of the events bounds the study.

        Args:
            rounds: 0 to ``self.rounds``; None means all.
        """
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent

        done = self._rounds(rounds)
        step = GaussianDpEvent(self.noise_multiplier)
        if self.sampling_rate < 1:
            step = PoissonSampledDpEvent(self.sampling_rate, step)
        trained: list[tuple[DpEvent, int]] = [(step, done * self.steps_per_round)]
        scored: list[tuple[DpEvent, int]] = []
        everybody: list[tuple[DpEvent, int]] = []
        if self.losses is not None:
            everybody.append((GaussianDpEvent(self.losses.noise_multiplier), self.losses.times(done)))
        if self.evaluation is not None:
            scored.append((GaussianDpEvent(self.evaluation.noise_multiplier), self.evaluation.times(done)))
        if self.count is not None:
            everybody.append((GaussianDpEvent(self.count.noise_multiplier), 1))
        if self.evaluation is not None and self.evaluation.scored_apart:
            return _composed(trained + everybody), _composed(scored + everybody)
        return (_composed(trained + scored + everybody),)

    def event(self, rounds: int | None = None) -> DpEvent:
        """Return everything that the first ``rounds`` rounds release, as if one patient were of every kind."""
        from dp_accounting import ComposedDpEvent

        return ComposedDpEvent(list(self.events(rounds)))

    def epsilon(self, delta: float | None = None, *, rounds: int | None = None) -> float:
        """Return epsilon of the first ``rounds`` rounds at ``delta`` (add/remove adjacency, PLD accountant).

        Args:
            delta: in (0, 1); None means ``target_delta``.
            rounds: 0 to ``self.rounds``; None means all.

        Returns:
            an upper bound, infinite when a release carries no noise.

        Source: privacy loss distributions, Koskela et al. 2020; Doroshenko et al. 2022 ("connecting the dots").
        """
        from privacy.dp.accounting import study_epsilon

        return study_epsilon(self, self.target_delta if delta is None else delta, self._rounds(rounds))

    def rdp(self, orders: tuple[float, ...] | None = None, *, rounds: int | None = None) -> tuple[float, ...]:
        """Return the Rényi divergence bound of the first ``rounds`` rounds at each order, for the ledger's filter.

        ``orders`` None means ``privacy.dp.accounting.ORDERS``. The distance :meth:`total_variation` comes on top.
        """
        from privacy.dp.accounting import ORDERS, rdp_curve

        curves = [rdp_curve(event, ORDERS if orders is None else orders) for event in self.events(rounds)]
        return tuple(max(values) for values in zip(*curves, strict=True))

    def total_variation(self, rounds: int | None = None) -> float:
        """Return how far the computed noise may be from the ideal Gaussian that is charged, as total variation.

        Sampler, rounding and saturation together, for the first ``rounds`` rounds. A mechanism at total variation eta
        from an (epsilon, delta) one is (epsilon, delta + (1 + exp(epsilon)) eta); see docs/shared-noise.md, section 6.
        """
        return sum(self._distances(self._rounds(rounds)))

    def failure(self, rounds: int | None = None, *, records: int = 1) -> float:
        """Return what :meth:`total_variation` adds to delta at every epsilon, for the first ``rounds`` rounds.

        Releases have a mu of ``records`` / noise multiplier at most (docs/filter.md, theorem 2). 1 without noise.
        """
        from privacy.dp.gaussian import failure

        done = self._rounds(rounds)
        if not self.private:
            return 1.0
        others = [r.noise_multiplier for r in (self.losses, self.count, self.evaluation) if r is not None]
        steps, beside = self._distances(done)
        taken = failure(steps, records / self.noise_multiplier, max(1, done * self.steps_per_round))
        return min(1.0, taken + failure(beside, records / min(others, default=self.noise_multiplier), 2 * done + 1))

    def _distances(self, rounds: int) -> tuple[float, float]:
        """Return the distances of all steps and of all other releases to the ideal ones, in ``rounds`` rounds."""
        sites, steps = self.max_sites if self.noise == "shared" else 1, rounds * self.steps_per_round
        draw = MAX_PARAMETERS * sites * SAMPLER_DISTANCE
        beside = (2 * rounds + 1) * draw
        if self.noise == "local":
            return steps * draw, beside
        honest = range(self.min_sites - self.colluders, self.max_sites + 1)
        rounding = max(rounding_distance(sites=count, share_steps=MIN_SHARE_STEPS) for count in honest)
        return steps * (draw + self.max_parameters * (rounding + sites * saturation_distance())), beside

    def _rounds(self, rounds: int | None) -> int:
        if rounds is None:
            return self.rounds
        _require(0 <= rounds <= self.rounds, "rounds so far", f"0 to {self.rounds}", rounds)
        return rounds

    def _check_round(self, round_number: int) -> None:
        _require(1 <= round_number <= self.rounds, "a round number", f"1 to {self.rounds}", round_number)


def _composed(parts: list[tuple[DpEvent, int]]) -> DpEvent:
    from dp_accounting import ComposedDpEvent, SelfComposedDpEvent

    return ComposedDpEvent([SelfComposedDpEvent(event, times) for event, times in parts if times])


_MULTIPLIER = ("a noise multiplier", "a finite number, at least 0")


def _check_gradient_fields(m: Mechanism) -> None:
    _require(1e-9 <= m.max_grad_norm <= 1e9, "max_grad_norm", "from 1e-9 to 1e9, where float32 clips", m.max_grad_norm)
    _require(_multiplier(m.noise_multiplier), *_MULTIPLIER, m.noise_multiplier)
    _require(0 < m.sampling_rate <= 1, "sampling_rate", "above 0 and at most 1", m.sampling_rate)
    _require(m.steps_per_round >= 1, "steps_per_round", "at least 1", m.steps_per_round)
    _require(m.rounds >= 1, "rounds", "at least 1", m.rounds)
    _require(0 < m.target_delta < 1, "target_delta", "above 0 and below 1", m.target_delta)
    _require(1 <= m.max_parameters <= 65_536, "max_parameters", "1 to 65,536", m.max_parameters)
    _require(m.sampling == "poisson", "sampling", "'poisson': nothing else is accounted for", m.sampling)
    _require(m.clipping in ("record", "modality"), "clipping", "'record' or 'modality'", m.clipping)


def _check_shared_fields(m: Mechanism) -> None:
    _require(m.noise in ("local", "shared"), "noise", "'local' or 'shared'", m.noise)
    _require(m.min_sites >= 3, "min_sites", "at least 3", m.min_sites)
    _require(1 <= m.colluders < m.min_sites, "colluders", f"1 to {m.min_sites - 1}", m.colluders)
    _require(m.min_sites <= m.max_sites <= 64, "max_sites", f"{m.min_sites} to 64", m.max_sites)
    if m.noise == "shared":
        _require(m.steps_per_round == 1, "steps_per_round under shared noise", "1", m.steps_per_round)


def _require(holds: bool, what: str, expected: str, got: object) -> None:
    if not holds:
        raise InvalidInput(f"expected {what} to be {expected}, got {got!r}")


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _multiplier(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _floats(value: Any, *names: str) -> None:
    """Turn whole numbers into floats, so that equal mechanisms have equal canonical bytes."""
    known = {field.name for field in fields(value)}
    for name in names:
        number = getattr(value, name)
        if name in known and isinstance(number, int) and not isinstance(number, bool):
            object.__setattr__(value, name, float(number))
