"""What a scientist proposes where nothing is trained: a study that counts (:mod:`datasites.study.counting`)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from datasites.study.counting import AGGREGATION
from models.counting import Counting
from privacy.dp.mechanism import Mechanism
from privacy.dp.shared_noise import choose_encoding
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from datasites.study.proposal import Training
    from orchestrator.studies.proposing.settings import StudySettings

_MOST_LEVELS = 1 << 22
_STEPS_PER_DEVIATION = 4.0


def counting_settings(settings: StudySettings, asked: Counting) -> StudySettings:
    """Return ``settings`` as a study that counts ``asked`` in one round over all records."""
    return replace(
        settings,
        counting=asked,
        architecture="counts",
        aggregation=AGGREGATION,
        rounds=1,
        steps_per_round=1,
        sampling_rate=1.0,
        learning_rate=1.0,
        weight_decay=0.0,
        max_grad_norm=asked.max_grad_norm,
        evaluation_share=0.0,
        centred=False,
        standardised=(),
    )


def least_levels(settings: StudySettings, mechanism: Mechanism, training: Training, *, cells: int) -> int:
    """Return the fewest levels of a hospital's integers that a study needs for its public box and its noise.

    An update of training lies within a few steps of its noise; a count may be thousands of deviations large. Under
    shared noise every study needs levels that hold a share of at least three steps beside its box.

    Args:
        settings: the scientist's.
        mechanism: calibrated.
        training: with the public box.
        cells: coordinates of the update.

    Raises:
        InvalidInput: no number of levels holds so many patients at so little noise.
    """
    deviation, levels = mechanism.share_deviation, 64
    if mechanism.noise == "local" and settings.counting is None:
        return 1
    if mechanism.noise == "local":
        wanted = _STEPS_PER_DEVIATION * training.update_bound / deviation if deviation > 0 else training.update_bound
        return min(_MOST_LEVELS, max(512, 1 << math.ceil(math.log2(max(1.0, wanted)))))
    while levels <= _MOST_LEVELS:
        try:
            return choose_encoding(mechanism, values=cells, bound=training.update_bound, levels=levels).levels
        except InvalidInput:
            levels *= 2
    raise InvalidInput("these hospitals have more patients than a count with so little noise can carry; ask for less")
