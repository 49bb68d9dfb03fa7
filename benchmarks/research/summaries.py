"""Many seeds' results of :mod:`staging` as one report: means with intervals, and what has to be said beside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.studies.evaluation import interval

SCORES = ("auroc", "balanced_accuracy", "cross_entropy", "calibration_error")
Run = Mapping[str, Any]
Rounded = dict[str, float | None]


def entry_of(runs: Sequence[Run], beside: Sequence[Run], goal: float, reference: str) -> dict[str, Any]:
    """Return one method's scores over the seeds, and their paired differences to the ``reference`` method's."""
    entry: dict[str, Any] = {key: rounded([run[key] for run in runs]) for key in SCORES}
    entry["auroc_by_seed"] = [_finite(float(run["auroc"])) for run in runs]
    entry["auroc_by_cohort"] = by_key(runs, "auroc_by_cohort")
    for key in ("sites", "combinations"):
        if key in runs[0]:
            entry[key] = by_key(runs, key)
    entry["worst_site"] = rounded([min(_known(run["sites"]), default=math.nan) for run in runs])
    entry["site_spread"] = rounded([float(np.std(_known(run["sites"]) or [math.nan])) for run in runs])
    entry[f"auroc_minus_{reference}"] = rounded(
        [run["auroc"] - other["auroc"] for run, other in zip(runs, beside, strict=True)]
    )
    if "combinations" in runs[0] and "combinations" in beside[0]:
        entry[f"combinations_minus_{reference}"] = by_key(
            [{"difference": _differences(r, b)} for r, b in zip(runs, beside, strict=True)], "difference"
        )
    if "curve" in runs[0]:
        curve = np.mean([run["curve"] for run in runs], axis=0)
        entry["rounds"] = len(curve)
        entry["curve"] = [round(float(v), 4) for v in curve]
        reached = np.flatnonzero(curve >= goal)
        entry["rounds_to_reference"] = int(reached[0]) + 1 if len(reached) else None
    return entry


def _differences(run: Run, other: Run) -> dict[str, float]:
    theirs = other["combinations"]
    return {name: value - theirs[name] for name, value in run["combinations"].items() if name in theirs}


def by_key(runs: Sequence[Run], key: str) -> dict[str, Rounded]:
    """Return the scores of every cohort, site or combination, each over the seeds that have it."""
    names = dict.fromkeys(name for run in runs for name in run[key])
    return {name: rounded([run[key].get(name, math.nan) for run in runs]) for name in names}


def unscored(runs: Sequence[Run], cohorts: Sequence[str]) -> dict[str, int]:
    """Return in how many seeds a cohort has no score: fewer than two classes among its test patients."""
    missed = Counter(name for run in runs for name in cohorts if name not in run["auroc_by_cohort"])
    return {name: missed[name] for name in cohorts if missed[name]}


def notes(report: Mapping[str, Any], fewest: int) -> list[str]:
    """Return a line for everything that a report's numbers leave out."""
    lines = list(report["lost"])
    if report["kept_local"]:
        lines.append(f"fewer than {fewest} hospitals hold {report['kept_local']}: not exchanged")
    for name, seeds in report["unscored"].items():
        lines.append(
            f"the test patients of {name} are all of one class in {seeds} of {report['settings']['seeds']} seeds: it "
            "is left out of these seeds' means, and its own mean is over the others"
        )
    return lines


def rounded(values: Sequence[float]) -> Rounded:
    """Return mean and half-width over the seeds that have a value; null where none has."""
    finite = [v for v in values if math.isfinite(v)]
    return {name: _finite(v) for name, v in interval(finite).items()}


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _known(areas: Mapping[str, float]) -> list[float]:
    """Return the areas that exist: a hospital whose test patients are all of one class has none."""
    return [area for area in areas.values() if math.isfinite(area)]


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def table(report: Mapping[str, Any]) -> str:
    """Return a report as a table in Markdown."""
    reference = report["reference"]
    lines = [f"{report['metrics']}; {report['settings']}", ""]
    head = ["method", "AUROC", f"minus {reference}", "bal. acc.", "cross-entropy", "ECE", "worst site", "rounds"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, entry in report["methods"].items():
        cells = [_cell(entry[k]) for k in ("auroc", f"auroc_minus_{reference}", *SCORES[1:], "worst_site")]
        lines.append("| " + " | ".join([name, *cells, str(entry.get("rounds_to_reference") or "-")]) + " |")
    return "\n".join([*lines, "", f"{report['seconds']} s"])


def _cell(value: Rounded) -> str:
    return "-" if value["mean"] is None else f"{value['mean']:.3f} ± {value['half_width']:.3f}"
