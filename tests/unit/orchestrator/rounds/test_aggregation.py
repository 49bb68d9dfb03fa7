"""The server's step: exact for FedAvg, as published for FedAdam; models survive their bytes."""

from __future__ import annotations

import numpy as np
import pytest

from datasites.study.proposal import Block, Training
from datasites.study.recomputed.next_model import ServerOptimizer, flatten, model_from_bytes, model_to_bytes
from privacy.errors import InvalidInput

BLOCK = Block(name="mrna", modality="mrna", length=5, parameters=("w", "b"))


def training(kind: str, rate: float) -> Training:
    return Training(
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=0.0,
        update_bound=1.0,
        server_optimizer=kind,
        server_learning_rate=rate,
        aggregation="fedavg",
    )


def model() -> dict[str, np.ndarray]:
    return {"w": np.zeros((2, 2), np.float32), "b": np.ones(1, np.float32), "local": np.full(2, 9, np.float32)}


def test_fedavg_adds_the_mean_update_and_touches_nothing_else():
    update = np.arange(5, dtype=np.float32)
    after = ServerOptimizer(training("sgd", 1.0)).step(model(), [BLOCK], {"mrna": update})
    assert after["w"].tolist() == [[0, 1], [2, 3]]
    assert after["b"].tolist() == [5]
    assert after["local"].tolist() == [9, 9]


def test_fedadam_follows_its_formula_and_resumes_from_its_moments():
    update = np.float32([1, -2, 3, 0, 0.5])
    whole = ServerOptimizer(training("adam", 0.1))
    once = whole.step(model(), [BLOCK], {"mrna": update})
    first, second = 0.1 * update, 0.01 * update**2
    np.testing.assert_allclose(flatten(once, BLOCK), flatten(model(), BLOCK) + 0.1 * first / (np.sqrt(second) + 1e-3))
    resumed = ServerOptimizer(training("adam", 0.1), moments=model_from_bytes(model_to_bytes(whole.moments)))
    np.testing.assert_array_equal(
        flatten(resumed.step(once, [BLOCK], {"mrna": update}), BLOCK),
        flatten(whole.step(once, [BLOCK], {"mrna": update}), BLOCK),
    )


def test_a_block_of_another_length_is_refused():
    with pytest.raises(InvalidInput, match="expected 5 parameters"):
        flatten({"w": np.zeros((3, 3), np.float32), "b": np.ones(1, np.float32)}, BLOCK)


def test_the_same_model_gives_the_same_bytes_whatever_the_order_of_its_parts():
    one = model()
    other = dict(reversed(one.items()))
    assert model_to_bytes(one) == model_to_bytes(other)
    assert model_from_bytes(model_to_bytes({})) == {}
