"""What a simulated study does, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datasites.centring import length_of
from models.config import centring_unit
from orchestrator import proximity as prox
from orchestrator.blending import BlendingRule
from privacy.mechanism import Mechanism


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What a simulated study does; the names are those of :class:`datasites.contract.Training`.

    ``blending`` and ``proximity`` None switch the mechanism off. With blending, validation records are held out
    until ``measure_until`` (a share of the rounds); then the scales are frozen and they train with the others.
    ``centre`` spends the first round on the feature means instead of a gradient (:mod:`models.centring`), for private
    rounds of the linear model; its ``cohort_gain`` keeps the bias from taking half of the clipping norm.
    """

    rounds: int = 40
    local_steps: int = 5
    learning_rate: float = 5.0
    weight_decay: float = 1e-3
    optimizer: Literal["sgd", "adam"] = "sgd"
    server_optimizer: Literal["sgd", "adam", "momentum"] = "sgd"
    server_learning_rate: float = 1.0
    proximal_mu: float = 0.0
    blending: BlendingRule | None = None
    evaluate_every: int = 2
    measure_until: float = 0.4
    proximity: prox.ProximityRule | None = None
    mechanism: Mechanism | None = None
    min_sites: int = 3
    centre: bool = False
    cohort_gain: float = 1.0

    @property
    def last_measured(self) -> int:
        """The last round that blending observes: at least two are."""
        return max(2 * self.evaluate_every, int(self.measure_until * self.rounds))

    @property
    def centring_unit(self) -> float:
        """The factor on the inputs in the round that releases their means; 1 without privacy."""
        return centring_unit(self.mechanism.max_grad_norm) if self.mechanism is not None else 1.0

    @property
    def centring_length(self) -> float:
        """How far the round that releases means moves a weight per unit of a scaled mean input."""
        mechanism = self.mechanism
        steps = mechanism.steps_per_round if mechanism is not None and mechanism.noise == "local" else 1
        pull = self.weight_decay + self.proximal_mu
        return self.centring_unit * length_of(steps, rate=self.learning_rate, pull=pull)
