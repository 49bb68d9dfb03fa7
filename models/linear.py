"""Linear late fusion: one weight vector per modality and a cohort indicator, logits summed.

The smallest model that uses every modality a patient has: about 2,250 parameters on the TCGA tables, against
144,000 of the paper's MLP, which it beats there. Its loss is convex and it starts at zero, so federated and
pooled training go the same way.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.batch import Batch, cohort_indicator, has
from models.config import INPUT_GAINS, ModelConfig


class LinearFusion(nn.Module):
    """Proportional-odds regression over the modalities that are present.

    For two classes this is logistic regression. For K classes all K - 1 thresholds share the weight vectors and
    differ in the bias, which depends on the cohort (CORAL; Cao, Mirjalili and Raschka 2020). A centred model subtracts
    its ``centres`` from the scaled inputs; they are no gradient's business and start at zero.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cohorts = len(config.cohorts)
        self.branches = nn.ModuleDict({m: nn.Linear(config.features[m], 1, bias=False) for m in config.modalities})
        self.scales = {m: INPUT_GAINS[m] / math.sqrt(n) for m, n in config.features.items()}
        self.cohort = nn.Linear(self.cohorts, config.classes - 1, bias=False)
        self.cohort_gain = config.cohort_gain
        self.centres = nn.ParameterDict()
        if config.centred:
            widths = {m: torch.zeros(config.features[m]) for m in config.modalities}
            self.centres = nn.ParameterDict({m: nn.Parameter(z, requires_grad=False) for m, z in widths.items()})

    def forward(self, batch: Batch) -> Tensor:
        """Return the cumulative logits, float32 [B, classes - 1]."""
        logits: Tensor = self.bias(batch)
        for modality, branch in self.branches.items():
            inputs = self.scaled(batch, modality)
            if modality in self.centres:
                inputs = inputs - self.centres[modality]
            logits = logits + branch(inputs) * has(batch, modality)  # [B, 1]
        return logits

    def bias(self, batch: Batch) -> Tensor:
        """Return the cohort's logits, float32 [B, classes - 1]."""
        logits: Tensor = self.cohort(cohort_indicator(batch, self.cohorts) * self.cohort_gain)
        return logits

    def scaled(self, batch: Batch, modality: str) -> Tensor:
        """Return a modality's inputs times its public gain, before centring, float32 [B, features]."""
        return batch[modality] * self.scales[modality]
