"""Kaplan-Meier curves and log-rank tests from counts of follow-up and events by interval.

A table has two cells per interval, those who were followed no further and those with the event in it, and a last one of
those who were followed beyond. Who was followed no further counts as at risk for half of the interval, as in an
actuarial life table (Cutler and Ederer 1958); with intervals as fine as the times it is the Kaplan-Meier estimate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

Floats = NDArray[np.float64]
_DRAWS = 2000
_LEAST = 1e-9


def at_risk(tables: Floats) -> tuple[Floats, Floats]:
    """Return events and patients at risk in every interval, float64 [..., intervals] each, from tables [..., cells]."""
    followed, events = tables[..., 0:-1:2], tables[..., 1::2]
    here = followed + events
    later = tables[..., -1:] + np.cumsum(here[..., ::-1], axis=-1)[..., ::-1]
    return events, later - followed / 2


def survival(tables: Floats) -> Floats:
    """Return the probability of no event until the end of each interval, float64 [..., intervals]."""
    events, risk = at_risk(tables)
    hazard = np.clip(events / np.maximum(risk, _LEAST), 0.0, 1.0)
    return np.asarray(np.cumprod(1.0 - np.where(risk > _LEAST, hazard, 0.0), axis=-1), np.float64)


def log_rank(tables: Floats, deviation: float) -> tuple[Floats, Floats, float, float]:
    """Return observed and expected events [groups], chi squared and the p-value of the log-rank test.

    The covariance of observed minus expected is the hypergeometric one plus that of the noise, found by adding noise
    anew to these tables, so that noise alone is not taken for a difference.

    Args:
        tables: float64 [groups, cells], without negative counts.
        deviation: of the noise of one cell.
    """
    observed, expected, covariance = _compared(tables[None])
    stream = np.random.default_rng(0)
    drawn = tables + stream.normal(0.0, deviation, (_DRAWS, *tables.shape))
    seen, due, _ = _compared(drawn)
    noise = np.cov((seen - due).T).reshape(len(tables), len(tables)) if deviation > 0 else 0.0
    difference = (observed - expected)[0, :-1]
    spread = (covariance[0] + noise)[:-1, :-1]
    chi = float(difference @ np.linalg.pinv(spread) @ difference)
    return observed[0], expected[0], chi, float(chi2.sf(chi, len(tables) - 1))


def _compared(tables: Floats) -> tuple[Floats, Floats, Floats]:
    """Return observed, expected [n, groups] and their covariance [n, groups, groups], over intervals with risk."""
    events, risk = at_risk(tables)
    every, all_events = risk.sum(axis=1), events.sum(axis=1)
    used = every > 1.0
    rate = np.where(used, all_events / np.maximum(every, 1.0), 0.0)
    share = risk / np.maximum(every, 1.0)[:, None]
    expected = (risk * rate[:, None]).sum(axis=2)
    observed = np.where(used[:, None], events, 0.0).sum(axis=2)
    left = np.clip(every - all_events, 0.0, None) / np.maximum(every - 1.0, 1.0)
    weight = np.where(used, np.clip(all_events, 0.0, None) * left, 0.0)
    between = np.einsum("nj,ngj,nhj->ngh", weight, share, share)
    own = np.einsum("nj,ngj->ng", weight, share)
    return observed, expected, own[:, :, None] * np.eye(tables.shape[1]) - between
