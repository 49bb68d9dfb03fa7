"""Exact per-example clipping at about the price of an ordinary step.

Forward hooks keep each layer's input, and one backward pass gives the gradient at each layer's output. From the two
follow every record's gradient norm and, after clipping, one weighted matrix product per layer (``layer_rules``). The
weight gradient of a single record is never made.

    >>> clipper = PerExampleClipper(model)                            # doctest: +SKIP
    >>> with clipper:                                                 # doctest: +SKIP
    ...     total = clipper.clipped_sum(batch, record_loss, {"record": 1.0})

Norms, products and sums are float64, in pieces of a fixed size (``fixed_batches``): float32 sums are off by more than a
whole record once a few thousand constructed records are in a batch. What is left is below 2**-14 of the bound up to
``MOST_RECORDS`` (docs/shared-noise.md, section 3).

Everything that would break the bound is refused: batch statistics, a layer used twice, a parameter outside the layers
with a rule, shared parameters, inputs changed in place, losses that are not one number per record.
:func:`check_coverage` compares with autograd on mock data before a plan may see private records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from privacy.dp.fixed_batches import TOGETHER, Batch, batch_size, fixed_batches
from privacy.dp.layer_rules import RULES
from privacy.errors import InvalidInput, Refused

RecordLoss = Callable[[nn.Module, dict[str, Tensor]], Tensor]
# The name of the one group when the whole gradient has one bound.
RECORD = "record"
_UNBOUNDED = 1e30
# A gradient so many times above its bound counts as not finite.
_LARGEST_RATIO = 1e30
MOST_RECORDS = 2**22
"""Records of one batch: with more, the rounding of float64 sums would pass the margin in the noise."""
_SUMMED_TOGETHER = {False: TOGETHER, True: 4 * TOGETHER}
"""Records whose gradients are summed in one product: more of a large model, whose sums are slow to add up."""
_LARGE = 1 << 16
_Pairs = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class _Call:
    x: Tensor
    output: Tensor
    versions: tuple[int, int]


class PerExampleClipper:
    """Sums of per-example clipped gradients of a model.

    Args:
        model: every trainable parameter must sit in a layer of ``layer_rules.RULES``.
        group_of: maps a trainable parameter's name to its clipping group; None puts all in ``RECORD``.
        together: rows per pass (``fixed_batches``); 1 for a model whose rows may not be bit for bit independent.

    Raises:
        Refused: the model has a part whose gradient cannot be clipped per record, or that mixes records.
        InvalidInput: parameters of one layer are in different groups.
    """

    def __init__(
        self, model: nn.Module, group_of: Callable[[str], str] | None = None, *, together: int = TOGETHER
    ) -> None:
        check_model(model)
        self._layers = clipped_layers(model)
        self._groups = {name: _group(name, layer, group_of) for name, layer in self._layers.items()}
        self._calls: dict[str, _Call] = {}
        self._handles: list[RemovableHandle] = []
        self._trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._together = together
        self._summed_together = _SUMMED_TOGETHER[sum(p.numel() for p in model.parameters()) >= _LARGE]
        self.model = model
        self.groups: frozenset[str] = frozenset(self._groups.values())

    def __enter__(self) -> PerExampleClipper:
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls.clear()

    def clipped_sum(self, inputs: Batch, record_loss: RecordLoss, bounds: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the sum over records of clipped gradients, one float64 tensor per trainable parameter.

        A record's gradient is scaled in each group g by ``min(1, bounds[g] / (norm + 1e-6))``. A record whose gradient
        is not finite counts as zero.

        Args:
            inputs: tensors with a common first dimension B, 0 to ``MOST_RECORDS``.
            record_loss: ``record_loss(model, inputs)`` gives the loss of each record, float [B].
            bounds: L2 bound of each group in ``self.groups``, above 0.

        Raises:
            Refused: the loss has another shape, the model did something the hooks cannot follow, or too many records.
        """
        if batch_size(inputs) > MOST_RECORDS:
            raise Refused(f"expected at most {MOST_RECORDS} records in a batch; use a smaller sampling rate")
        sums: dict[str, Tensor] = {}
        waiting: dict[frozenset[str], list[_Pairs]] = {}  # by the layers that a pass used
        for rows, records in fixed_batches(inputs, self._together):
            self._calls.clear()
            losses = checked_losses(record_loss(self.model, rows), batch_size(rows))
            pairs = self._pairs(losses, records)
            alike = waiting.setdefault(frozenset(pairs), [])
            alike.append(pairs)
            if len(alike) * self._together >= self._summed_together:
                _add(sums, self._clipped(alike, bounds))
        for alike in filter(None, waiting.values()):
            _add(sums, self._clipped(alike, bounds))
        return self._collected(sums)

    def clip(self, losses: Tensor, bounds: Mapping[str, float]) -> dict[str, Tensor]:
        """Do the backward half of :meth:`clipped_sum` for losses whose forward pass the hooks have seen."""
        return self._collected(self._clipped([self._pairs(losses, len(losses))], bounds))

    def squared_norms(self, inputs: Batch, record_loss: RecordLoss) -> dict[str, Tensor]:
        """Return each record's squared gradient norm per group, float64 [B]: private values, for checks only."""
        self._calls.clear()
        losses = checked_losses(record_loss(self.model, dict(inputs)), batch_size(inputs))
        waiting = [self._pairs(losses, len(losses))]
        with torch.no_grad():
            return self._norms(_joined(waiting), len(losses))

    def _clipped(self, waiting: list[_Pairs], bounds: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the clipped sums of the records of one or more passes; ``waiting`` is empty afterwards."""
        if set(bounds) != set(self.groups):
            raise InvalidInput(f"expected bounds for the groups {sorted(self.groups)}, got {sorted(bounds)}")
        with torch.no_grad():
            pairs = _joined(waiting)
            records = max((len(x) for x, _ in pairs.values()), default=0)
            factors, finite = self._factors(pairs, bounds, records)
            return self._summed(pairs, factors, finite)

    def _pairs(self, losses: Tensor, records: int) -> _Pairs:
        """Return each layer's input and output gradient of the first ``records`` rows, as they are."""
        calls = dict(self._calls)
        self._calls.clear()
        gradients = _output_gradients(losses, calls)
        return {name: (calls.pop(name).x.detach()[:records], gradients.pop(name)[:records]) for name in list(gradients)}

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not torch.is_grad_enabled():
                return
            if name in self._calls:
                raise Refused(f"the layer {name!r} runs twice in one pass; use one layer for each place")
            if len(inputs) != 1:
                raise Refused(f"expected the layer {name!r} to be called with one positional input")
            versions = (inputs[0]._version, output._version)
            self._calls[name] = _Call(x=inputs[0], output=output, versions=versions)

        return keep

    def _norms(self, pairs: _Pairs, records: int) -> dict[str, Tensor]:
        device = next((x.device for x, _ in pairs.values()), torch.device("cpu"))
        totals = {group: torch.zeros(records, dtype=torch.float64, device=device) for group in self.groups}
        for name, (x, g) in pairs.items():
            layer = self._layers[name]
            per_parameter = RULES[type(layer)].squared_norms(layer, x, g)
            for parameter, squared in per_parameter.items():
                if getattr(layer, parameter).requires_grad:
                    totals[self._groups[name]] += squared
        return totals

    def _factors(
        self, pairs: _Pairs, bounds: Mapping[str, float], records: int
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        norms = {group: squared.sqrt() for group, squared in self._norms(pairs, records).items()}
        factors = {g: (bounds[g] / (norm + 1e-6)).clamp(max=1.0) for g, norm in norms.items()}
        finite = torch.stack([norm <= _LARGEST_RATIO * bounds[group] for group, norm in norms.items()]).all(dim=0)
        return factors, None if bool(finite.all()) else finite

    def _summed(self, pairs: _Pairs, factors: Mapping[str, Tensor], finite: Tensor | None) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        if finite is not None and not bool(finite.any()):  # nothing to add; not every rule takes no records
            pairs.clear()
            return sums
        for name in list(pairs):
            x, g = pairs.pop(name)  # each layer's input and gradient may go once they are summed
            layer, factor, kept = self._layers[name], factors[self._groups[name]], x
            if finite is not None:
                kept, g, factor = kept[finite], g[finite], factor[finite]
            weighted = g * factor.reshape(-1, *[1] * (g.dim() - 1))
            for parameter, total in RULES[type(layer)].summed(layer, kept, weighted).items():
                sums[f"{name}.{parameter}" if name else parameter] = total
        return sums

    def _collected(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        every = self._trainable.items()
        return {n: sums[n] if n in sums else torch.zeros_like(p, dtype=torch.float64) for n, p in every}


def _joined(waiting: list[_Pairs]) -> _Pairs:
    """Return the pairs of several passes as one, as float64; ``waiting`` is empty afterwards."""
    joined = {}
    for name in list(waiting[0]):
        inputs, gradients = zip(*(pairs.pop(name) for pairs in waiting), strict=True)
        joined[name] = (_exact(inputs), _exact(gradients))
    waiting.clear()
    return joined


def _exact(pieces: Sequence[Tensor]) -> Tensor:
    """Return a layer's inputs or gradients as float64; tokens stay whole numbers."""
    if not pieces[0].is_floating_point():
        return torch.cat(list(pieces))
    if len(pieces) == 1:
        return pieces[0].double()
    return torch.cat([piece.double() for piece in pieces])


def _add(sums: dict[str, Tensor], totals: Mapping[str, Tensor]) -> None:
    for name, total in totals.items():
        sums[name] = sums[name].add_(total) if name in sums else total


def checked_losses(losses: Tensor, records: int) -> Tensor:
    """Return ``losses`` after checking that there is one number per record.

    Raises:
        Refused: any other shape; (B, 1) would broadcast to (B, B) and weaken clipping silently.
    """
    if tuple(losses.shape) != (records,):
        raise Refused(f"expected record losses of shape (B,), got {losses.dim()} dimensions of another size")
    if not losses.requires_grad:
        raise Refused("the record losses do not depend on any trainable parameter")
    return losses


def clipped_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers with trainable parameters of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    }


def check_model(model: nn.Module) -> None:
    """Refuse a model whose gradients cannot be clipped per record.

    Raises:
        Refused: batch statistics, parameters outside the supported layers, shared parameters.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise Refused(f"{name!r} is a batch normalisation, which mixes records; use GroupNorm or LayerNorm")
        if getattr(module, "track_running_stats", False):
            raise Refused(f"{name!r} keeps running statistics of private records; use GroupNorm or LayerNorm")
    for name, layer in clipped_layers(model).items():
        rule = RULES.get(type(layer))
        if rule is None:
            supported = ", ".join(kind.__name__ for kind in RULES)
            raise Refused(f"{name!r} ({type(layer).__name__}) has parameters of its own; only {supported} may")
        reason = rule.refusal(layer)
        if reason:
            raise Refused(f"{name!r} is {reason}, which cannot be clipped per record")
    _check_sharing(model)


def _check_sharing(model: nn.Module) -> None:
    seen: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        place = parameter.untyped_storage().data_ptr()
        if parameter.numel() and place in seen:
            raise Refused(f"the parameter {name!r} is shared with another; give each layer its own")
        seen.add(place)


def _group(name: str, layer: nn.Module, group_of: Callable[[str], str] | None) -> str:
    if group_of is None:
        return RECORD
    names = [f"{name}.{p}" if name else p for p, _ in layer.named_parameters(recurse=False)]
    groups = {group_of(parameter) for parameter in names}
    if len(groups) != 1:
        raise InvalidInput(f"expected the parameters of {name!r} in one clipping group, got {sorted(groups)}")
    return groups.pop()


def _output_gradients(losses: Tensor, calls: Mapping[str, _Call]) -> dict[str, Tensor]:
    """Return the gradient of the summed losses at each layer's output; None where the output was not used."""
    for name, call in calls.items():
        if (call.x._version, call.output._version) != call.versions:
            raise Refused(f"the input or output of {name!r} was changed in place; use operations that are not in place")
        if len(call.x) != len(losses) or len(call.output) != len(losses):
            raise Refused(f"expected records in the first dimension at {name!r}; do not fold other axes into it")
    outputs = [call.output for call in calls.values()]
    gradients = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
    return {name: g for name, g in zip(calls, gradients, strict=True) if g is not None}


def check_coverage(
    model: nn.Module, inputs: Batch, record_loss: RecordLoss, *, records: int = 6, tolerance: float = 1e-4
) -> None:
    """Compare this module's sums and norms with autograd's on a few mock records.

    Args:
        model: as it will train; without dropout, or in evaluation mode.
        inputs: mock records, at least 1.
        record_loss: as it will train.
        records: how many to compare.
        tolerance: relative, for float32.

    Raises:
        Refused: they differ, or the model cannot be clipped per record.
    """
    batch = {name: value[:records] for name, value in inputs.items()}
    with PerExampleClipper(model) as clipper:
        sums = clipper.clipped_sum(batch, record_loss, {RECORD: _UNBOUNDED})
        squared = clipper.squared_norms(batch, record_loss)[RECORD]
    gradients = _gradients(model, batch, record_loss)
    if not _close(torch.cat([total.flatten() for total in sums.values()]), gradients.sum(dim=0).double(), tolerance):
        raise Refused("the model uses a parameter outside its layer's own call; every use must go through the layer")
    if not _close(squared.sqrt(), gradients.double().norm(dim=1), tolerance):
        raise Refused("the model's per-record gradient norms are not those of its layers; use each layer plainly")


def _gradients(model: nn.Module, batch: Batch, record_loss: RecordLoss) -> Tensor:
    """Return every record's gradient over all trainable parameters, float [B, P]."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses = checked_losses(record_loss(model, dict(batch)), batch_size(batch))
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(parameters, found, strict=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs]))
    return torch.stack(rows)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool((one - other).norm() <= tolerance * (other.norm() + tolerance))
