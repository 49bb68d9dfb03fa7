"""One round of differentially private training at one site.

Each step draws a Poisson batch, clips every record's gradient, adds Gaussian noise (also to an empty batch), divides
by the public expected batch size and steps the optimiser. Sampling and noise come from the round's keyed stream, so
that a round that is run again gives the same bytes.

    >>> outcome = train(model, inputs, record_loss, mechanism, randomness, optimizer="sgd",   # doctest: +SKIP
    ...                 learning_rate=0.1, weight_decay=0.0, expected_records=212)

Source: Abadi et al., "Deep learning with differential privacy", CCS 2016, algorithm 1; Opacus' optimiser does the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from privacy.dp.clipping import RECORD, PerExampleClipper, RecordLoss
from privacy.dp.distance import MAX_PARAMETERS
from privacy.dp.fixed_batches import TOGETHER, Batch, batch_size
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Floats, Randomness
from privacy.errors import InvalidInput, Refused

Method = Literal["per-example", "ghost", "hooks"]
# The part of parameters that belong to no modality.
SHARED = "shared"


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What one round of training did; all of it may leave, being a function of the noised steps only.

    ``update`` maps each trainable parameter's name to its displacement over the round.
    """

    steps: int
    update: Mapping[str, Tensor]
    method: Method


