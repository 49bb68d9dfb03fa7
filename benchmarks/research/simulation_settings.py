"""What a simulated study does, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datasites.strategy.blending import GradientBlending, last_observed
from datasites.strategy.proximity import ProximityWeights
from privacy.dp.mechanism import Mechanism


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What a simulated study does; the names are those of :class:`datasites.study.proposal.Training`.

    ``blending`` and ``proximity`` None switch the mechanism off. With blending, validation records are held out
    until ``last_measured``; then the scales are frozen and they train with the others.
    ``centre`` spends the first round on the feature means instead of a gradient (:mod:`models.losses`), for private
    rounds of the linear model; its ``cohort_gain`` keeps the bias from taking half of the clipping norm.
    ``standardised`` modalities get their spreads in two more such rounds.
    """

    rounds: int = 40
    local_steps: int = 5
    learning_rate: float = 5.0
    weight_decay: float = 1e-3
    optimizer: Literal["sgd", "adam"] = "sgd"
    server_optimizer: Literal["sgd", "adam", "momentum"] = "sgd"
    server_learning_rate: float = 1.0
    proximal_mu: float = 0.0
    blending: GradientBlending | None = None
    evaluate_every: int = 2
    proximity: ProximityWeights | None = None
    mechanism: Mechanism | None = None
    min_sites: int = 3
    centre: bool = False
    cohort_gain: float = 1.0
    standardised: tuple[str, ...] = ()
    shrunk: bool = False
    public_centres: bool = False

    @property
    def last_measured(self) -> int:
        """The last round that blending observes."""
        return last_observed(self.rounds, self.evaluate_every)
