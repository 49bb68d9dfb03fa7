"""The methods that are compared, one line each, with one frozen configuration per model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from datasites.strategy.blending import GradientBlending
from datasites.strategy.proximity import ProximityWeights
from models.config import Architecture, Heads, ModelConfig
from orchestrator.studies.proposing.schedule import private_schedule, standardising
from privacy.dp.calibration import calibrate
from privacy.dp.mechanism import LossRelease, Mechanism
from privacy.errors import InvalidInput
from research.simulation_settings import SimulationSettings

Arrangement = Literal["federated", "alone", "pooled", "upper-bound"]
Noise = Literal["local", "shared"]

_BASE: Mapping[str, SimulationSettings] = {
    "linear": SimulationSettings(learning_rate=3.0, local_steps=8),
    "mlp": SimulationSettings(learning_rate=0.1),
    "mlp-auxiliary": SimulationSettings(learning_rate=0.05, weight_decay=0.1),
    "convolutional": SimulationSettings(learning_rate=0.1),
}
_FEDADAM_RATE = {"linear": 0.05}
_MOMENTUM_RATE = 1 / 0.3
"""The server keeps 0.7 of its last direction and 0.3 of the new one: at this rate a lasting direction goes full length
in the first round and 3.3 times as far later."""


_BESIDE_FEATURES = 100
"""Parameters of the linear model that belong to no feature: biases of cohorts and thresholds."""
_BLENDING_SHARE = 0.05
_LOSS_TERMS = 4


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the institutions train, and what the orchestrator does with their updates.

    ``heads`` is for the paper's network: one per modality combination is how it was published
    (:mod:`research.combination_heads`). ``scaled`` divides every input by the root of its deviation over all sites,
    exchanged exactly: without privacy only (:func:`research.scaling.halfway`).
    """

    name: str
    arrangement: Arrangement = "federated"
    heads: Heads = "shared"
    scaled: bool = False
    change: Callable[[SimulationSettings, str], SimulationSettings] = lambda settings, _: settings


def _fedadam(settings: SimulationSettings, architecture: str) -> SimulationSettings:
    rate = _FEDADAM_RATE.get(architecture, 0.005)
    steps = 1 if settings.mechanism is None else settings.local_steps
    return replace(settings, local_steps=steps, server_optimizer="adam", server_learning_rate=rate)


def _momentum(settings: SimulationSettings) -> SimulationSettings:
    if settings.mechanism is not None:  # with noise, the private schedule's own step is what was chosen
        return settings
    return replace(settings, server_optimizer="momentum", server_learning_rate=_MOMENTUM_RATE)


def _fedavgm(settings: SimulationSettings, architecture: str) -> SimulationSettings:
    """Return momentum with more and shorter local steps, the quickest without losing the final value.

    Not for proximity weighting: that far into training honest sites contradict each other within its rounds.
    """
    changed = _momentum(settings)
    if settings.mechanism is not None or architecture != "linear":
        return changed
    return replace(changed, local_steps=12)


def _uncentred(settings: SimulationSettings) -> SimulationSettings:
    """Return the private schedule that was best without centring (without privacy nothing is centred anyway)."""
    before = settings.mechanism
    if before is None:
        return settings
    rounds = 20 if before.noise == "shared" else 10
    rescheduled = replace(before, rounds=rounds, max_grad_norm=1.0)
    mechanism = calibrate(rescheduled, before.epsilon(), before.target_delta)
    return replace(
        settings,
        rounds=rounds,
        learning_rate=200.0 / rounds,
        weight_decay=0.0,
        centre=False,
        standardised=(),
        shrunk=False,
        public_centres=False,
        cohort_gain=1.0,
        mechanism=mechanism,
    )


def _both(settings: SimulationSettings) -> SimulationSettings:
    return replace(settings, blending=GradientBlending(), proximity=ProximityWeights())


