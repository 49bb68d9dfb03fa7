"""Kernel ridges of the baselines: each family learns what it is for, and leave-one-out error chooses its strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from research.baselines import FAMILIES, fit

from models.config import ModelConfig

CONFIG = ModelConfig(architecture="linear", features={"mrna": 4}, cohorts=("a", "b"), classes=2)


def records(target, count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    cohort = torch.randint(2, (count,), generator=generator)
    label = (target(inputs, cohort) > 0).long()
    return {"mrna": inputs, "presence": torch.ones(count, 1), "cohort": cohort, "label": label}


def accuracy(name, target):
    predict = fit(name, records(target), CONFIG)
    asked = records(target, seed=1)
    probabilities = predict(asked)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    return float((probabilities.argmax(axis=1) == asked["label"].numpy()).mean())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_a_line(name):
    assert accuracy(name, lambda x, _: x[:, 0] - x[:, 1]) > 0.85


@pytest.mark.parametrize("name", ["pairs", "rbf"])
def test_products_of_inputs_need_a_kernel_that_has_them(name):
    product = lambda x, _: x[:, 0] * x[:, 1]  # noqa: E731
    assert accuracy(name, product) > 0.85
    assert accuracy("linear", product) < 0.65


def test_slopes_of_cohorts_need_the_kernel_that_has_them():
    turned = lambda x, cohort: x[:, 0] * (1 - 2 * cohort)  # noqa: E731
    assert accuracy("by-cohort", turned) > 0.85
    assert accuracy("linear", turned) < 0.65


def test_one_class_alone_is_always_predicted():
    predict = fit("rbf", records(lambda x, _: torch.ones(len(x))), CONFIG)
    assert predict(records(lambda x, _: x[:, 0], seed=2)).argmax(axis=1).min() == 1
