"""The methods that are compared, one line each, with one frozen configuration per model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from models.config import Architecture
from orchestrator.blending import BlendingRule
from orchestrator.proximity import ProximityRule
from orchestrator.simulate import SimulationSettings
from privacy.errors import InvalidInput
from privacy.mechanism import Mechanism

Arrangement = Literal["federated", "alone", "pooled", "upper-bound"]
Noise = Literal["local", "shared"]

_BASE: Mapping[str, SimulationSettings] = {
    "linear": SimulationSettings(),
    "mlp": SimulationSettings(learning_rate=0.05),
    "mlp-auxiliary": SimulationSettings(learning_rate=0.05),
    "convolutional": SimulationSettings(learning_rate=0.05),
}
_FEDADAM_RATE = {"linear": 0.05}
PRIVATE_ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the institutions train, and what the orchestrator does with their updates."""

    name: str
    arrangement: Arrangement = "federated"
    change: Callable[[SimulationSettings, str], SimulationSettings] = lambda settings, _: settings


def _fedadam(settings: SimulationSettings, architecture: str) -> SimulationSettings:
    rate = _FEDADAM_RATE.get(architecture, 0.005)
    steps = 1 if settings.mechanism is None else settings.local_steps
    return replace(settings, local_steps=steps, server_optimizer="adam", server_learning_rate=rate)


METHODS: Mapping[str, Method] = {
    m.name: m
    for m in (
        Method(name="local", arrangement="alone"),
        Method(name="fedavg"),
        Method(name="fedprox", change=lambda s, _: replace(s, proximal_mu=0.01)),
        Method(name="fedadam", change=_fedadam),
        Method(name="dgb", change=lambda s, _: replace(s, blending=BlendingRule())),
        Method(name="pcw", change=lambda s, _: replace(s, proximity=ProximityRule())),
        Method(name="dgb+pcw", change=lambda s, _: replace(s, blending=BlendingRule(), proximity=ProximityRule())),
        Method(name="pooled", arrangement="pooled"),
        Method(name="upper-bound", arrangement="upper-bound"),
        Method(name="dgb-published", change=lambda s, _: replace(s, blending=BlendingRule(published=True))),
        Method(name="pcw-published", change=lambda s, _: replace(s, proximity=ProximityRule(published=True))),
    )
}
DEFAULT_METHODS = tuple(METHODS)[:9]


def method(name: str) -> Method:
    """Return the method called ``name``.

    Raises:
        InvalidInput: there is none of that name.
    """
    if name not in METHODS:
        raise InvalidInput(f"unknown method {name!r}: expected some of {', '.join(METHODS)}")
    return METHODS[name]


def settings_of(
    chosen: Method, architecture: Architecture, *, rounds: int, epsilon: float, delta: float, noise: Noise, sites: int
) -> SimulationSettings:
    """Return what ``chosen`` runs with this model under this privacy.

    Args:
        chosen: a method.
        architecture: the model; see ``_BASE`` for its configuration.
        rounds: rounds without privacy; with privacy there are :data:`PRIVATE_ROUNDS` of one full-batch step.
        epsilon: per patient at ``delta``, add/remove adjacency, PLD accountant; infinity means no privacy.
        delta: in (0, 1).
        noise: where the noise is added; under shared noise all ``sites`` must be in the sum, one may collude.
        sites: how many institutions take part.
    """
    base = replace(_BASE[architecture], rounds=rounds)
    if math.isfinite(epsilon):
        fewest = sites if noise == "shared" else 3
        mechanism = Mechanism(
            max_grad_norm=1.0,
            noise_multiplier=1.0,
            sampling_rate=1.0,
            steps_per_round=1,
            rounds=PRIVATE_ROUNDS,
            target_delta=delta,
            noise=noise,
            min_sites=fewest,
            max_sites=max(sites, fewest),
        ).calibrate(epsilon, delta)
        rate = 2 * base.learning_rate
        base = replace(base, rounds=PRIVATE_ROUNDS, learning_rate=rate, mechanism=mechanism)
    return chosen.change(base, architecture)


def architecture_of(chosen: Method, architecture: Architecture) -> Architecture:
    """Return the model a method trains: blending an MLP adds the unimodal losses it is defined with."""
    if architecture == "mlp" and chosen.name.startswith("dgb"):
        return "mlp-auxiliary"
    return architecture
