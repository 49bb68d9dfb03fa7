"""The paper's network: an encoder per modality, embeddings fused by one shared head or one head per combination.

Every branch is fed for every record and its embedding multiplied by the presence mask: a branch that gets no
gradient would break per-record clipping. With ``heads="combination"`` only the head of the record's own
combination counts for it; a head that fewer than ``min_sites`` institutions train must not be exchanged, which
on the tri-modal federation holds for most of them. The shared head is the additive fusion that replaces them.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from models.batch import Batch, cohort_indicator, drop_modalities, has
from models.config import INPUT_GAINS, MODALITIES, ModelConfig
from models.encoder import encoder

NETWORK_NORM = 10.0


class FusionNetwork(nn.Module):
    """Encoders, presence mask, fusion head (or heads), cohort bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cohorts = len(config.cohorts)
        self.outputs = config.classes - 1
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
        """Return the cumulative logits, float32 [B, classes - 1]."""
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
    """One encoder and one head per modality; the logits of what is present are summed, and each has a loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cohorts = len(config.cohorts)
        self.encoders = nn.ModuleDict({m: encoder(config, m) for m in config.modalities})
        self.heads = nn.ModuleDict(
            {m: nn.Linear(config.embedding, config.classes - 1, bias=False) for m in config.modalities}
        )
        self.cohort = nn.Linear(self.cohorts, config.classes - 1, bias=False)

        self.scales = input_scales(config)

    def forward(self, batch: Batch) -> Tensor:
        """Return the cumulative logits, float32 [B, classes - 1]."""
        bias, unimodal = self.parts(batch)
        return bias + torch.stack(list(unimodal.values())).sum(dim=0)

    def parts(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cohort's logits and those of every modality (zero where absent), [B, classes - 1] each."""
        bias: Tensor = self.cohort(cohort_indicator(batch, self.cohorts))
        unimodal = {
            m: self.heads[m](self.encoders[m](batch[m] * self.scales[m])) * has(batch, m) for m in self.encoders
        }
        return bias, unimodal


def input_scales(config: ModelConfig) -> dict[str, float]:
    """Return the public factor on each modality's inputs, which brings a record's inputs to a norm near ten."""
    maps = config.architecture == "convolutional"
    return {
        m: 1.0 if maps and m == "image" else NETWORK_NORM * INPUT_GAINS[m] / math.sqrt(n)
        for m, n in config.features.items()
    }


def combinations(modalities: tuple[str, ...]) -> list[str]:
    """Return every non-empty combination, smallest first: ``mrna``, ``image``, ..., ``mrna+image+clinical``."""
    sizes = range(1, len(modalities) + 1)
    return ["+".join(c) for size in sizes for c in itertools.combinations(modalities, size)]


def has_exactly(batch: Batch, wanted: list[str]) -> Tensor:
    """Return 1 for records with exactly the modalities ``wanted``, else 0; float32 [B, 1]."""
    pattern = torch.tensor([float(m in wanted) for m in MODALITIES])
    return (batch["presence"] == pattern).all(dim=1, keepdim=True).to(torch.float32)
