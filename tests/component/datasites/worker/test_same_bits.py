"""A machine on which a record's numbers depend on its neighbours is found before a charge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datasites.worker.same_bits import same_bits
from models.build import build_model, record_loss
from models.config import ModelConfig
from privacy.dp.fixed_batches import TOGETHER

FEATURES = {"mrna": 64, "clinical": 9}


def batch(records: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = {name: torch.randn(records, width, generator=generator) for name, width in FEATURES.items()}
    made |= {"presence": torch.ones(records, len(FEATURES)), "cohort": torch.zeros(records, dtype=torch.long)}
    return made | {"label": torch.randint(2, (records,), generator=generator)}


@pytest.mark.parametrize("architecture", ["linear", "mlp", "mlp-auxiliary"])
def test_the_networks_of_models_give_the_same_bits_on_this_machine(architecture: Any) -> None:
    config = ModelConfig(architecture=architecture, features=FEATURES, cohorts=("A",), classes=2)
    model = build_model(config, seed=1)
    assert same_bits(model, record_loss, batch(20), TOGETHER)


class Mixing(nn.Module):
    """A network whose records see one another in the last bits only, as under kernels that depend on the place."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.layer, self.size = nn.Linear(64, 1), size

    def forward(self, rows: dict[str, Tensor]) -> Tensor:
        x = rows["mrna"]
        scores: Tensor = self.layer(x + self.size * torch.arange(len(x), dtype=x.dtype)[:, None])[:, 0]
        return scores


def test_a_difference_in_the_last_bits_is_found() -> None:
    def loss(model: nn.Module, rows: dict[str, Tensor]) -> Tensor:
        scores: Tensor = model(rows)
        return scores.square()

    assert same_bits(Mixing(0.0), loss, batch(20), TOGETHER)  # type: ignore[arg-type]
    assert not same_bits(Mixing(1e-7), loss, batch(20), TOGETHER)  # type: ignore[arg-type]
    assert same_bits(Mixing(1e-7), loss, batch(20), 1)  # type: ignore[arg-type]
    assert same_bits(Mixing(1e-7), loss, batch(0), TOGETHER)  # type: ignore[arg-type]
