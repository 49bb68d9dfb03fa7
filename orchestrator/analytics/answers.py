"""From the noised vector of a counting study to tables that people read, each value with its interval.

>>> answers_of(proposal, values, deviation)[0].table                    # doctest: +SKIP
         patients   low  high
female       31.2  20.1  42.3
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.counting import Axis, Counting, Question
from orchestrator.analytics.columns import MISSING, SEVERAL
from orchestrator.analytics.estimates import Estimate, bounded, noised, normal, projected, stands_out, total
from orchestrator.analytics.survival import at_risk, log_rank, survival

Floats = NDArray[np.float64]
Tables = Sequence[Floats]
EVERYBODY = "all"
_REST = (SEVERAL, MISSING)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One statistic: a line for each value, with the ends of its 95 % interval.

    Intervals of counts hold the noise alone, since they are of these patients; all others also hold how much chance
    there is in so few patients. ``deviation`` is the noise of one cell, in patients; ``names`` are what was
    asked for.
    """

    kind: str
    title: str
    table: pd.DataFrame
    deviation: float
    unit: str = ""
    note: str = ""
    names: tuple[str, ...] = ()


def answers_of(asked: Counting, values: Floats, deviation: float) -> tuple[Answer, ...]:
    """Return the answer of every question.

    Args:
        asked: what was counted.
        values: float64 [asked.length], noised, summed over hospitals.
        deviation: of the noise in one of them, at least 0.
    """
    place, found = 0, []
    for question in asked.questions:
        tables = []
        for count in question.counts:
            tables.append(values[place : place + count.cells].reshape(count.shape))
            place += count.cells
        found.append(replace(_READERS[question.kind](question, tables, deviation), names=tuple(question.names)))
    return tuple(found)


def _counts(question: Question, tables: Tables, deviation: float) -> Answer:
    lines: list[pd.DataFrame] = []
    for count, table in zip(question.counts, tables, strict=True):
        axis = count.axes[0] if count.axes else None
        names = pd.Index(list(axis.groups) if axis is not None else [EVERYBODY], name="group")
        frame = _frame("patients", noised(table.ravel(), deviation), names)
        lines.append(pd.concat({axis.name if axis is not None else EVERYBODY: frame}, names=["by", "group"]))
    return Answer(kind=question.kind, title=question.title, table=pd.concat(lines), deviation=deviation)


def _missingness(question: Question, tables: Tables, deviation: float) -> Answer:
    lines: dict[str, pd.DataFrame] = {}
    for name, count, rows in zip(question.names, question.counts, tables, strict=True):
        place = 0 if count.axes[-1].kind == "modality" else -1
        share = partial(_share, place=place, deviation=deviation)
        lines[name] = _by_group(count.axes[:-1], rows, share, pd.Index(["missing"], name="value"))
    shares = pd.concat(lines, names=["variable"]).droplevel("value")
    return Answer(kind=question.kind, title=question.title, table=shares, deviation=deviation, unit="share of patients")


def _share(rows: Floats, *, place: int, deviation: float) -> Estimate:
    def share(tables: Floats) -> Floats:
        return np.asarray(tables[:, [place]] / np.maximum(tables.sum(axis=1, keepdims=True), 1.0), np.float64)

    return bounded(rows, deviation, share, 0.0, 1.0)


def _means(question: Question, tables: Tables, deviation: float) -> Answer:
    lines: dict[str, pd.DataFrame] = {}
    notes = []
    for number, name in enumerate(question.names):
        three = np.stack([np.asarray(t) for t in tables[3 * number : 3 * number + 3]])
        low, high, linear = question.settings[name]
        count = question.counts[3 * number + 1]
        factor = count.factors[0]
        middle, half = ((low + high) / 2, (high - low) / 2) if linear else (factor.centre, factor.half)
        if not linear:
            notes.append(f"{name} is on the transformed scale on which models read it")
        groups, flat = _groups(count.axes), three.reshape(3, -1)
        rows = [_mean(flat[:, g], deviation, middle, half) for g in range(flat.shape[1])]
        lines[name] = pd.concat(dict(zip(groups, rows, strict=True)), names=["group"])
    table = pd.concat(lines, names=["variable"])
    return Answer(kind=question.kind, title=question.title, table=table, deviation=deviation, note="; ".join(notes))


