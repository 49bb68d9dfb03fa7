"""Per-record gradient norms and weighted gradient sums, layer by layer, without per-record gradients.

For a linear layer the gradient of record b is the outer product of its output gradient and its input, so that its
squared norm is ``|g_b|**2 |x_b|**2`` and the clipped sum over records is one GEMM (Goodfellow, arXiv 1510.01799). With
T positions per record (tokens, pixels) either the T x T Gram matrices or the per-record gradients themselves are used,
whichever is smaller (Bu et al., "Differentially private optimization on large model at small cost", ICML 2023).

A rule takes the layer, its input x and the gradient g at its output (both float64 with records first) and returns
float64 values per parameter name. Only the layer types in :data:`RULES` have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

Norms = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]
Sums = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]
_VALUES_AT_ONCE = 1 << 20
"""Gradient values of single records that are in memory together: 8 MB."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one layer type is clipped per record.

    ``squared_norms(layer, x, g)`` gives float [B] per parameter, ``summed(layer, x, g)`` the gradient summed over
    records (weights are multiplied into ``g`` before). ``refusal(layer)`` names what the rule does not cover.
    """

    squared_norms: Norms
    summed: Sums
    refusal: Callable[[Any], str | None]


def _nothing(layer: Any) -> str | None:  # noqa: ARG001 - the signature of a refusal
    return None


def _square(values: Tensor) -> Tensor:
    flat = values.flatten(1)
    squared: Tensor = torch.linalg.vecdot(flat, flat)
    return squared


def _lengths(values: Tensor) -> Tensor:
    """Lengths along the last dimension."""
    lengths: Tensor = torch.linalg.vector_norm(values, dim=-1)
    return lengths


def _with_slack(squared: Tensor, terms: Tensor) -> Tensor:
    """Bound the squared norms of sums over positions, whatever cancels in the sum.

    A sum of T terms is off by at most ``T 2**-53`` times the sum of their lengths (Higham, "Accuracy and Stability of
    Numerical Algorithms", section 4.2), in the norm as in the clipped sum. An attacker who chooses the weights can make
    the terms cancel; only rounding would be left, and the record would pass unclipped.

    Args:
        squared: float64 [B], as computed.
        terms: float64 [B, T], the length of each position's term.
    """
    positions = terms.shape[1]
    if positions == 1:
        return squared
    return (squared.sqrt() + positions * 2.0**-52 * terms.sum(dim=1)).square()


def _gram_slack(squared: Tensor, terms: Tensor, width: int) -> Tensor:
    """Bound squared norms that come from Gram matrices, where cancellation loses twice as many bits.

    Each of the T x T products is off by at most ``(width + 2) 2**-53`` times the two lengths, and their sum by
    ``T**2 2**-53`` times the sum of them all.

    Args:
        squared: float64 [B], as computed.
        terms: float64 [B, T], the length of each position's term.
        width: values in an inner product, inputs and outputs together.
    """
    positions = terms.shape[1]
    rounding = (width + 2 + positions**2) * 2.0**-52 * terms.sum(dim=1).square()
    return _with_slack(squared.clamp(min=0) + rounding, terms)


def _outer_norms(x: Tensor, g: Tensor) -> Tensor:
    """Squared norms of sum_t g[b, t] x[b, t]^T for x [B, T, i] and g [B, T, o]."""
    positions, inputs, outputs = x.shape[1], x.shape[2], g.shape[2]
    terms = _lengths(x) * _lengths(g)
    if positions * positions * 2 <= inputs * outputs:
        return _gram_slack(((x @ x.mT) * (g @ g.mT)).sum(dim=(1, 2)), terms, inputs + outputs)
    return _with_slack(_square(g.mT @ x), terms)


def _linear_norms(layer: nn.Linear, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    if x.dim() == 2:
        gradient = _square(g)
        norms = {"weight": gradient * _square(x)}
        return norms | ({"bias": gradient} if layer.bias is not None else {})
    x, g = x.flatten(1, -2), g.flatten(1, -2)
    norms = {"weight": _outer_norms(x, g)}
    return norms | ({"bias": _with_slack(_square(g.sum(dim=1)), _lengths(g))} if layer.bias is not None else {})


def _linear_sums(layer: nn.Linear, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    if x.dim() == 2:
        sums = {"weight": g.T @ x}
        return sums | ({"bias": g.sum(dim=0)} if layer.bias is not None else {})
    x, g = x.flatten(1, -2), g.flatten(1, -2)
    sums = {"weight": _outer_sums(x, g)}
    return sums | ({"bias": g.sum(dim=1).sum(dim=0)} if layer.bias is not None else {})


def _outer_sums(x: Tensor, g: Tensor) -> Tensor:
    """Return the sum over records of sum_t g[b, t]^T x[b, t], first over each record's positions.

    One product over records and positions would be faster. But where a record's terms cancel, they are large on the
    way, and the low bits of what other records added before are lost.
    """
    total = torch.zeros(g.shape[2], x.shape[2], dtype=torch.float64, device=g.device)
    at_once = max(1, _VALUES_AT_ONCE // total.numel())
    for start in range(0, len(x), at_once):
        place = slice(start, start + at_once)
        total += (g[place].mT @ x[place]).sum(dim=0)
    return total


def _from_terms(terms: Callable[[Any, Tensor, Tensor], dict[str, Tensor]]) -> tuple[Norms, Sums]:
    """Rules of a layer from each position's term of a record's gradient, float64 [B, T, values]."""

    def norms(layer: Any, x: Tensor, g: Tensor) -> dict[str, Tensor]:
        return {name: _with_slack(_square(t.sum(dim=1)), _lengths(t)) for name, t in terms(layer, x, g).items()}

    def sums(layer: Any, x: Tensor, g: Tensor) -> dict[str, Tensor]:
        return {name: _shaped(t.sum(dim=1).sum(dim=0), layer, name) for name, t in terms(layer, x, g).items()}

    return norms, sums


def _shaped(total: Tensor, layer: nn.Module, name: str) -> Tensor:
    parameter: Tensor = getattr(layer, name)
    return total.view(parameter.shape)


def _layer_norm_terms(layer: nn.LayerNorm, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    shape = tuple(layer.normalized_shape)
    normal = F.layer_norm(x, shape, None, None, layer.eps)
    values = math.prod(shape)
    terms = {"weight": (g * normal).reshape(len(x), -1, values)}
    return terms | ({"bias": g.reshape(len(x), -1, values)} if layer.bias is not None else {})


def _group_norm_terms(layer: nn.GroupNorm, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    normal = F.group_norm(x, layer.num_groups, None, None, layer.eps)
    weight, bias = g * normal, g
    return {name: t.reshape(*t.shape[:2], -1).mT for name, t in (("weight", weight), ("bias", bias))}


def _embedding_norms(layer: nn.Embedding, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    tokens, gradient = _tokens(layer, x, g)
    same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
    squared = ((gradient @ gradient.mT) * same).sum(dim=(1, 2))
    return {"weight": _gram_slack(squared, _lengths(gradient), gradient.shape[2])}


def _embedding_sums(layer: nn.Embedding, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    tokens, gradient = _tokens(layer, x, g)
    # first the sum of each record and token, as in _outer_sums
    places = tokens + layer.num_embeddings * torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
    found, place = torch.unique(places, return_inverse=True)
    sums = torch.zeros(len(found), gradient.shape[2], dtype=gradient.dtype, device=gradient.device)
    sums.index_add_(0, place.flatten(), gradient.flatten(0, 1))
    total = torch.zeros_like(layer.weight, dtype=gradient.dtype)
    return {"weight": total.index_add_(0, found % layer.num_embeddings, sums)}


def _tokens(layer: nn.Embedding, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    tokens, gradient = x.reshape(len(x), -1), g.reshape(len(x), -1, g.shape[-1])
    if layer.padding_idx is not None:
        gradient = gradient * (tokens != layer.padding_idx).unsqueeze(-1)
    return tokens, gradient


def _embedding_refusal(layer: nn.Embedding) -> str | None:
    if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
        return "an Embedding with max_norm, scale_grad_by_freq or sparse gradients"
    return None


def _patches(layer: nn.Conv2d, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return unfolded inputs [B * groups, L, i] and output gradients [B * groups, L, o]."""
    unfolded = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    batch, groups = len(x), layer.groups
    columns = unfolded.reshape(batch * groups, unfolded.shape[1] // groups, -1).mT
    return columns, g.reshape(batch * groups, g.shape[1] // groups, -1).mT


def _convolution_norms(layer: nn.Conv2d, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    norms = {"weight": _outer_norms(*_patches(layer, x, g)).reshape(len(x), layer.groups).sum(dim=1)}
    if layer.bias is None:
        return norms
    return norms | {"bias": _with_slack(_square(g.sum(dim=(2, 3))), _lengths(g.flatten(2).mT))}


def _convolution_sums(layer: nn.Conv2d, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    columns, gradient = (t.reshape(len(x), layer.groups, *t.shape[1:]) for t in _patches(layer, x, g))
    groups = [_outer_sums(columns[:, place], gradient[:, place]) for place in range(layer.groups)]
    sums = {"weight": torch.cat(groups).reshape(layer.weight.shape)}
    return sums | ({"bias": g.sum(dim=(2, 3)).sum(dim=0)} if layer.bias is not None else {})


def _convolution_refusal(layer: nn.Conv2d) -> str | None:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return "a Conv2d with padding other than a number of zeros"
    return None


_layer_norm = _from_terms(_layer_norm_terms)
_group_norm = _from_terms(_group_norm_terms)

# The layer types with a rule, exactly: a subclass may compute something else and has none.
RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: Rule(squared_norms=_linear_norms, summed=_linear_sums, refusal=_nothing),
    nn.LayerNorm: Rule(squared_norms=_layer_norm[0], summed=_layer_norm[1], refusal=_nothing),
    nn.GroupNorm: Rule(squared_norms=_group_norm[0], summed=_group_norm[1], refusal=_nothing),
    nn.Embedding: Rule(squared_norms=_embedding_norms, summed=_embedding_sums, refusal=_embedding_refusal),
    nn.Conv2d: Rule(squared_norms=_convolution_norms, summed=_convolution_sums, refusal=_convolution_refusal),
}