METHODS: Mapping[str, Method] = {
    m.name: m
    for m in (
        Method(name="local", arrangement="alone"),
        Method(name="fedavg"),
        Method(name="fedprox", change=lambda s, _: replace(s, proximal_mu=0.01)),
        Method(name="fedadam", change=_fedadam),
        Method(name="dgb", change=lambda s, _: replace(s, blending=GradientBlending())),
        Method(name="pcw", change=lambda s, _: replace(s, proximity=ProximityWeights())),
        Method(name="dgb+pcw", change=lambda s, _: _both(s)),
        Method(name="pooled", arrangement="pooled"),
        Method(name="upper-bound", arrangement="upper-bound"),
        Method(name="fedavg-uncentred", change=lambda s, _: _uncentred(s)),
        Method(name="fedavg-auxiliary"),
        Method(name="fedavg-scaled", scaled=True),
        Method(name="fedavg-combination", heads="combination"),
        Method(name="fedavgm", change=_fedavgm),
        Method(name="dgb+pcw+momentum", change=lambda s, _: _momentum(_both(s))),
        Method(name="dgb-published", change=lambda s, _: replace(s, blending=GradientBlending(published=True))),
        Method(name="pcw-published", change=lambda s, _: replace(s, proximity=ProximityWeights(published=True))),
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
    chosen: Method,
    config: ModelConfig,
    *,
    rounds: int,
    epsilon: float,
    delta: float,
    noise: Noise,
    sites: int,
    unscaled: tuple[str, ...] = (),
    constants: bool = False,
) -> SimulationSettings:
    """Return what ``chosen`` runs with this model under this privacy.

    Args:
        chosen: a method.
        config: the model; see ``_BASE`` for what its architecture runs with.
        rounds: rounds without privacy; with privacy a schedule says how many, of one full-batch step each.
        epsilon: per patient at ``delta``, add/remove adjacency, PLD accountant; infinity means no privacy.
        delta: in (0, 1).
        noise: where the noise is added; under shared noise all ``sites`` must be in the sum, one may collude.
        sites: how many institutions take part.
        unscaled: modalities whose features have no public scale: a private study of the linear model releases one.
        constants: there are constants of public tables, which the schedule takes where they help.
    """
    base = replace(_BASE[config.architecture], rounds=rounds)
    if math.isfinite(epsilon):
        places = 1 if chosen.arrangement == "pooled" else sites
        base = _private(
            base,
            config,
            epsilon=epsilon,
            delta=delta,
            noise=noise,
            sites=places,
            unscaled=unscaled,
            constants=constants,
        )
    changed = chosen.change(base, config.architecture)
    return _with_charged_losses(changed, epsilon, delta)


def _private(
    base: SimulationSettings,
    config: ModelConfig,
    *,
    epsilon: float,
    delta: float,
    noise: Noise,
    sites: int,
    unscaled: tuple[str, ...],
    constants: bool,
) -> SimulationSettings:
    where = noise if sites > 1 else "shared"  # one place, one noise
    schedule = private_schedule(config.architecture, epsilon, where, constants=constants and not unscaled)
    schedule = standardising(schedule, unscaled)
    fewest = sites if noise == "shared" else 3
    mechanism = Mechanism(
        max_grad_norm=schedule.max_grad_norm,
        noise_multiplier=1.0,
        sampling_rate=1.0,
        steps_per_round=1,
        rounds=schedule.rounds,
        target_delta=delta,
        noise=noise,
        min_sites=fewest,
        max_sites=max(sites, fewest),
        max_parameters=max(schedule.max_parameters, sum(config.features.values()) + _BESIDE_FEATURES),
    )
    return replace(
        base,
        rounds=schedule.rounds,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        centre=schedule.centred,
        cohort_gain=schedule.cohort_gain,
        standardised=schedule.standardised,
        shrunk=schedule.shrunk and not schedule.standardised,
        public_centres=schedule.public_centres,
        mechanism=calibrate(mechanism, epsilon, delta),
    )


def _with_charged_losses(settings: SimulationSettings, epsilon: float, delta: float) -> SimulationSettings:
    """Return ``settings`` whose blending observes noised losses that the same epsilon pays for."""
    mechanism = settings.mechanism
    if mechanism is None or settings.blending is None:
        return settings
    times = settings.last_measured // settings.evaluate_every
    single = replace(mechanism, noise="local", min_sites=3, rounds=1)
    once = calibrate(single, epsilon, delta).noise_multiplier
    losses = LossRelease(
        every_rounds=settings.evaluate_every,
        bound=2.0,
        noise_multiplier=once * math.sqrt(times / _BLENDING_SHARE),
        terms=_LOSS_TERMS,
        last_round=settings.last_measured,
    )
    return replace(settings, mechanism=calibrate(replace(mechanism, losses=losses), epsilon, delta))


def architecture_of(chosen: Method, architecture: Architecture) -> Architecture:
    """Return the model a method trains: blending an MLP adds the unimodal losses it is defined with."""
    if architecture == "mlp" and chosen.name.startswith(("dgb", "fedavg-auxiliary")):
        return "mlp-auxiliary"
    return architecture
