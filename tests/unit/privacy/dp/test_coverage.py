from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from privacy.dp.clipping import check_coverage
from privacy.errors import Refused


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))[:, 0]


class Sneaky(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + nn.functional.linear(x, self.a.weight).sum(dim=1)


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["x"]) ** 2


def test_an_ordinary_model_is_covered() -> None:
    torch.manual_seed(0)
    check_coverage(Plain(), {"x": torch.randn(6, 3)}, loss)


def test_a_weight_used_outside_its_layer_is_found() -> None:
    torch.manual_seed(0)
    with pytest.raises(Refused, match="outside its layer"):
        check_coverage(Sneaky(), {"x": torch.randn(6, 3)}, loss)
