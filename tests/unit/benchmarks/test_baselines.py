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


@pytest.mark.parametrize(("name", "apart"), [("ridge", False), ("ridge-biased", True)])
def test_ridge_has_a_bias_of_each_cohort_only_where_its_columns_are_as_large_as_the_features(name, apart):
    many = ModelConfig(architecture="linear", features={"mrna": 400}, cohorts=("a", "b"), classes=2)
    generator = torch.Generator().manual_seed(0)
    cohort = torch.arange(300) % 2
    label = (torch.rand(300, generator=generator) < 0.2 + 0.6 * cohort).long()
    seen = {"mrna": torch.randn(300, 400, generator=generator), "presence": torch.ones(300, 1)}
    two = {"mrna": torch.zeros(2, 400), "presence": torch.ones(2, 1), "cohort": torch.arange(2), "label": cohort[:2]}
    later = fit(name, {**seen, "cohort": cohort, "label": label}, many)(two)[:, 1]
    assert (later[1] - later[0] > 0.3) == apart
