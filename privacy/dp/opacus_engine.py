"""The only importer of Opacus: its optimiser, its validator and its gradient modules.

A site trains with Opacus' DP-SGD step (``DPOptimizerFastGradientClipping``: clipped sum, noise, division by the
expected batch size, optimiser). Three parts are ours: clipped sums (:class:`PerExampleClippingModule`, in the place of
Opacus' own gradient modules), noise and sampling from a keyed stream instead of torch's generator, and refusals of
what Opacus lets through. ``method="ghost"`` and ``"hooks"`` use Opacus' gradient modules instead.

``PrivacyEngine(grad_sample_mode=...)`` picks from a fixed list that cannot name our module. So :func:`engine` makes
the module and the optimiser is used directly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from privacy.dp.clipping import RECORD, PerExampleClipper, RecordLoss, check_model, checked_losses
from privacy.dp.fixed_batches import TOGETHER, Batch, batch_size
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness, covering_deviation
from privacy.errors import InvalidInput, Refused


class Engine(Protocol):
    """Turns one batch into clipped gradient sums on the parameters, ready for the optimiser."""

    def accumulate(self, inputs: Batch, record_loss: RecordLoss) -> None:
        """Run one batch (it may be empty) and leave its clipped sum where the optimiser looks for it."""

    def close(self) -> None:
        """Take everything off the model again."""


class PerExampleClippingModule(AbstractGradSampleModule):  # type: ignore[misc]  # opacus has no types
    """Opacus' wrapper interface over :class:`privacy.dp.clipping.PerExampleClipper`.

    Used like Opacus' ghost clipping: run the module, then :meth:`backward` on the losses of shape (B,), then step a
    ``DPOptimizerFastGradientClipping``.

    Args:
        model: what to wrap; refused where it cannot be clipped per record.
        bounds: L2 bound of each clipping group; a number bounds the whole gradient.
        group_of: maps a parameter's name to its group; None puts all into one.
        together: rows per pass (``fixed_batches``).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        bounds: Mapping[str, float] | float,
        group_of: Callable[[str], str] | None = None,
        together: int = TOGETHER,
    ) -> None:
        clipper = PerExampleClipper(model, group_of, together=together)
        super().__init__(model, batch_first=True, loss_reduction="sum")
        self.bounds = {RECORD: float(bounds)} if isinstance(bounds, (int, float)) else dict(bounds)
        self.clipper = clipper
        self._every = dict(model.named_parameters())  # found once: a network is walked through slowly
        clipper.__enter__()

    def backward(self, losses: Tensor) -> None:
        """Set ``grad`` of every trainable parameter to the sum of clipped per-record gradients."""
        sums = self.clipper.clip(checked_losses(losses, len(losses)), self.bounds)
        for name, parameter in self._every.items():
            if parameter.requires_grad:
                parameter.grad = sums[name].to(parameter.dtype)
        self._deliver(sums)

    def accumulate(self, inputs: Batch, record_loss: RecordLoss) -> None:
        """Run one batch and leave its sums, float64, for :class:`KeyedOptimizer`."""
        for parameter in self._every.values():
            parameter.grad = None  # the last step's sums are not needed beside this one's
            parameter.__dict__.pop("exact_sum", None)
        self._deliver(self.clipper.clipped_sum(inputs, record_loss, self.bounds))

    def remove_hooks(self) -> None:
        """Take the hooks off the model."""
        self.clipper.close()

    def close(self) -> None:
        """Give the model back as it was."""
        self.cleanup()

    def _deliver(self, sums: Mapping[str, Tensor]) -> None:
        for name, parameter in self._every.items():
            if parameter.requires_grad:
                parameter.exact_sum = sums[name]  # type: ignore[attr-defined]  # float64, for the keyed noise


class _KeyedNoise:
    """Adds the noise of a keyed stream, on its grid, to the clipped sum of every parameter."""

    params: Any
    noise_multiplier: float
    max_grad_norm: float
    noise: Callable[[Tensor], Tensor]

    def add_noise(self) -> None:
        """Replace Opacus' float noise: one stream over all parameters, in their order."""
        for p in self.params:
            p.grad = self.noise(p.summed_grad).view_as(p).to(p.dtype)
            p.summed_grad = None


class KeyedOptimizer(_KeyedNoise, DPOptimizerFastGradientClipping):  # type: ignore[misc]  # opacus has no types
    """Opacus' optimiser for sums that arrive clipped, with keyed noise."""

    def accumulate(self) -> None:
        """Take the clipped sums over, float64 where the engine has them; there is one batch for each step."""
        for p in self.params:
            exact = p.__dict__.pop("exact_sum", None)
            p.summed_grad = p.grad if exact is None else exact


class KeyedHooksOptimizer(_KeyedNoise, DPOptimizer):  # type: ignore[misc]  # opacus has no types
    """Opacus' optimiser that clips materialised per-record gradients, with keyed noise."""

    @property
    def accumulated_iterations(self) -> int:
        """One batch for each step."""
        return 1


