"""What each input adds to a prediction: exact for the linear model, integrated gradients for networks.

For the linear model the log-odds are a sum over inputs, and the terms are given as they are. For a network, captum's
integrated gradients (Sundararajan, Taly and Yan 2017) go from the centre of every input, where all inputs are zero, to
the patient. Their sum is the difference between both up to ``residual``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.batch import has, restricted, to_tensors
from models.networks import ClassWeights, LinearFusion
from privacy.errors import InvalidInput
from tessera.pictures import Picture, bars
from tessera.shown import html_table

if TYPE_CHECKING:
    from tessera.trained.model import Model

_STEPS, _TOGETHER = 256, 32
_SHOWN = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Log-odds taken apart: ``bias`` plus the row's contributions is ``log_odds``, up to ``residual``.

    ``by_feature`` has a row for each patient and columns (modality, input).
    """

    by_feature: pd.DataFrame
    bias: pd.Series
    log_odds: pd.Series
    exact: bool

    @property
    def by_modality(self) -> pd.DataFrame:
        """The contributions summed over the inputs of each modality."""
        order = list(dict.fromkeys(self.by_feature.columns.get_level_values(0)))
        return pd.DataFrame({m: self.by_feature[m].sum(axis=1) for m in order}, index=self.by_feature.index)

    @property
    def residual(self) -> pd.Series:
        """What the contributions miss of the log-odds, for each patient; rounding alone where they are exact."""
        return self.log_odds - self.bias - self.by_feature.sum(axis=1)

    def largest(self, count: int = _SHOWN) -> pd.Series:
        """Return the inputs that add most, by their mean absolute contribution."""
        found = self.by_feature.abs().mean().sort_values(ascending=False)
        return found.head(count)

    def plot(self, count: int = _SHOWN) -> Picture:
        """Return a picture of the mean contributions of the ``count`` inputs that add most."""
        means = self.by_feature.mean()[self.largest(count).index]
        return bars("What adds to the log-odds (mean)", [": ".join(n) for n in _names(means)], list(means))

    def __repr__(self) -> str:
        kind = "exact" if self.exact else f"integrated gradients, residual up to {self.residual.abs().max():.1e}"
        return f"Explanation({len(self.by_feature)} patients, {self.by_feature.shape[1]} inputs, {kind})"

    def _repr_html_(self) -> str:
        found = self.largest()
        rows = [(*name, float(value)) for name, value in zip(_names(found), found, strict=True)]
        return html_table(repr(self), rows, ("modality", "input", "mean absolute contribution"))


def _names(values: pd.Series) -> list[tuple[str, str]]:
    """Return (modality, input) of every entry."""
    index = values.index
    return list(zip(index.get_level_values(0), index.get_level_values(1), strict=True))


def explain(model: Model, ids: pd.Index, batch: dict[str, NDArray[Any]], threshold: int) -> Explanation:
    """Return the contributions to output ``threshold`` (log-odds of a later class); see :meth:`Model.explain`.

    Raises:
        InvalidInput: no such threshold, or captum is not installed.
    """
    outputs = model.facts.config.outputs
    if not isinstance(threshold, int) or not 0 <= threshold < outputs:
        raise InvalidInput(f"expected a threshold from 0 to {outputs - 1}, got {str(threshold)[:40]}")
    inputs = restricted(to_tensors(batch), model.facts.config.features)
    network, order = model.network, model.facts.config.modalities
    exact = isinstance(network, LinearFusion)
    with torch.no_grad():
        log_odds = network(inputs)[:, threshold]
        bias = _at_centre(network, inputs, order, threshold)
    if isinstance(network, LinearFusion):
        with torch.no_grad():
            parts = [_linear(network, inputs, modality, threshold) for modality in order]
    else:
        parts = _integrated(network, inputs, order, threshold)
    names = [(modality, name) for modality in order for name in model.facts.features[modality]]
    return Explanation(
        by_feature=pd.DataFrame(
            np.concatenate([part.numpy().astype(np.float64) for part in parts], axis=1),
            index=ids,
            columns=pd.MultiIndex.from_tuples(names, names=["modality", "input"]),
        ),
        bias=pd.Series(bias.numpy().astype(np.float64), index=ids, name="bias"),
        log_odds=pd.Series(log_odds.numpy().astype(np.float64), index=ids, name="log-odds"),
        exact=exact,
    )


def _at_centre(network: nn.Module, inputs: dict[str, Tensor], order: Sequence[str], threshold: int) -> Tensor:
    if isinstance(network, LinearFusion):
        return network.bias(inputs)[:, threshold]
    found: Tensor = network({**inputs, **{m: torch.zeros_like(inputs[m]) for m in order}})[:, threshold]
    return found


def _linear(network: LinearFusion, inputs: dict[str, Tensor], modality: str, threshold: int) -> Tensor:
    values = network.centred(inputs, modality)
    if modality in network.spreads:
        values = values / network.spreads[modality]
    own = f"rows.{threshold}." if isinstance(network.branches[modality], ClassWeights) else ""
    weights = network.get_parameter(f"branches.{modality}.{own}weight")
    return values * weights * has(inputs, modality)


def _integrated(network: nn.Module, inputs: dict[str, Tensor], order: Sequence[str], threshold: int) -> list[Tensor]:
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise InvalidInput(
            "explaining a network needs captum: install it with `pip install 'tessera-fl[model]'`"
        ) from error

    def output(*values: Tensor) -> Tensor:
        given, presence, cohort = values[: len(order)], values[-2], values[-1]
        batch = {**dict(zip(order, given, strict=True)), "presence": presence, "cohort": cohort}
        logits: Tensor = network(batch)[:, threshold]
        return logits

    pieces = []
    for start in range(0, len(inputs["cohort"]), _TOGETHER):  # every patient takes as many rows as there are steps
        rows = slice(start, start + _TOGETHER)
        given = tuple(inputs[modality][rows] for modality in order)
        found = IntegratedGradients(output).attribute(
            given,
            baselines=tuple(torch.zeros_like(values) for values in given),
            additional_forward_args=(inputs["presence"][rows], inputs["cohort"][rows]),
            n_steps=_STEPS,
        )
        pieces.append([part.detach() for part in found])
    return [torch.cat(parts) for parts in zip(*pieces, strict=True)]