def train(
    model: nn.Module,
    inputs: Batch,
    record_loss: RecordLoss,
    mechanism: Mechanism,
    randomness: Randomness,
    *,
    optimizer: Literal["sgd", "adam"],
    learning_rate: float,
    weight_decay: float,
    expected_records: float,
    method: Method = "per-example",
    modality_of_parameter: Callable[[str], str | None] | None = None,
    modality_norms: Mapping[str, float] | None = None,
    part_scales: Mapping[str, float] | None = None,
    proximal_mu: float = 0.0,
    together: int = TOGETHER,
) -> TrainingOutcome:
    """Train ``model`` in place for one round of ``mechanism`` with local noise; return the noised displacement.

    Args:
        model: float32 on the CPU; trainable parameters only in layers of ``layer_rules.RULES``.
        inputs: tensors with a common first dimension, the records of this site.
        record_loss: gives the loss of each record, float32 [B], each a function of its own record only.
        mechanism: runs and is charged; ``noise`` must be "local".
        randomness: the keyed stream of this round.
        optimizer: "sgd", or "adam" with decoupled weight decay; its state lives for the round.
        learning_rate, weight_decay: above 0; at least 0.
        expected_records: public (the DP count), above 0; the noised sum is divided by ``sampling_rate`` times it.
        method: how per-record gradients are made.
        modality_of_parameter: maps a parameter's name to its modality; None is shared by all.
        modality_norms: public L2 bound of each part (modalities and ``SHARED``) where the mechanism clips by modality;
            squares add up to ``max_grad_norm`` squared; None splits evenly.
        part_scales: public factor on the displacement of each part, after the optimiser's normalisation; 1 if absent.
        proximal_mu: weight of the pull towards the parameters at the start, at least 0 (FedProx).
        together: rows per pass (``fixed_batches``); 1 for code whose rows may not be bit for bit independent.

    Raises:
        Refused: the model, its losses or the mechanism break an assumption of the accounting.
        InvalidInput: an argument out of its range.
    """
    from privacy.dp import opacus_engine

    _require_local(mechanism)
    values, part = _checked(model, mechanism, learning_rate, expected_records), _part(modality_of_parameter)
    trained = dict(_trainable(model))
    before = {n: p.detach().clone() for n, p in trained.items()}
    outer = opacus_engine.keyed_optimizer(
        _optimizer(model, optimizer, learning_rate, weight_decay, part, part_scales or {}),
        method=method,
        mechanism=mechanism,
        expected_batch_size=mechanism.sampling_rate * expected_records,
        values=values,
    )
    outer.attach_step_hook(lambda _: _pull(model, before, proximal_mu))
    bounds, group_of = clipping(model, mechanism, part, modality_norms)
    with _guarded(model, randomness):
        engine = opacus_engine.engine(model, method=method, bounds=bounds, group_of=group_of, together=together)
        _take_steps(engine, outer, inputs, record_loss, mechanism, randomness)
    return TrainingOutcome(steps=mechanism.steps_per_round, update=_moved(model, trained, before), method=method)


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _moved(model: nn.Module, trained: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return how far each trainable parameter moved, and free the gradients of the last step.

    Raises:
        Refused: the model has other parameters than were trained, which carry no noise.
    """
    model.zero_grad(set_to_none=True)
    found = dict(_trainable(model))
    if found.keys() != trained.keys() or any(found[name] is not parameter for name, parameter in trained.items()):
        raise Refused("the model replaced parameters in training: they would carry records out unnoised")
    return {name: parameter.detach() - before[name] for name, parameter in trained.items()}


def _take_steps(
    engine: Any, outer: Any, inputs: Batch, record_loss: RecordLoss, mechanism: Mechanism, randomness: Randomness
) -> None:
    from privacy.dp import opacus_engine

    try:
        for step in range(mechanism.steps_per_round):
            stream = randomness.child(f"step {step}")
            engine.accumulate(poisson_batch(inputs, mechanism.sampling_rate, stream), record_loss)
            opacus_engine.use_noise(outer, stream.child("noise"))
            outer.step()
    finally:
        engine.close()


def clipped_gradient_sum(
    model: nn.Module,
    inputs: Batch,
    record_loss: RecordLoss,
    mechanism: Mechanism,
    randomness: Randomness,
    *,
    modality_of_parameter: Callable[[str], str | None] | None = None,
    modality_norms: Mapping[str, float] | None = None,
    together: int = TOGETHER,
) -> Mapping[str, Floats]:
    """Return the clipped gradient sum of one Poisson batch, **without noise**: private, for ``shared_noise`` only.

    Arguments as in :func:`train`; the model is not changed.

    Returns:
        float64 per trainable parameter; one record changes all of it by at most ``max_grad_norm (1 + 2**-14)``.
    """
    _checked(model, mechanism, 1.0, 1.0)
    bounds, group_of = clipping(model, mechanism, _part(modality_of_parameter), modality_norms)
    stream = randomness.child("step 0")
    batch = poisson_batch(inputs, mechanism.sampling_rate, stream)
    with _guarded(model, randomness), PerExampleClipper(model, group_of, together=together) as clipper:
        sums = clipper.clipped_sum(batch, record_loss, bounds)
    return {name: total.cpu().numpy() for name, total in sums.items()}


def poisson_batch(inputs: Batch, sampling_rate: float, stream: Randomness) -> dict[str, Tensor]:
    """Return the records of one Poisson batch, possibly none."""
    if sampling_rate == 1:
        return dict(inputs)  # everybody; what follows copies rows before a model sees them
    chosen = torch.from_numpy(stream.child("sample").poisson_sample(batch_size(inputs), sampling_rate))
    return {name: value[chosen.to(value.device)] for name, value in inputs.items()}


def split_norm(max_grad_norm: float, weights: Mapping[str, float]) -> dict[str, float]:
    """Split one norm over parts in proportion to public weights, so that the squares add up.

    ``split_norm(1.0, {"mrna": 3.0, "image": 4.0})`` is ``{"mrna": 0.6, "image": 0.8}``.

    Args:
        max_grad_norm: C, above 0.
        weights: public weight of each part, above 0.
    """
    if not weights or not all(math.isfinite(w) and w > 0 for w in weights.values()):
        raise InvalidInput("expected at least one part, and weights above 0")
    scale = max_grad_norm / math.sqrt(sum(w * w for w in weights.values()))
    return {part: w * scale for part, w in weights.items()}


def clipping(
    model: nn.Module,
    mechanism: Mechanism,
    part: Callable[[str], str],
    modality_norms: Mapping[str, float] | None,
) -> tuple[dict[str, float], Callable[[str], str] | None]:
    """Return the bound of each clipping group and the map from parameter to group.

    Raises:
        InvalidInput: norms that do not belong to the model's parts, or whose squares pass C squared.
    """
    if mechanism.clipping == "record":
        if modality_norms is not None:
            raise InvalidInput("modality norms need a mechanism with clipping='modality'")
        return {RECORD: mechanism.max_grad_norm}, None
    parts = sorted({part(n) for n, p in model.named_parameters() if p.requires_grad})
    norms = split_norm(mechanism.max_grad_norm, modality_norms or dict.fromkeys(parts, 1.0))
    if sorted(norms) != parts:
        raise InvalidInput(f"expected norms for the parts {parts}, got {sorted(norms)}")
    if modality_norms is not None and any(not math.isclose(norms[n], modality_norms[n], rel_tol=1e-6) for n in parts):
        raise InvalidInput("expected modality norms whose squares add up to max_grad_norm squared; use split_norm")
    return norms, part


def _require_local(mechanism: Mechanism) -> None:
    if mechanism.noise != "local":
        raise Refused("shared noise has no local training; use clipped_gradient_sum and privacy.dp.shared_noise")


def _checked(model: nn.Module, mechanism: Mechanism, learning_rate: float, expected_records: float) -> int:
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise InvalidInput(f"expected a learning rate above 0, got {learning_rate}")
    if not (math.isfinite(expected_records) and expected_records > 0):
        raise InvalidInput(f"expected a public record count above 0, got {expected_records}")
    values = sum(p.numel() for p in model.parameters() if p.requires_grad)
    most = mechanism.max_parameters if mechanism.noise == "shared" else MAX_PARAMETERS
    if not 0 < values <= most:
        raise Refused(f"expected 1 to {most} trainable parameters under {mechanism.noise} noise, got {values}")
    return values


def _part(modality_of_parameter: Callable[[str], str | None] | None) -> Callable[[str], str]:
    if modality_of_parameter is None:
        return lambda _: SHARED
    return lambda name: modality_of_parameter(name) or SHARED


def _optimizer(
    model: nn.Module,
    kind: str,
    learning_rate: float,
    weight_decay: float,
    part: Callable[[str], str],
    scales: Mapping[str, float],
) -> torch.optim.Optimizer:
    """Return the optimiser, with one group of parameters per part: its step is proportional to the group's rate."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts.setdefault(part(name), []).append(parameter)
    if any(not math.isfinite(s) or s < 0 for s in scales.values()):
        raise InvalidInput("expected part scales of at least 0")
    groups = [{"params": ps, "lr": learning_rate * scales.get(name, 1.0)} for name, ps in parts.items()]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, weight_decay=weight_decay)
    if kind == "adam":
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay)
    raise InvalidInput(f"expected the optimizer 'sgd' or 'adam', got {kind!r}")


def _pull(model: nn.Module, before: Mapping[str, Tensor], proximal_mu: float) -> None:
    """Add the gradient of mu / 2 |p - p_start|**2, a function of noised values only."""
    if proximal_mu == 0:
        return
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and name in before:
            parameter.grad.add_(parameter.detach() - before[name], alpha=proximal_mu)


@contextmanager
def _guarded(model: nn.Module, randomness: Randomness) -> Iterator[None]:
    """Train with a keyed torch generator (dropout repeats too) and refuse a model that changes its buffers."""
    training = model.training
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    device = next(model.parameters()).device
    accelerators = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators), torch.enable_grad():
        # torch.manual_seed would also queue a call for every absent accelerator, and the queue never empties
        seed = int(randomness.child("torch").uniform_words(1)[0] >> np.uint64(1))
        for generator in (torch.default_generator, *(torch.cuda.default_generators[k] for k in accelerators)):
            generator.manual_seed(seed)
        model.train()
        try:
            yield
        finally:
            model.train(training)
            changed = [n for n, b in model.named_buffers() if n in buffers and not torch.equal(b, buffers[n])]
    if changed:
        raise Refused(f"the buffer {changed[0]!r} changed in training: it would carry records out unnoised")
