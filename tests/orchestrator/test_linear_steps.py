"""The written-out gradient of the linear model is autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.benchmarks import linear_steps

from models.build import build_model, record_loss
from models.config import ModelConfig
from models.parameters import assign, flatten

torch.set_num_threads(1)
descend = linear_steps.descend


def records(classes, generator):
    presence = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]] * 20)
    made = {"mrna": torch.randn(40, 12, generator=generator), "image": torch.randn(40, 7, generator=generator)}
    made = {m: v * presence[:, [i]] for i, (m, v) in enumerate(made.items())}
    label = torch.randint(classes, (40,), generator=generator)
    cohort = torch.randint(2, (40,), generator=generator)
    return {**made, "clinical": torch.zeros(40, 5), "presence": presence, "label": label, "cohort": cohort}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("proximal_mu", [0.0, 0.3])
def test_steps_are_those_of_autograd(classes, proximal_mu):
    features = {"mrna": 12, "image": 7, "clinical": 5}
    config = ModelConfig(architecture="linear", features=features, cohorts=("a", "b"), classes=classes)
    generator = torch.Generator().manual_seed(3)
    batch = records(classes, generator)
    model, other = build_model(config, seed=1), build_model(config, seed=1)
    names = [n for n, _ in model.named_parameters()]
    first = torch.randn(flatten(model, names).shape, generator=generator).numpy()
    assign(model, names, first)
    assign(other, names, first)
    start = [p.detach().clone() for p in other.parameters()]
    for _ in range(3):
        gradients = torch.autograd.grad(record_loss(other, batch).mean(), list(other.parameters()))
        with torch.no_grad():
            for parameter, gradient, origin in zip(other.parameters(), gradients, start, strict=True):
                pull = proximal_mu * (parameter - origin)
                parameter.mul_(1 - 2.0 * 0.01).add_(gradient + pull, alpha=-2.0)
    descend(model, batch, steps=3, learning_rate=2.0, weight_decay=0.01, proximal_mu=proximal_mu)
    np.testing.assert_allclose(flatten(model, names), flatten(other, names), rtol=2e-5, atol=2e-6)
