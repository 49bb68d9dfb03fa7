"""FedYogi, FedAdagrad and server momentum follow the published formulas, and run as strategies."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tessera
from datasites.strategy.registry import server_step_named, strategy_named

TAU, RATE = 1e-3, 0.05
UPDATES = np.random.default_rng(4).normal(size=(6, 5)).astype(np.float32) * np.float32(0.1)


def slow(name: str) -> list[list[float]]:
    """Reddi et al. 2021, Algorithm 2, coordinate by coordinate; momentum after Hsu, Qi and Brown 2019."""
    models = []
    x, first, second = [0.0] * 5, [0.0] * 5, [TAU**2] * 5
    for update in UPDATES.tolist():
        for i, delta in enumerate(update):
            if name == "momentum":
                first[i] = 0.7 * first[i] + 0.3 * delta
                x[i] += RATE * first[i]
                continue
            first[i] = 0.9 * first[i] + 0.1 * delta if name == "yogi-server" else delta
            if name == "yogi-server":
                second[i] -= 0.01 * delta**2 * math.copysign(1.0, second[i] - delta**2)
            else:
                second[i] += delta**2
            x[i] += RATE * first[i] / (math.sqrt(second[i]) + TAU)
        models.append(list(x))
    return models


@pytest.mark.parametrize("name", ["yogi-server", "adagrad", "momentum"])
def test_a_step_follows_its_formula(name):
    rule, state, model = server_step_named(name, RATE), {}, np.zeros(5, np.float32)
    for update, expected in zip(UPDATES, slow(name), strict=True):
        model = rule.step(model, update, state)
        assert model.dtype == np.float32 and model == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["fedyogi", "fedadagrad", "fedavgm"])
def test_a_strategy_trains_under_privacy(name):
    assert not strategy_named(name).server_step.plain
    study = tessera.Study("rule", aggregation=name, epsilon=8, rounds=3)
    found = study.simulate(sites=3, patients=200, progress=False)
    assert len(found.curves[0]) == 3 and 0.3 < found.metrics["auroc"] < 1