def _mean(sums: Floats, deviation: float, middle: float, half: float) -> pd.DataFrame:
    """Return mean and standard deviation from the sums of x^0, x^1 and x^2 of a number in -1..1."""
    records = total(sums[:1], deviation)
    mean = float(np.clip(sums[1] / records, -1.0, 1.0))
    square = float(np.clip(sums[2] / records, mean * mean, 1.0))
    spread = float(np.sqrt(square - mean * mean))
    error = float(np.sqrt(spread**2 / records + (deviation / records) ** 2 * (1 + mean**2)))  # patients, both sums
    variance_error = deviation * np.sqrt(1 + square**2 + (2 * mean) ** 2 * (1 + mean**2)) / records
    spread_error = np.hypot(variance_error / max(2 * spread, 0.05), spread / np.sqrt(2 * records))
    found = normal(np.array([mean, spread]), np.array([error, spread_error]))
    inside = Estimate(value=found.value, low=np.maximum(found.low, (-1.0, 0.0)), high=np.minimum(found.high, 1.0))
    move = np.array([middle, 0.0])
    scaled = Estimate(value=move + half * inside.value, low=move + half * inside.low, high=move + half * inside.high)
    return _frame("value", scaled, pd.Index(["mean", "standard deviation"], name="statistic"))


def _quantiles(question: Question, tables: Tables, deviation: float) -> Answer:
    count, wanted = question.counts[0], np.array(question.settings["probabilities"])
    edges = np.array(count.axes[-1].marks)

    def read(counts: Floats) -> Floats:
        inside = counts[:, :-1] if counts.shape[1] == len(edges) else counts  # without those of whom it is missing
        reached = np.concatenate([np.zeros((len(inside), 1)), np.cumsum(inside, axis=1)], axis=1)
        reached = reached / np.maximum(reached[:, -1:], 1e-9)
        rise = np.linspace(0.0, 1e-9, reached.shape[1])  # strictly rising, for the inverse
        return np.stack([np.interp(wanted, row + rise, edges) for row in reached])

    def estimate(rows: Floats) -> Estimate:
        return bounded(rows, deviation, read, float(edges[0]), float(edges[-1]))

    table = _by_group(count.axes[:-1], tables[0], estimate, pd.Index(wanted, name="quantile"))
    return Answer(kind=question.kind, title=question.title, table=table, deviation=deviation, unit=count.axes[-1].unit)


def _histogram(question: Question, tables: Tables, deviation: float) -> Answer:
    *by, axis = question.counts[0].axes
    table = _by_group(
        by, tables[0], partial(noised, deviation=deviation), pd.Index(list(axis.groups), name=axis.name), "patients"
    )
    return Answer(kind=question.kind, title=question.title, table=table, deviation=deviation, unit=axis.unit)


def _cross_table(question: Question, tables: Tables, deviation: float) -> Answer:
    first, second = question.counts[0].axes
    index = pd.MultiIndex.from_tuples(
        list(itertools.product(first.groups, second.groups)), names=[first.name, second.name]
    )
    table = _frame("patients", noised(tables[0].ravel(), deviation), index)
    return Answer(kind=question.kind, title=question.title, table=table, deviation=deviation)


def _correlations(question: Question, tables: Tables, deviation: float) -> Answer:
    names, stream = question.names, np.random.default_rng(0)
    flat = np.stack([np.asarray(t).ravel() for t in tables])  # [moments, groups]
    pairs = list(itertools.combinations(range(len(names)), 2))
    lines = {}
    for place, group in enumerate(_groups(question.counts[0].axes)):
        sums = flat[:, place]
        drawn = sums + stream.normal(0.0, deviation, (500, sums.size))
        value, spread = _correlated(sums[None], len(names), deviation)[0], _correlated(drawn, len(names), deviation)
        records = total(sums[:1], deviation)
        error = np.sqrt(np.var(spread, axis=0) + 1 / max(1.0, records - 3))
        found = normal(np.arctanh(value), error)
        bent = Estimate(value=value, low=np.tanh(found.low), high=np.tanh(found.high))
        index = pd.MultiIndex.from_tuples([(names[a], names[b]) for a, b in pairs], names=["first", "second"])
        lines[group] = _frame("correlation", bent, index)
    table = pd.concat(lines, names=["group"])
    table = table.droplevel("group") if list(lines) == [EVERYBODY] else table
    return Answer(kind=question.kind, title=question.title, table=table, deviation=deviation)


