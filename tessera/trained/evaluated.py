"""The private evaluation of a study as a table: every figure with the interval that counts noise and chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

_Z = 1.645
"""Intervals of released evaluations hold 90 %."""
_FIGURES = ("auroc", "cross_entropy", "brier", "calibration_slope", "calibration_error")
_COLUMNS = ["value", "low", "high"]


def evaluation_table(released: Mapping[str, Any]) -> pd.DataFrame:
    """Return the figures of one released evaluation, indexed by figure and where it holds.

    Args:
        released: as the orchestrator publishes it with a round; errors become intervals where it has no interval.

    Returns:
        columns value, low, high, of 90 %: the AUROC (the mean over cohorts, and of each cohort), the cross-entropy and
        the calibration of classes; concordance, absolute error or Brier scores of numbers and survival. Then the same
        of every group: ``BRCA`` (a cohort), ``site hospital-a``, ``pattern mrna+image``.
    """
    lines: dict[tuple[str, str], tuple[float, float, float]] = {}
    for figure in released.get("figures", ()):
        where = "all" if figure.get("at") is None else f"at {figure['at']:g}"
        lines[(str(figure["name"]), where)] = (figure["value"], figure["low"], figure["high"])
    for name in _FIGURES:
        value = released.get(name)
        if value is not None:
            lines[(name, "all")] = _interval(released, name, float(value))
    errors = released.get("auroc_error_by_cohort") or {}
    for cohort, value in (released.get("auroc_by_cohort") or {}).items():
        off = _Z * float(errors.get(cohort, 0.0))
        lines[("auroc", str(cohort))] = (float(value), max(0.0, value - off), min(1.0, value + off))
    for group in released.get("groups", ()):
        for figure in group["figures"]:
            at = "" if figure.get("at") is None else f" at {figure['at']:g}"
            plain = group["by"] == "cohort" and group["name"] != "all"
            where = str(group["name"]) if plain else f"{group['by']} {group['name']}"
            lines[(str(figure["name"]), f"{where}{at}")] = (figure["value"], figure["low"], figure["high"])
    index = pd.MultiIndex.from_tuples(list(lines), names=["figure", "where"])
    return pd.DataFrame(list(lines.values()), index=index, columns=_COLUMNS)


def _interval(released: Mapping[str, Any], name: str, value: float) -> tuple[float, float, float]:
    low, high = released.get(f"{name}_low"), released.get(f"{name}_high")
    if low is None or high is None:
        off = _Z * float(released.get(f"{name}_error") or 0.0)
        low, high = value - off, value + off
    return value, float(low), float(high)