class GhostEngine:
    """Opacus' ghost clipping: two backward passes, norms first."""

    def __init__(self, model: nn.Module, max_grad_norm: float) -> None:
        check_model(model)
        self._model = model
        self._module = GradSampleModuleFastGradientClipping(model, loss_reduction="sum", max_grad_norm=max_grad_norm)

    def accumulate(self, inputs: Batch, record_loss: RecordLoss) -> None:
        """Set ``grad`` to the sum of clipped per-record gradients; empty batches give zeros."""
        if batch_size(inputs) == 0:
            for p in self._model.parameters():
                p.grad = torch.zeros_like(p)
            return
        self._module.zero_grad(set_to_none=True)
        for p in self._model.parameters():
            p._norm_sample = None  # type: ignore[attr-defined]  # a branch without a gradient must not reuse the last
        self._module.enable_hooks()
        losses = checked_losses(record_loss(self._model, dict(inputs)), batch_size(inputs))
        _backward(losses.sum(), retain_graph=True)
        if any(p.requires_grad and p._norm_sample is None for p in self._model.parameters()):  # type: ignore[attr-defined]
            raise Refused(
                "a branch of the model got no gradient, which ghost clipping cannot do; use per-example clipping"
            )
        factors = self._module.get_clipping_coef().detach()
        self._model.zero_grad(set_to_none=True)
        self._module.disable_hooks()
        _backward(torch.sum(factors * losses))

    def close(self) -> None:
        """Give the model back as it was."""
        self._module.to_standard_module()


def _backward(total: Tensor, *, retain_graph: bool = False) -> None:
    """Run the backward pass; torch warns of every first layer, whose input needs no gradient, under Opacus' hooks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        total.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]


class HooksEngine:
    """Opacus' per-record gradients by hooks: slow, big, and the oracle for the others."""

    def __init__(self, model: nn.Module) -> None:
        check_model(model)
        self._model = model
        self._module = GradSampleModule(model, loss_reduction="sum")

    def accumulate(self, inputs: Batch, record_loss: RecordLoss) -> None:
        """Set ``grad_sample`` of every parameter; an empty batch gives empty ones."""
        self._module.zero_grad(set_to_none=True)
        if batch_size(inputs):
            losses = checked_losses(record_loss(self._model, dict(inputs)), batch_size(inputs))
            _backward(losses.sum())
        for p in self._model.parameters():
            if p.grad_sample is None:  # type: ignore[attr-defined]  # set by Opacus
                p.grad_sample = torch.zeros(batch_size(inputs), *p.shape, device=p.device)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Give the model back as it was."""
        self._module.to_standard_module()


def engine(
    model: nn.Module,
    *,
    method: str,
    bounds: Mapping[str, float],
    group_of: Callable[[str], str] | None,
    together: int = TOGETHER,
) -> Engine:
    """Return the engine of ``method`` around ``model``, after Opacus' validator and our own refusals.

    Args:
        model: the model, in training mode.
        method: "per-example", "ghost" or "hooks".
        bounds: L2 bound of each clipping group; one group for "ghost" and "hooks".
        group_of: maps a parameter's name to its group, None for one group.
        together: rows per pass of "per-example" (``fixed_batches``).

    Raises:
        Refused: the model cannot be trained privately.
        InvalidInput: an unknown method, or clipping per modality with another method than "per-example".
    """
    if ModuleValidator.validate(model, strict=False):
        raise Refused("Opacus' validator refuses a layer of this model; use LayerNorm or GroupNorm, and no LSTM")
    if method == "per-example":
        return PerExampleClippingModule(model, bounds=bounds, group_of=group_of, together=together)
    if method not in ("ghost", "hooks"):
        raise InvalidInput(f"expected the method 'per-example', 'ghost' or 'hooks', got {method!r}")
    if group_of is not None or set(bounds) != {RECORD}:
        raise InvalidInput(f"clipping per modality needs method='per-example', got {method!r}")
    if method == "hooks":
        return HooksEngine(model)
    return GhostEngine(model, bounds[RECORD])


def keyed_optimizer(
    optimizer: torch.optim.Optimizer,
    *,
    method: str,
    mechanism: Mechanism,
    expected_batch_size: float,
    values: int,
) -> KeyedOptimizer | KeyedHooksOptimizer:
    """Wrap ``optimizer`` in Opacus' private one with keyed noise.

    Args:
        optimizer: a torch optimiser over all trainable parameters.
        method: as in :func:`engine`.
        mechanism: gives clip and noise.
        expected_batch_size: public, above 0.
        values: number of trainable parameters; the noise covers the grid's rounding of so many.
    """
    kind = KeyedHooksOptimizer if method == "hooks" else KeyedOptimizer
    wrapped = kind(
        optimizer,
        noise_multiplier=mechanism.noise_multiplier,
        max_grad_norm=mechanism.max_grad_norm,
        expected_batch_size=expected_batch_size,
        loss_reduction="mean",
    )
    deviation = covering_deviation(mechanism.noise_multiplier, mechanism.max_grad_norm, values)
    wrapped.deviation = deviation
    return wrapped


def use_noise(optimizer: KeyedOptimizer | KeyedHooksOptimizer, randomness: Randomness) -> None:
    """Take the noise of the next step from ``randomness``."""
    deviation = optimizer.deviation

    def noised(total: Tensor) -> Tensor:
        made = randomness.add_gaussian(total.detach().cpu().numpy(), deviation)
        return torch.from_numpy(made).to(total.device)

    optimizer.noise = noised
