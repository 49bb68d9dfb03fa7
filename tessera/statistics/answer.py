"""One statistic with its table, picture and privacy statement."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from orchestrator.analytics.answers import Answer
from tessera.pictures import Picture, intervals, steps
from tessera.shown import html_table


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Statistic:
    """What was answered: ``table`` has a line for each value with the ends of its 95 % interval.

    ``exact`` is the same without noise, in a simulation only; ``said`` then has lines on what was left out of the
    tables, and on what ``min_sites`` costs under shared noise (a live study says so when it is proposed).
    """

    answer: Answer
    privacy: str
    hospitals: int
    exact: pd.DataFrame | None = None
    said: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """The values: their own column, ``low`` and ``high``."""
        return self.answer.table

    @property
    def title(self) -> str:
        """What was asked."""
        return self.answer.title

    @property
    def note(self) -> str:
        """What else is to be known, such as the p-value of a log-rank test; empty where there is nothing."""
        return self.answer.note

    @property
    def noise(self) -> float:
        """The standard deviation of the noise in one count, in patients."""
        return self.answer.deviation

    @property
    def p_value(self) -> float:
        """The p-value of a log-rank test.

        Raises:
            AttributeError: the statistic is another one.
        """
        if "p_value" not in self.table.attrs:
            raise AttributeError(f"{self.answer.kind} has no p-value")
        return float(self.table.attrs["p_value"])

    def plot(self) -> Picture:
        """Return a picture of the values and their intervals."""
        table, title = self.table, f"{self.title} ({self.privacy})"
        if self.answer.kind == "kaplan_meier":
            return steps(title, table, unit=self.answer.unit)
        return intervals(title, table, unit=self.answer.unit)

    def __repr__(self) -> str:
        lines = [
            f"{self.title}: {self.hospitals} hospitals, {self.privacy}, noise of {self.noise:.3g} patients a count"
        ]
        return "\n".join(
            [*lines, *([self.note] if self.note else []), self.table.to_string(float_format="{:.4g}".format)]
        )

    def _repr_html_(self) -> str:
        rows = self.table.reset_index()
        title = f"{self.title}: {self.hospitals} hospitals, {self.privacy}. {self.note}".strip()
        return html_table(title, rows.itertuples(index=False), [str(column) for column in rows.columns])
