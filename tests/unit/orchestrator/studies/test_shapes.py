"""The network shapes that docs/python.md lists: those that per-example clipping covers, and those that are refused."""

from __future__ import annotations

import pytest
from torch import nn

from orchestrator.studies.proposing.trying import layers
from privacy.dp.clipping import check_model
from privacy.errors import TesseraError

COVERED = {
    "linear": lambda: nn.Linear(3, 2),
    "convolution": lambda: nn.Conv2d(1, 2, 3, padding=1),
    "embedding": lambda: nn.Embedding(5, 2),
    "layer norm": lambda: nn.LayerNorm(4),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "no parameters": lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(4, 1)),
}
REFUSED = {
    "batch norm": lambda: nn.BatchNorm1d(4),
    "batch norm of images": lambda: nn.BatchNorm2d(4),
    "instance norm": lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
    "LSTM": lambda: nn.LSTM(3, 4),
    "GRU": lambda: nn.GRU(3, 4),
    "RNN": lambda: nn.RNN(3, 4),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "convolution of series": lambda: nn.Conv1d(1, 2, 3),
    "convolution of volumes": lambda: nn.Conv3d(1, 2, 3),
    "transposed convolution": lambda: nn.ConvTranspose2d(1, 2, 3),
    "bilinear": lambda: nn.Bilinear(2, 2, 2),
    "norm of embeddings": lambda: nn.Embedding(5, 2, max_norm=1.0),
}


@pytest.mark.parametrize("name", COVERED)
def test_a_listed_shape_is_covered(name):
    model = nn.Sequential(COVERED[name]())
    check_model(model)
    found = layers(model)
    assert found and all(not layer["reason"] for layer in found)


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_shape_is_refused_with_the_reason(name):
    model = nn.Sequential(REFUSED[name]())
    with pytest.raises(TesseraError):
        check_model(model)
    assert any(layer["reason"] for layer in layers(model))


def test_a_parameter_that_two_layers_share_is_refused():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    with pytest.raises(TesseraError):
        check_model(nn.Sequential(first, second))
