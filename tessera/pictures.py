"""Pictures of results: a matplotlib figure that shows itself in a notebook and saves itself in a script."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

_SIZE_INCHES = (6.4, 3.6)
_DOTS_PER_INCH = 110


class Picture:
    """One figure; ``figure`` is matplotlib's own, to change titles or colours."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def save(self, path: str | Path) -> Path:
        """Write the picture; the ending (.png, .svg, .pdf) decides how. Return the path."""
        target = Path(path)
        self.figure.savefig(target)
        return target

    def __repr__(self) -> str:
        axes = self.figure.axes
        return f"Picture({axes[0].get_title() if axes else ''!r}); .save('picture.png') writes it"

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.figure.savefig(target, format="png")
        return target.getvalue()


def curve(title: str, curves: Sequence[Sequence[float]], *, label: str, rounds: Sequence[int] = ()) -> Picture:
    """Return a picture of values by round: their mean as a line, and from lowest to highest as a band.

    Args:
        title: above the axes.
        curves: one sequence of values a run, all of one length.
        label: of the values' axis.
        rounds: the rounds that the values belong to; from 1 on by default.
    """
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    values = np.array(curves, dtype=float)
    numbers = list(rounds) or list(range(1, values.shape[1] + 1))
    if len(values) > 1:
        axes.fill_between(numbers, values.min(axis=0), values.max(axis=0), alpha=0.2, linewidth=0)
    axes.plot(numbers, values.mean(axis=0), marker=".")
    axes.set(title=title, xlabel="round", ylabel=label)
    axes.grid(alpha=0.3)
    return Picture(figure)


def bars(title: str, names: Sequence[str], values: Sequence[float]) -> Picture:
    """Return a picture of named values as horizontal bars, the first on top."""
    figure = Figure(figsize=(_SIZE_INCHES[0], 1.0 + 0.3 * len(names)), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.barh(list(names)[::-1], list(values)[::-1])
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set(title=title)
    axes.grid(alpha=0.3, axis="x")
    return Picture(figure)


def steps(title: str, table: pd.DataFrame, *, unit: str) -> Picture:
    """Return a picture of survival curves as steps with a band, one for each group.

    Args:
        title: above the axes.
        table: the columns survival, low and high; the index ends with the time, a group may stand before it.
        unit: of the time.
    """
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    groups = [("", table)] if table.index.nlevels == 1 else [(str(g), t) for g, t in table.groupby(level=0, sort=False)]
    for name, rows in groups:
        times = np.array([0.0, *rows.index.get_level_values(-1)])
        curve, low, high = (np.array([1.0, *rows[column]]) for column in ("survival", "low", "high"))
        axes.fill_between(times, low, high, step="post", alpha=0.15, linewidth=0)
        axes.step(times, curve, where="post", label=name)
    axes.set(title=title, xlabel=unit, ylabel="without the event", ylim=(0.0, 1.02))
    if len(groups) > 1:
        axes.legend()
    axes.grid(alpha=0.3)
    return Picture(figure)


def intervals(title: str, table: pd.DataFrame, *, unit: str) -> Picture:
    """Return a picture of values as points with their intervals, the first on top; values without any as bars."""
    if "low" not in table:
        return bars(title, [_name(key) for key in table.index], list(table.iloc[:, 0]))
    figure = Figure(figsize=(_SIZE_INCHES[0], 1.0 + 0.3 * len(table)), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    value, places = table.iloc[:, 0].to_numpy(), np.arange(len(table))[::-1]
    axes.hlines(places, table["low"], table["high"], alpha=0.5)
    axes.plot(value, places, "o", markersize=4)
    axes.set_yticks(places, [_name(key) for key in table.index])
    axes.set(title=title, xlabel=unit or str(table.columns[0]))
    axes.grid(alpha=0.3, axis="x")
    return Picture(figure)


def _name(key: object) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)