def _correlated(sums: Floats, numbers: int, deviation: float) -> Floats:
    """Return the correlations [n, pairs] of noised moments [n, moments]; Fisher's scale where several are drawn."""
    records = np.maximum(sums[:, 0], max(1.0, 0.1 * deviation))[:, None]
    means = sums[:, 1 : numbers + 1] / records
    second = np.zeros((len(sums), numbers, numbers))
    for k, (a, b) in enumerate(itertools.combinations_with_replacement(range(numbers), 2)):
        second[:, a, b] = second[:, b, a] = sums[:, 1 + numbers + k] / records[:, 0] - means[:, a] * means[:, b]
    spread = np.sqrt(np.maximum(np.einsum("naa->na", second), 1e-3))
    found = second / (spread[:, :, None] * spread[:, None, :])
    first, other = np.triu_indices(numbers, 1)
    value = np.clip(found[:, first, other], -0.999, 0.999)
    return np.asarray(value if len(sums) == 1 else np.arctanh(value), np.float64)


def _kaplan_meier(question: Question, tables: Tables, deviation: float) -> Answer:
    axes = question.counts[0].axes
    axis = axes[-1]

    def estimate(rows: Floats) -> Estimate:
        return bounded(rows, deviation, survival, 0.0, 1.0)

    table = _by_group(axes[:-1], tables[0], estimate, pd.Index(axis.marks[1:], name="time"), "survival")
    events = [np.stack(at_risk(projected(rows, deviation))) for rows in tables[0].reshape(-1, tables[0].shape[-1])]
    table["at_risk"] = np.concatenate([risk for _, risk in events]).round(1)
    table["events"] = np.concatenate([seen for seen, _ in events]).round(1)
    return Answer(kind=question.kind, title=question.title, table=table, deviation=deviation, unit=axis.unit)


def _log_rank(question: Question, tables: Tables, deviation: float) -> Answer:
    groups = question.counts[0].axes[0]
    held = np.stack([projected(rows, deviation) for rows in tables[0]])
    kept = [k for k, rows in enumerate(tables[0]) if groups.groups[k] not in _REST or stands_out(rows, deviation)]
    observed, expected, chi, p = log_rank(held[kept], deviation)
    table = pd.DataFrame(
        {"observed": observed, "expected": expected}, index=pd.Index([groups.groups[k] for k in kept], name=groups.name)
    )
    note = f"chi squared {chi:.3f} with {len(kept) - 1} degrees of freedom, p = {p:.3g}; its variance holds the noise"
    table.attrs = {"chi_squared": chi, "p_value": p}
    return Answer(kind=question.kind, title=question.title, table=table, deviation=deviation, note=note)


def _by_group(
    axes: Sequence[Axis],
    table: Floats,
    estimate: Callable[[Floats], Estimate],
    index: pd.Index[Any],
    column: str = "value",
) -> pd.DataFrame:
    """Return the estimates of every group of ``axes``, one after the other, with the group in front of the index."""
    rows = table.reshape(-1, table.shape[-1])
    frames = {g: _frame(column, estimate(row), index) for g, row in zip(_groups(axes), rows, strict=True)}
    found = pd.concat(frames, names=[axes[0].name if axes else "group"])
    return found if axes else found.droplevel(0)


def _groups(axes: Sequence[Axis]) -> list[str]:
    return (
        [" and ".join(names) for names in itertools.product(*(axis.groups for axis in axes))] if axes else [EVERYBODY]
    )


def _frame(column: str, found: Estimate, index: pd.Index[Any]) -> pd.DataFrame:
    return pd.DataFrame({column: found.value, "low": found.low, "high": found.high}, index=index)


_READERS: Mapping[str, Callable[[Question, Tables, float], Answer]] = {
    "counts": _counts,
    "missingness": _missingness,
    "means": _means,
    "quantiles": _quantiles,
    "histogram": _histogram,
    "cross_table": _cross_table,
    "correlations": _correlations,
    "kaplan_meier": _kaplan_meier,
    "log_rank": _log_rank,
}
