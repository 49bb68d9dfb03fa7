"""Noise for a study: its mechanism, calibrated so that the worst case meets the wished-for epsilon exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from datasites.strategy.blending import last_observed
from datasites.strategy.registry import noise_named, strategy_named
from datasites.study.recomputed.released_numbers import terms_of
from models.config import ModelConfig
from privacy.dp.calibration import calibrate, delta_for_ideal_noise
from privacy.dp.gaussian import gaussian_mu
from privacy.dp.mechanism import HistogramRelease, LossRelease, Mechanism
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.studies.proposing.settings import Offer, StudySettings

DEFAULT_STEPS = 20
_FEW_ROUNDS = 10
_LOSS_BOUND = 1.5  # nats; a coin's loss is 0.69
_MOST_HISTOGRAMS = 600  # of 32 bins; an update's header holds a mebibyte


def fewest_sites(settings: StudySettings) -> int:
    """Return the settled ``min_sites``.

    Raises:
        InvalidInput: it is not settled.
    """
    if settings.min_sites is None:
        raise InvalidInput("expected min_sites to be settled, see with_min_sites")
    return settings.min_sites


def calibrated_mechanism(
    settings: StudySettings, offers: Sequence[Offer], model: ModelConfig, parameters: int
) -> Mechanism:
    """Return the mechanism of a study with so many parameters, calibrated to its epsilon.

    Raises:
        InvalidInput: no noise reaches that epsilon, or a share is out of its range.
    """
    noise = noise_named(settings.noise)
    max_sites, max_parameters = noise.charged_size(
        sites=len(offers), min_sites=fewest_sites(settings), parameters=parameters
    )
    mechanism = Mechanism(
        max_grad_norm=settings.max_grad_norm,
        noise_multiplier=0.0,
        sampling_rate=settings.sampling_rate,
        steps_per_round=noise.steps_per_round(
            settings.steps_per_round or max(1, round(DEFAULT_STEPS / settings.rounds))
        ),
        rounds=settings.rounds,
        target_delta=settings.delta,
        noise=noise.accounted_as,
        min_sites=fewest_sites(settings),
        colluders=settings.colluders,
        max_sites=max_sites,
        max_parameters=max_parameters,
    )
    mechanism = replace(
        mechanism,
        evaluation=_evaluation(settings, mechanism, offers, model),
        losses=_losses(settings, mechanism, offers, model),
    )
    if without_privacy(settings):
        return mechanism
    if settings.counting is not None:  # one Gaussian release: its noise has a closed form
        return replace(mechanism, noise_multiplier=_multiplier(settings, mechanism, 1.0))
    return calibrate(mechanism, settings.epsilon or math.inf, settings.delta)


def check_evaluation_by(groups: Sequence[str], share: float) -> None:
    """Refuse groups of an evaluation that there are not.

    Raises:
        InvalidInput: another one than ``site`` and ``pattern``, or groups of no evaluation.
    """
    if isinstance(groups, str) or not set(groups) <= {"site", "pattern"}:
        raise InvalidInput(f"expected an evaluation by site, pattern or both, got {', '.join(groups)[:60]}")
    if groups and share == 0:
        raise InvalidInput("expected a share of epsilon for an evaluation by site or pattern, got 0: --evaluate 0.2")


def _evaluation(
    settings: StudySettings, mechanism: Mechanism, offers: Sequence[Offer], model: ModelConfig
) -> HistogramRelease | None:
    """Return one evaluation in the last round that takes ``evaluation_share`` of the divergence epsilon allows."""
    check_evaluation_by(settings.evaluation_by, settings.evaluation_share)
    share = settings.evaluation_share
    if share == 0:
        return None
    if not 0 < share <= 1:
        raise InvalidInput(f"expected an evaluation share from 0 to 1, got {share:g}; 0 leaves the evaluation out")
    patterns = (1 << max(len(o.modalities) for o in offers)) - 1 if "pattern" in settings.evaluation_by else 1
    histograms = model.scores * model.cells * patterns
    if histograms > _MOST_HISTOGRAMS:
        apart = f" and {patterns} combinations of modalities" * (patterns > 1)
        raise InvalidInput(
            f"an evaluation of {model.cells} classes{apart} would release {histograms} histograms, at most "
            f"{_MOST_HISTOGRAMS} travel with an update; set --evaluation-share 0, or tell fewer apart"
        )
    if strategy_named(settings.aggregation).blending.reads_losses:  # which the patients that are scored pay as well
        share = min(share, 1.0 - settings.blending_share)
    return HistogramRelease(
        every_rounds=settings.rounds,
        noise_multiplier=_multiplier(settings, mechanism, share),
        outputs=model.scores,
        scored_apart=True,
    )


def _losses(
    settings: StudySettings, mechanism: Mechanism, offers: Sequence[Offer], model: ModelConfig
) -> LossRelease | None:
    """Return the loss releases that blending observes: few, early, for ``blending_share`` of what epsilon allows.

    Every one of them takes noise from training and keeps a fifth of the records out of it, so they stop after two
    fifths of the rounds; the scales then stay.
    """
    if not strategy_named(settings.aggregation).blending.reads_losses:
        return None
    if not 0 < settings.blending_share < 1:
        raise InvalidInput(f"expected a blending_share above 0 and below 1, got {settings.blending_share:g}")
    every = 2 if settings.rounds >= _FEW_ROUNDS or settings.centred else 1  # round 1 of a centred study trains nothing
    last = min(settings.rounds, last_observed(settings.rounds, every))
    times = last // every
    losses = 1 + 2 * ModelConfig.auxiliary if settings.architecture == "mlp-auxiliary" else 1
    return LossRelease(
        every_rounds=every,
        bound=_LOSS_BOUND * losses * _terms(model),
        noise_multiplier=_multiplier(settings, mechanism, settings.blending_share / times),
        terms=max(len(terms_of(o.modalities, len(o.modalities) + 1)) for o in offers),
        last_round=last,
    )


def _terms(model: ModelConfig) -> float:
    """Return how large a loss of the outcome is over that of two classes, where the model knows nothing."""
    if model.predicts is None:
        return model.classes - 1
    if model.predicts.kind == "categorical":
        return math.log2(model.classes)
    return 2.0 if model.predicts.kind == "survival" else 1.0


def _multiplier(settings: StudySettings, mechanism: Mechanism, share: float) -> float:
    """Return the noise multiplier of one release that takes ``share`` of the mu squared epsilon allows, rounded up.

    The distance to ideal noise takes a hundredth of delta at most, as in :func:`privacy.dp.calibration.calibrate`.
    """
    if without_privacy(settings):
        return 0.0
    epsilon = settings.epsilon or math.inf
    left = delta_for_ideal_noise(replace(mechanism, target_delta=settings.delta), epsilon)
    return float(f"{1.0005 / (gaussian_mu(epsilon, left) * math.sqrt(share)):.5g}")


def without_privacy(settings: StudySettings) -> bool:
    """Return whether the scientist asks for no noise at all."""
    return settings.epsilon is None or math.isinf(settings.epsilon)
