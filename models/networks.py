"""The models: linear late fusion, and the paper's network with an encoder per modality.

Every branch runs for every record, and what it returns is multiplied by the presence mask: a branch without a gradient
would break per-record clipping. The network fuses embeddings by one shared head or, with ``heads="combination"``, by
one head per combination of modalities, of which a record uses its own. A head that fewer than ``min_sites``
institutions train must not be exchanged, and in the tri-modal federation most combinations have fewer. The shared head
is the additive fusion that replaces them.

Inputs are float32 [B, features] by modality (:mod:`models.batch`), outputs float32 [B, outputs]; what they mean
depends on the outcome (:mod:`models.losses`).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from models.batch import Batch, cohort_indicator, drop_modalities, has, modalities_of
from models.config import ModelConfig

CHANNELS = 3
PATCH = 8
FILTERS = 16
NETWORK_NORM = 10.0
"""The network's inputs are scaled to about this norm per record."""


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


class ClassWeights(nn.Module):
    """A weight vector for every class. Each is a layer of its own: a product with a vector gives a record the same bits
    wherever it stands in a batch, one with a narrow matrix does not."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.rows = nn.ModuleList(nn.Linear(features, 1, bias=False) for _ in range(classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map float32 [B, features] to float32 [B, classes]."""
        return torch.cat([row(inputs) for row in self.rows], dim=1)


class LinearFusion(nn.Module):
    """Proportional-odds regression over the modalities that are present, or its like for another outcome.

    For two classes this is logistic regression. For K classes all K - 1 thresholds share the weight vectors and
    differ in the bias, which depends on the cohort (CORAL; Cao, Mirjalili and Raschka 2020). So do the intervals of a
    survival model; classes without an order have a weight vector each. A centred model subtracts
    its ``centres`` from the scaled inputs and divides those of standardised modalities by their ``spreads``. They start
    at zero and one and have no gradient.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cohorts = len(config.cohorts)
        categorical = config.predicts is not None and config.predicts.kind == "categorical"
        self.branches = nn.ModuleDict()  # thresholds and intervals share one weight vector, classes do not
        for m in config.modalities:
            n = config.features[m]
            self.branches[m] = ClassWeights(n, config.classes) if categorical else nn.Linear(n, 1, bias=False)
        self.scales = {m: config.gain(m) / math.sqrt(n) for m, n in config.features.items()}
        self.cohort = nn.Linear(self.cohorts, config.outputs, bias=False)
        self.cohort_gain = config.cohort_gain
        self.centres = nn.ParameterDict()
        if config.centred:
            widths = {m: torch.zeros(config.features[m]) for m in config.modalities}
            self.centres = nn.ParameterDict({m: nn.Parameter(z, requires_grad=False) for m, z in widths.items()})
        ones = {m: torch.ones(config.features[m]) for m in config.modalities if m in config.standardised}
        self.spreads = nn.ParameterDict({m: nn.Parameter(o, requires_grad=False) for m, o in ones.items()})

    def forward(self, batch: Batch) -> Tensor:
        """Return what the model says of every record, float32 [B, outputs]."""
        logits: Tensor = self.bias(batch)
        for modality, branch in self.branches.items():
            inputs = self.centred(batch, modality)
            if modality in self.spreads:
                inputs = inputs / self.spreads[modality]
            logits = logits + branch(inputs) * has(batch, modality)  # [B, 1], of classes without an order [B, outputs]
        return logits

    def bias(self, batch: Batch) -> Tensor:
        """Return the cohort's part, float32 [B, outputs]."""
        logits: Tensor = self.cohort(cohort_indicator(batch, self.cohorts) * self.cohort_gain)
        return logits

    def scaled(self, batch: Batch, modality: str) -> Tensor:
        """Return a modality's inputs times its public gain, before centring, float32 [B, features]."""
        return batch[modality] * self.scales[modality]

    def centred(self, batch: Batch, modality: str) -> Tensor:
        """Return a modality's scaled inputs without their released means, float32 [B, features]."""
        inputs = self.scaled(batch, modality)
        return inputs - self.centres[modality] if modality in self.centres else inputs


