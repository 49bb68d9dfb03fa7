"""Encoders from one modality to an embedding, built of layers whose per-record gradients are known exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import ModelConfig

CHANNELS = 3
PATCH = 8
FILTERS = 16


def dense_encoder(features: int, hidden: int, embedding: int) -> nn.Sequential:
    """Return the paper's encoder: two linear layers down to the embedding."""
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, embedding),
        nn.ReLU(),
    )


class TissueMapEncoder(nn.Module):
    """A strided convolution over tissue maps, written as a linear layer over patches, then a dense layer.

    Non-overlapping 8 x 8 patches keep the record axis first ([B, patches, values]), so a record's gradient is
    the sum over its own patches and nothing else. About 5,700 parameters for 64 x 64 x 3 maps.
    """

    def __init__(self, side: int, embedding: int) -> None:
        super().__init__()
        self.side = side
        self.patches = nn.Linear(PATCH * PATCH * CHANNELS, FILTERS)
        self.mix = nn.Linear(2 * FILTERS, embedding)

    def forward(self, flat: Tensor) -> Tensor:
        """Map float32 [B, side * side * 3] to float32 [B, embedding]."""
        grid = self.side // PATCH
        maps = flat.view(-1, grid, PATCH, grid, PATCH, CHANNELS)
        patches = maps.permute(0, 1, 3, 2, 4, 5).reshape(-1, grid * grid, PATCH * PATCH * CHANNELS)
        found = torch.relu(self.patches(patches))  # [B, patches, filters]
        pooled = torch.cat([found.mean(dim=1), found.amax(dim=1)], dim=1)  # [B, 2 filters]
        return torch.relu(self.mix(pooled))


def encoder(config: ModelConfig, modality: str) -> nn.Module:
    """Return the encoder of ``modality`` for this architecture."""
    if config.architecture == "convolutional" and modality == "image":
        return TissueMapEncoder(config.side, config.embedding)
    return dense_encoder(config.features[modality], config.hidden, config.embedding)
