"""Three ways in which private training has really been broken, to see that the audit notices (``privacy.audit``).

Each is a trainer that claims the mechanism and does something else. Nothing outside the audit uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import nn

from privacy.audit import Inputs, Trainer, honest
from privacy.bookkeeping import RecordLoss
from privacy.mechanism import Mechanism
from privacy.randomness import Randomness


def without_noise(
    model: nn.Module, inputs: Inputs, record_loss: RecordLoss, mechanism: Mechanism, randomness: Randomness
) -> None:
    """Clip, and forget the noise."""
    honest(model, inputs, record_loss, replace(mechanism, noise_multiplier=0.0), randomness)


def without_clipping(
    model: nn.Module, inputs: Inputs, record_loss: RecordLoss, mechanism: Mechanism, randomness: Randomness
) -> None:
    """Add the right noise for the clip that is claimed, around gradients that nobody clipped."""
    loud = replace(mechanism, max_grad_norm=1e4, noise_multiplier=mechanism.noise_multiplier * 1e-4)
    honest(model, inputs, record_loss, loud, randomness)


def with_column_losses(
    model: nn.Module, inputs: Inputs, record_loss: RecordLoss, mechanism: Mechanism, randomness: Randomness
) -> None:
    """Multiply clip factors [B] with losses of shape [B, 1]: they broadcast to [B, B], and each record counts B times.

    For the audit's linear model, in which the norm of a record's gradient is the norm of the record.
    """
    weight = next(model.parameters())
    for step in range(mechanism.steps_per_round):
        stream = randomness.child(f"step {step}")
        chosen = torch.from_numpy(stream.poisson_sample(len(inputs["x"]), mechanism.sampling_rate))
        batch = {name: tensor[chosen] for name, tensor in inputs.items()}
        factors = (mechanism.max_grad_norm / batch["x"].norm(dim=1)).clamp(max=1.0)
        (gradient,) = torch.autograd.grad((factors * record_loss(model, batch).unsqueeze(1)).sum(), weight)
        noise = stream.gaussian(tuple(weight.shape), mechanism.noise_multiplier * mechanism.max_grad_norm)
        with torch.no_grad():
            weight.sub_(gradient + torch.from_numpy(noise).float())


FAULTS: Mapping[str, Trainer] = MappingProxyType(
    {"noise": without_noise, "clip": without_clipping, "loss": with_column_losses}
)
