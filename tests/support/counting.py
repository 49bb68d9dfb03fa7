"""A counting study of the hospitals of the review desk, for the tests of review and portal."""

from __future__ import annotations

from dataclasses import replace

from datasites.study.proposal import Training
from models.config import ModelConfig
from models.counting import Axis, Count, Counting, Question
from privacy.dp.gaussian import gaussian_mu
from privacy.dp.mechanism import Mechanism


def counting(new_proposal, epsilon=0.4, **changes):
    like = new_proposal()
    cohort = Axis(kind="cohort", name="cohort", groups=like.model.cohorts)
    asked = Counting(questions=(Question(kind="counts", title="patients", counts=(Count(axes=(cohort,)),)),))
    model = ModelConfig(
        architecture="counts", features=dict(like.model.features), cohorts=like.model.cohorts,
        classes=like.model.classes, counting=asked,
    )  # fmt: skip
    mechanism = Mechanism(
        max_grad_norm=asked.max_grad_norm, noise_multiplier=1.001 / gaussian_mu(epsilon, 0.99e-5), sampling_rate=1.0,
        steps_per_round=1, rounds=1, target_delta=1e-5, noise=like.mechanism.noise, min_sites=like.min_sites,
        colluders=like.colluders, max_sites=16,
    )  # fmt: skip
    training = Training(
        optimizer="sgd", learning_rate=1.0, weight_decay=0.0, update_bound=500.0, server_optimizer="sgd",
        server_learning_rate=1.0, aggregation="equal",
    )  # fmt: skip
    block = replace(
        like.blocks[0], name="shared", modality=None, length=asked.length, parameters=("cells.total.weight",)
    )
    return replace(
        like, study="counts", model=model, mechanism=mechanism, training=training, rounds=1, blocks=(block,), **changes
    )
