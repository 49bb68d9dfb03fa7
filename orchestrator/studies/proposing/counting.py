"""What a scientist proposes where nothing is trained: a study that counts (:mod:`datasites.study.counting`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from datasites.study.counting import AGGREGATION
from models.counting import Counting

if TYPE_CHECKING:
    from orchestrator.studies.proposing.settings import StudySettings


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