class FusionNetwork(nn.Module):
    """Encoders, presence mask, fusion head (or heads), cohort bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cohorts = len(config.cohorts)
        self.outputs = config.outputs
        self.dropout = config.modality_dropout
        self.encoders = nn.ModuleDict({m: encoder(config, m) for m in config.modalities})
        self.tokens = nn.ModuleDict()
        if config.missing_tokens:
            self.tokens = nn.ModuleDict({m: nn.Linear(1, config.embedding, bias=False) for m in config.modalities})
        width = config.embedding * len(config.modalities)
        names = combinations(config.modalities) if config.heads == "combination" else ["shared"]
        self.heads = nn.ModuleDict({name: nn.Linear(width, self.outputs, bias=False) for name in names})
        self.cohort = nn.Linear(self.cohorts, self.outputs, bias=False)
        self.scales = input_scales(config)

    def forward(self, batch: Batch) -> Tensor:
        """Return what the model says of every record, float32 [B, outputs]."""
        if self.training and self.dropout > 0:
            batch = drop_modalities(batch, self.dropout)
        fused = torch.cat([self._embed(batch, m) for m in self.encoders], dim=1)
        logits: Tensor = self.cohort(cohort_indicator(batch, self.cohorts))
        for name, head in self.heads.items():
            used = 1.0 if name == "shared" else has_exactly(batch, name.split("+"))
            logits = logits + head(fused) * used
        return logits

    def _embed(self, batch: Batch, modality: str) -> Tensor:
        present = has(batch, modality)
        embedding: Tensor = self.encoders[modality](batch[modality] * self.scales[modality]) * present
        if modality in self.tokens:
            embedding = embedding + self.tokens[modality](1.0 - present)
        return embedding


class LateFusionNetwork(nn.Module):
    """One encoder and one head per modality; the logits of the present modalities are summed, and each has a loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cohorts = len(config.cohorts)
        self.encoders = nn.ModuleDict({m: encoder(config, m) for m in config.modalities})
        self.heads = nn.ModuleDict(
            {m: nn.Linear(config.embedding, config.outputs, bias=False) for m in config.modalities}
        )
        self.cohort = nn.Linear(self.cohorts, config.outputs, bias=False)
        self.scales = input_scales(config)

    def forward(self, batch: Batch) -> Tensor:
        """Return what the model says of every record, float32 [B, outputs]."""
        bias, unimodal = self.parts(batch)
        return bias + torch.stack(list(unimodal.values())).sum(dim=0)

    def parts(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cohort's logits and those of every modality (zero where absent), [B, outputs] each."""
        bias: Tensor = self.cohort(cohort_indicator(batch, self.cohorts))
        unimodal = {
            m: self.heads[m](self.encoders[m](batch[m] * self.scales[m])) * has(batch, m) for m in self.encoders
        }
        return bias, unimodal


def input_scales(config: ModelConfig) -> dict[str, float]:
    """Return the public factor on each modality's inputs, which brings a record's inputs to a norm near ten."""
    maps = config.architecture == "convolutional"
    return {
        m: 1.0 if maps and m == "image" else NETWORK_NORM * config.gain(m) / math.sqrt(n)
        for m, n in config.features.items()
    }


def combinations(modalities: tuple[str, ...]) -> list[str]:
    """Return every non-empty combination, smallest first: ``mrna``, ``image``, ..., ``mrna+image+clinical``."""
    sizes = range(1, len(modalities) + 1)
    return ["+".join(c) for size in sizes for c in itertools.combinations(modalities, size)]


def has_exactly(batch: Batch, wanted: list[str]) -> Tensor:
    """Return 1 for records with exactly the modalities ``wanted``, else 0; float32 [B, 1]."""
    held = batch["presence"]
    pattern = torch.tensor([float(m in wanted) for m in modalities_of(batch)], device=held.device)
    return (held == pattern).all(dim=1, keepdim=True).to(torch.float32)
