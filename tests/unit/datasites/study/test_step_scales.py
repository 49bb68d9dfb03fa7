"""Blending scales in a plan: bounded, only where the study blends, and effective under any optimiser."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datasites.study.proposal import Block
from datasites.study.recomputed.checks import check_scales
from datasites.study.recomputed.next_model import restoring_gain
from datasites.worker.trainer import trial_plan
from privacy.dp.mechanism import LossRelease
from privacy.errors import InvalidInput, Refused

BLOCKS = (
    Block(name="mrna", modality="mrna", length=6, parameters=("m",)),
    Block(name="clinical", modality="clinical", length=3, parameters=("c",)),
    Block(name="shared", modality=None, length=3, parameters=("s",)),
)


@pytest.fixture
def study(new_proposal):
    plain = new_proposal(blocks=BLOCKS)
    losses = LossRelease(every_rounds=2, bound=1.5, noise_multiplier=9.0, terms=3)
    return replace(
        plain,
        mechanism=replace(plain.mechanism, losses=losses),
        training=replace(plain.training, aggregation="dgb"),
    )


def plan(study, **scales):
    return replace(trial_plan(study), scales=scales)


def test_a_study_that_blends_may_scale_its_blocks_down(study):
    check_scales(study, plan(study, mrna=0.001, clinical=1.0, shared=1.0))


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_scale_outside_its_bounds_is_refused(study, scale):
    with pytest.raises(Refused, match="above 0"):
        check_scales(study, plan(study, mrna=scale))


def test_a_scale_of_another_block_is_refused(study):
    with pytest.raises(Refused, match="other blocks"):
        check_scales(study, plan(study, image=0.5))


def test_a_study_that_does_not_blend_has_no_scales_but_one(study):
    plain = replace(study, training=replace(study.training, aggregation="pcw"))
    check_scales(plain, plan(plain, mrna=1.0))
    with pytest.raises(Refused, match="does not blend"):
        check_scales(plain, plan(plain, mrna=0.9))


def test_blending_without_released_losses_is_no_proposal(study):
    with pytest.raises(InvalidInput, match="released losses"):
        replace(study, mechanism=replace(study.mechanism, losses=None))


def test_the_server_gives_back_the_length_so_that_scales_average_one(study):
    assert restoring_gain(study, plan(study, mrna=0.5, clinical=1.0, shared=1.0)) == pytest.approx(4 / 3)
    assert restoring_gain(study, plan(study)) == 1.0
