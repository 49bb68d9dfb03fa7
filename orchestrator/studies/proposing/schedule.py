"""How a private study of the linear model spends its epsilon: chosen on public data, the same live and simulated.

More noise asks for fewer rounds: what noise adds to the model grows with the way taken, and with many rounds most of
it is taken in directions that noise alone chose. Chosen on the selection seeds of docs/results.md, none of which is
reported there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from datasites.strategy.registry import noise_named, strategy_named
from models.config import Architecture
from orchestrator.studies.proposing.settings import StudySettings

PLAIN_ROUNDS = 20
MORE_MOMENT_ROUNDS = 2
"""What a study with modalities of unknown scale releases beside the means: finer means, and spreads."""


@dataclass(frozen=True, kw_only=True)
class PrivateSchedule:
    """Rounds of one full-batch step each, and the constants that go with them; all of it public.

    ``centred`` spends the first of ``rounds`` on the feature means; ``cohort_gain`` keeps the bias from taking half of
    the clipping norm (:class:`models.config.ModelConfig`). Weight decay is kept where nothing is centred: it is then
    the only pull on directions that noise alone moves. ``max_parameters`` covers the model on the TCGA tables.
    """

    rounds: int = PLAIN_ROUNDS
    learning_rate: float = 10.0
    max_grad_norm: float = 1.0
    weight_decay: float = 1e-3
    centred: bool = False
    cohort_gain: float = 1.0
    standardised: tuple[str, ...] = ()
    shrunk: bool = False
    public_centres: bool = False
    max_parameters: int = 50_000


_LINEAR = PrivateSchedule(
    rounds=6,
    learning_rate=40.0,
    max_grad_norm=0.7,
    weight_decay=0.0,
    centred=True,
    cohort_gain=0.5,
    max_parameters=2_400,
)


_SHRUNK = replace(_LINEAR, shrunk=True)
_PUBLIC = replace(_LINEAR, learning_rate=20.0, max_grad_norm=0.5, public_centres=True)
_SHRUNK_BELOW: Mapping[str, float] = {"shared": 1.5, "local": 6.0}
_PUBLIC_BELOW: Mapping[str, float] = {"shared": 1.5, "local": 3.0}
"""Below which epsilon released means drown in noise, and public constants are worth more than a round that releases."""

_LARGER: Mapping[str, tuple[tuple[float, PrivateSchedule], ...]] = {
    "local": ((16.0, replace(_LINEAR, rounds=10)),),
    "shared": (
        (8.0, replace(_LINEAR, rounds=12, learning_rate=60.0, max_grad_norm=0.6)),
        (3.0, replace(_LINEAR, learning_rate=60.0)),
    ),
}
"""By what is charged: from which epsilon on which schedule is better than ``_LINEAR``, the largest epsilon first."""


def private_schedule(
    architecture: Architecture, epsilon: float, noise: str, *, constants: bool = False
) -> PrivateSchedule:
    """Return the schedule for one model, one finite epsilon (at a delta near 1e-4) and one kind of noise.

    ``constants``: there are constants from public tables, which the schedule takes where they help.
    """
    if architecture != "linear":
        return PrivateSchedule(learning_rate=0.1)
    charged = noise_named(noise).accounted_as
    if constants and constants_help(epsilon, noise):
        return _PUBLIC
    smallest = _SHRUNK if epsilon < _SHRUNK_BELOW[charged] else _LINEAR
    return next((schedule for least, schedule in _LARGER[charged] if epsilon >= least), smallest)


def constants_help(epsilon: float, noise: str) -> bool:
    """Return whether a private study of the linear model gains by public constants (measured: docs/results.md)."""
    return epsilon < _PUBLIC_BELOW[noise_named(noise).accounted_as]


def standardising(schedule: PrivateSchedule, unscaled: tuple[str, ...]) -> PrivateSchedule:
    """Return ``schedule`` with the rounds that release means and spreads of ``unscaled`` modalities, if it centres."""
    if not unscaled or not schedule.centred or schedule.public_centres:
        return schedule
    return replace(schedule, standardised=unscaled, rounds=schedule.rounds + MORE_MOMENT_ROUNDS)


def with_schedule(settings: StudySettings, rounds: int | None, *, constants: bool = False) -> StudySettings:
    """Return ``settings`` with the rounds that were asked for, or, where none were, with the schedule that suits them.

    Only plain steps of the linear model under privacy have a schedule; anything else gets :data:`PLAIN_ROUNDS`.
    ``constants``: there are constants from public tables. ``public_centres`` of the result says whether it takes them;
    modalities of unknown scale release spreads, which public tables cannot give.
    """
    scheduled = settings.architecture == "linear" and strategy_named(settings.aggregation).server_step.plain
    if rounds is not None or not scheduled or settings.epsilon is None or math.isinf(settings.epsilon):
        return replace(settings, rounds=rounds or PLAIN_ROUNDS)
    taken = constants and not settings.standardised
    found = private_schedule(settings.architecture, settings.epsilon, settings.noise, constants=taken)
    reads_losses = strategy_named(settings.aggregation).blending.reads_losses  # which the first rounds would not change
    found = standardising(found, () if reads_losses else settings.standardised)
    return replace(
        settings,
        rounds=found.rounds,
        steps_per_round=1,
        sampling_rate=1.0,
        learning_rate=found.learning_rate,
        max_grad_norm=found.max_grad_norm,
        weight_decay=found.weight_decay,
        centred=found.centred,
        cohort_gain=found.cohort_gain,
        standardised=found.standardised,
        shrunk=found.shrunk and not found.standardised,
        public_centres=found.public_centres,
    )
