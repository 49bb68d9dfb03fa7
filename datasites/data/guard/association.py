"""Two looks at the inputs that only the hospital's own people see: does one nearly say the outcome, are they constant?

A column that came to the inputs by mistake (a T category under another name, a status code) gives the outcome away. No
list of names finds every one, so each variable alone is tested against the outcome. The result is private, exactly as
the records are: it stands in the reading report and goes nowhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from privacy.sentences import say

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
TELLING = 0.85
"""An area under the ROC curve, of one variable alone, from which on it is named."""

FLAT = 0.05
"""Inputs with a smaller standard deviation than this hardly count for a model."""

_SURE = 6.0
_FEW = 20
_PIECE = 2000
MOST_ROWS = 20_000
"""So many patients are looked at, the first in order of their ids."""

_LEAST_ROWS = 20


def telling(columns: Mapping[str, Floats], outcome: Floats, *, classes: bool) -> list[tuple[str, float]]:
    """Return the variables that nearly determine the outcome, and how well each does alone, the best first.

    Of two classes the measure is the area under the ROC curve, of more the least over all pairs of classes; for
    a variable of few values it is also how often the commonest class of each value is right, above guessing. Of a
    number as outcome it is the absolute rank correlation. All lie in 0..1.

    Args:
        columns: of each variable [patients], NaN where missing.
        outcome: float [patients]: places of classes, or numbers.
        classes: whether it is classes.
    """
    if len(outcome) < _LEAST_ROWS:
        return []
    found: list[tuple[str, float]] = []
    names = list(columns)
    for start in range(0, len(names), _PIECE):
        chosen = names[start : start + _PIECE]
        values = np.stack([np.asarray(columns[name][:MOST_ROWS], dtype=np.float64) for name in chosen], axis=1)
        scores = _by_class(values, outcome[:MOST_ROWS]) if classes else _by_rank(values, outcome[:MOST_ROWS])
        found += [(name, float(score)) for name, score in zip(chosen, scores, strict=True) if score >= TELLING]
    return sorted(found, key=lambda item: -item[1])


def flat_share(inputs: Floats) -> float:
    """Return the share of inputs [patients, inputs] that hardly differ between patients, 0 to 1."""
    if len(inputs) < _LEAST_ROWS or not inputs.shape[1]:
        return 0.0
    return float((inputs[:MOST_ROWS].std(axis=0, dtype=np.float64) < FLAT).mean())


def _by_class(values: Floats, outcome: Floats) -> Floats:
    labels = outcome.astype(np.int64)
    present = [c for c in np.unique(labels) if (labels == c).sum() >= 2]
    least = np.ones(values.shape[1])
    if len(present) < 2:
        return np.zeros(values.shape[1])
    for one, other in itertools.combinations(present, 2):
        rows = (labels == one) | (labels == other)
        least = np.minimum(least, _areas(values[rows], labels[rows] == other))
    return np.maximum(least, [_purity(values[:, place], labels) for place in range(values.shape[1])])


def _areas(values: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Return max(AUROC, 1 - AUROC) of each column, 0 where it may be chance; a missing value is a value of its own."""
    shown = np.where(np.isnan(values), np.nanmin(values, initial=0.0) - 1.0, values)
    n, m = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(shown, axis=0)
    areas = (ranks[positive].sum(axis=0) - n * (n + 1) / 2) / (n * m)
    areas = np.maximum(areas, 1.0 - areas)
    error = np.sqrt((n + m + 1) / (12.0 * n * m))
    found: Floats = np.where((areas - 0.5) > min(_SURE * error, 0.45), areas, 0.0)
    return found


def _purity(column: Floats, labels: Ints) -> float:
    """Return how much better than guessing the commonest class of each value is, where values are few: 0 to 1."""
    words, codes = np.unique(np.where(np.isnan(column), -np.inf, column), return_inverse=True)
    if not 1 < len(words) <= min(_FEW, len(column) // 10):
        return 0.0
    table = np.zeros((len(words), int(labels.max()) + 1))
    np.add.at(table, (codes, labels), 1)
    guessing = table.sum(axis=0).max() / len(labels)
    return float((table.max(axis=1).sum() / len(labels) - guessing) / (1.0 - guessing)) if guessing < 1 else 0.0


def _by_rank(values: Floats, outcome: Floats) -> Floats:
    known = ~np.isnan(outcome)
    target = rankdata(outcome[known])
    shown = np.where(np.isnan(values[known]), np.nanmin(values, initial=0.0) - 1.0, values[known])
    ranks = rankdata(shown, axis=0)
    spread = ranks.std(axis=0) * target.std()
    moved = ((ranks - ranks.mean(axis=0)) * (target - target.mean())[:, None]).mean(axis=0)
    correlations: Floats = np.abs(np.divide(moved, spread, out=np.zeros_like(moved), where=spread > 0))
    return correlations


def said(found: Sequence[tuple[str, float]], where: str, outcome: str) -> list[str]:
    """Return a warning for each variable that :func:`telling` found, and what to do about it."""
    return [
        say(
            "{where}: {name!r} alone nearly tells {outcome} ({score:.2f} of 1): if it defines the outcome or follows "
            "from it, it must not be an input",
            where=where,
            name=name,
            outcome=outcome,
            score=score,
        )
        for name, score in found
    ]
