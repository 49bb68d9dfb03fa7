"""Statistics by name, as the tables that hospitals count.

Every table costs: one patient is in each of them once, so the noise of all of them grows with the root of their number.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasites.study.schema.variables import Category
from models.counting import Axis, Count, Factor, Question
from orchestrator.analytics.columns import By, Column, Columns, even_edges, number_axis, scale_edges
from privacy.errors import InvalidInput

ManyBounds = Mapping[str, tuple[float, float]]
_MOST_CORRELATED = 10
_NEARLY = 1e-6
_SCALE_BINS = 64


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What may be asked of datasets of one shape; every method returns one question and reads nothing.

    ``by`` parts the patients into public groups: ``cohort``, ``pattern``, a modality, a category, the outcome, or a
    number with cuts.
    """

    columns: Columns

    def counts(self, *by: By) -> Question:
        """Ask how many patients there are, altogether or in the groups of each of ``by``."""
        counts = tuple(Count(axes=(self.columns.axis(one),)) for one in by) or (Count(),)
        return Question(kind="counts", title=f"patients by {_names(by)}" if by else "patients", counts=counts)

    def missingness(self, *names: str, by: By | None = None) -> Question:
        """Ask which share of patients lacks each modality or variable; all modalities by default."""
        asked = names or self.columns.modalities
        counts = tuple(Count(axes=(*self._by(by), self._measured(name))) for name in asked)
        return Question(kind="missingness", title=f"missing values of {_names(asked)}", counts=counts, names=asked)

    def means(self, *names: str, by: By | None = None, bounds: ManyBounds | None = None) -> Question:
        """Ask for mean and spread of numbers among those of whom they are known.

        ``bounds`` by name, in the number's unit, are where values are cut; by default the schema's range. Narrower
        ones mean less noise.
        """
        counts, settings, axes = [], dict[str, tuple[float, ...]](), self._by(by)
        for name in _some(names):
            column, factor, between = self.columns.factor(name, (bounds or {}).get(name))
            counts += [Count(axes=axes, factors=(factor,) * power, needs=(factor,)) for power in range(3)]
            settings[name] = (*between, float(_is_linear(column, between, factor)))
        return Question(
            kind="means", title=f"means of {_names(names)}", counts=tuple(counts), names=names, settings=settings
        )

    def quantiles(
        self,
        name: str,
        probabilities: Sequence[float] = (0.25, 0.5, 0.75),
        *,
        by: By | None = None,
        bins: int = 32,
        bounds: tuple[float, float] | None = None,
    ) -> Question:
        """Ask for quantiles of a number, read from a histogram of ``bins`` bins over its public range."""
        if not probabilities or not all(0 < p < 1 for p in probabilities):
            raise InvalidInput("expected probabilities between 0 and 1")
        counts = (Count(axes=(*self._by(by), self._bins(name, bins, bounds))),)
        settings = {"probabilities": tuple(map(float, probabilities))}
        return Question(kind="quantiles", title=f"quantiles of {name}", counts=counts, names=(name,), settings=settings)

    def quartiles(self, *names: str) -> tuple[Question, ...]:
        """Ask for the quartiles of numbers, one question each, to scale them by: all that are variables of their own.

        The bins are of equal width on the scale on which models read the number.
        """
        found = []
        for name in names or _some(self.columns.numbers()):
            column = self.columns.number(name)
            axis = number_axis(column, scale_edges(column, _SCALE_BINS))
            settings = {"probabilities": (0.25, 0.5, 0.75)}
            asked = f"{column.modality}.{column.name}"
            found.append(
                Question(
                    kind="quantiles",
                    title=f"quantiles of {asked}",
                    counts=(Count(axes=(axis,)),),
                    names=(asked,),
                    settings=settings,
                )
            )
        return tuple(found)

    def histogram(
        self,
        name: str,
        *,
        bins: int = 20,
        edges: Sequence[float] = (),
        by: By | None = None,
        bounds: tuple[float, float] | None = None,
    ) -> Question:
        """Ask how many patients lie between edges of a number, in each level of a category, or in each class."""
        axis = self._groups(name, bins, edges, bounds)
        return Question(
            kind="histogram", title=f"histogram of {name}", counts=(Count(axes=(*self._by(by), axis)),), names=(name,)
        )

    def cross_table(self, first: By, second: By) -> Question:
        """Ask how many patients are in each group of one thing and each group of another."""
        axes = (self.columns.axis(first), self.columns.axis(second))
        return Question(kind="cross_table", title=f"{axes[0].name} by {axes[1].name}", counts=(Count(axes=axes),))

    def correlations(self, *names: str, by: By | None = None, bounds: ManyBounds | None = None) -> Question:
        """Ask for the correlations of two to ten numbers among patients of whom all of them are known."""
        if not 2 <= len(names) <= _MOST_CORRELATED or len(set(names)) < len(names):
            raise InvalidInput(f"expected two to {_MOST_CORRELATED} different numbers, got {len(names)}")
        found = [self.columns.factor(name, (bounds or {}).get(name)) for name in names]
        factors, axes = [factor for _, factor, _ in found], self._by(by)
        needs = tuple(factors)
        pairs = [(factors[a], factors[b]) for a, b in itertools.combinations_with_replacement(range(len(names)), 2)]
        products: list[tuple[Factor, ...]] = [(), *((f,) for f in factors), *pairs]
        counts = tuple(Count(axes=axes, factors=product, needs=needs) for product in products)
        settings = {name: between for name, (_, _, between) in zip(names, found, strict=True)}
        return Question(
            kind="correlations", title=f"correlations of {_names(names)}", counts=counts, names=names, settings=settings
        )

    def kaplan_meier(self, time: str, event: str, *, bins: int = 24, by: By | None = None) -> Question:
        """Ask for a survival curve of the outcome with the columns ``time`` and ``event``.

        Times are known by the intervals of the schema's outcome; ``bins`` takes them together to at most so many.
        """
        axis = self.columns.survival(time, event, bins)
        return Question(
            kind="kaplan_meier", title=axis.name, counts=(Count(axes=(*self._by(by), axis)),), names=(time, event)
        )

    def log_rank(self, time: str, event: str, *, by: By, bins: int = 24) -> Question:
        """Ask whether groups differ in survival."""
        axis, groups = self.columns.survival(time, event, bins), self.columns.axis(by)
        if len(groups.groups) < 2:
            raise InvalidInput(f"expected at least two groups to compare, {groups.name} has one")
        return Question(
            kind="log_rank",
            title=f"{axis.name} by {groups.name}",
            counts=(Count(axes=(groups, axis)),),
            names=(time, event),
        )

    def _by(self, by: By | None) -> tuple[Axis, ...]:
        return () if by is None else (self.columns.axis(by),)

    def _bins(self, name: str, bins: int, bounds: tuple[float, float] | None) -> Axis:
        column = self.columns.number(name)
        if bounds is None:
            return number_axis(column, even_edges(column, bins))
        low, high = map(float, bounds)
        return number_axis(column, tuple(low + (high - low) * k / bins for k in range(bins + 1)))

    def _groups(self, name: str, bins: int, edges: Sequence[float], bounds: tuple[float, float] | None) -> Axis:
        known = name in (*self.columns.features, "cohort", "pattern", "outcome", self.columns.task)
        if known or isinstance(self.columns.column(name).variable, Category):
            return self.columns.axis(name, bins=bins)
        if edges:
            return number_axis(self.columns.number(name), tuple(map(float, edges)))
        return self._bins(name, bins, bounds)

    def _measured(self, name: str) -> Axis:
        """Return two groups or more, of which the last are those who lack the value; of a modality the first."""
        if name in self.columns.features:
            return self.columns.axis(name)
        column = self.columns.column(name)
        if isinstance(column.variable, Category):
            return self.columns.axis(name)
        return number_axis(column, column.range)


def _is_linear(column: Column, between: tuple[float, float], factor: Factor) -> bool:
    """Return whether a number's input is linear in its unit, so that a mean of inputs is one of numbers."""
    middle = column.encoded(sum(between) / 2)
    return abs(middle - factor.centre) < _NEARLY * factor.half


def _some(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise InvalidInput("expected at least one number by name")
    return names


def _names(names: Sequence[By]) -> str:
    return ", ".join(name if isinstance(name, str) else name[0] for name in names)
