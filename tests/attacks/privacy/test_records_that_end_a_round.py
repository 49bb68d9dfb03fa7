"""Somebody has a round fail because of one record: a failure is seen, and nobody was charged for what it tells.

Played: weights under which a record's gradient is not finite, alone in the last pass of a batch, in every layer type;
the same in the whole batch; records, labels and losses that are not finite, too large or too small, in batches of
all sizes around a pass. The sum has to be finite, and to differ from that without the record by the clip at most.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privacy.dp.clipping import PerExampleClipper
from privacy.dp.fixed_batches import TOGETHER

torch.set_num_threads(1)
WIDTH, CLIP = 48, 0.7


class EveryLayer(nn.Module):
    """Each layer type that has a rule, in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.encoder = nn.Embedding(8, 16), nn.Linear(WIDTH, 16)
        self.patches, self.places = nn.Conv2d(1, 16, 3), nn.Linear(WIDTH, 16)
        self.layer_norm, self.group_norm, self.head = nn.LayerNorm(16), nn.GroupNorm(4, 16), nn.Linear(16, 1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = batch["x"]
        hidden = self.layer_norm(self.encoder(x)) + self.patches(x[:, :36].reshape(-1, 1, 6, 6)).mean((2, 3))
        hidden = hidden + self.places(torch.stack([x, -x, 0.5 * x], dim=1)).sum(1) + self.tokens(batch["token"]).sum(1)
        scores: Tensor = self.head(self.group_norm(hidden))[:, 0]
        return scores


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(batch), batch["y"], reduction="none") * batch["weight"]


def records(count: int, seed: int) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(count, WIDTH, generator=stream),
        "y": torch.randint(0, 2, (count,), generator=stream).float(),
        "weight": torch.ones(count),
        "token": torch.randint(0, 8, (count, 3), generator=stream),
    }


def summed(model: nn.Module, batch: dict[str, Tensor]) -> np.ndarray:
    with PerExampleClipper(model) as clipper:
        sums = clipper.clipped_sum(batch, loss, {"record": CLIP})
    return np.concatenate([total.numpy().ravel() for total in sums.values()])


HOSTILE = {
    "not a number": {"x": float("nan")},
    "infinite": {"x": float("inf")},
    "beyond float32": {"x": 3e38},
    "denormal": {"x": 1e-42},
    "an infinite loss": {"weight": float("inf")},
    "a huge loss": {"weight": 1e38},
    "a label that is not a number": {"y": float("nan")},
}


@pytest.mark.parametrize("others", [0, 1, TOGETHER - 1, TOGETHER, 4 * TOGETHER])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_one_hostile_record_ends_nothing_and_moves_the_sum_by_the_clip(hostile: str, others: int) -> None:
    torch.manual_seed(0)
    model, batch = EveryLayer(), records(others + 1, seed=others)
    for name, value in HOSTILE[hostile].items():
        batch[name][-1] = value
    whole = summed(model, batch)
    without = summed(model, {name: values[:-1] for name, values in batch.items()}) if others else np.zeros_like(whole)
    assert np.isfinite(whole).all()
    assert np.linalg.norm(whole - without) <= CLIP * (1 + 2.0**-13)


def test_weights_under_which_no_gradient_is_finite_give_a_sum_of_zero() -> None:
    model = EveryLayer()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 3e38)
    assert not summed(model, records(2 * TOGETHER + 1, seed=1)).any()
