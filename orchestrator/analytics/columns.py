"""From names that scientists know to the columns that hospitals count: variables, modalities, cohorts, outcomes.

Bounds of numbers are public: they come from the study's schema, or from whoever asks; never from patients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasites.data.tcga.variables import VARIABLES
from datasites.study.schema.document import StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Survival
from datasites.study.schema.variables import TRANSFORMS, UNTRANSFORMED, Category, Number
from models.config import Target, in_order
from models.counter import centre_and_half
from models.counting import Axis, Factor
from privacy.errors import InvalidInput

By = str | tuple[str, Sequence[float]]
Bounds = tuple[float, float]
_FEW_VALUES = 40
_SHOWN = 24
_STEPS = 80
SEVERAL, MISSING = "several", "missing"


@dataclass(frozen=True, kw_only=True)
class Column:
    """Where a variable lies among the inputs of its modality, and how its values are read.

    ``missing`` is -1 where no input says that the value is missing. A column whose values have no public transform has
    ``variable`` None: its numbers are the model's inputs.
    """

    name: str
    modality: str
    place: int
    missing: int = -1
    variable: Number | Category | None = None
    centre: float = 0.0
    scale: float = 1.0

    @property
    def unit(self) -> str:
        """The unit of bounds and answers."""
        return self.variable.unit if isinstance(self.variable, Number) else "as the model reads it"

    def encoded(self, value: float) -> float:
        """Return the model's input for a value in its unit."""
        if isinstance(self.variable, Number):
            return float(self.variable.encoded(value, self.centre, self.scale))
        return value

    @property
    def range(self) -> tuple[float, float]:
        """The values, in their unit, between which the model's input still tells two values apart."""
        if not isinstance(self.variable, Number):
            return -4.0, 4.0
        low, high = float(self.variable.low), float(self.variable.high)
        clip = self.variable.clip
        return self._inside(low, high, -clip), self._inside(high, low, clip)

    def _inside(self, end: float, other: float, limit: float) -> float:
        """Return ``end``, or the value nearest to it whose input is not cut off."""
        if abs(self.encoded(end)) < abs(limit):
            return end
        cut, kept = end, other
        for _ in range(_STEPS):
            middle = (cut + kept) / 2
            cut, kept = (middle, kept) if abs(self.encoded(middle)) >= abs(limit) else (cut, middle)
        return round(kept, 9)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What may be asked of datasets of one shape.

    Args:
        features: names of the model's inputs by modality.
        cohorts: in their order.
        task: the outcome that the datasets hold labels of.
        classes: of that outcome; 0 of a number or survival.
        predicts: what the labels are, where they are no classes in order.
        document: the study's schema, where hospitals read their tables by one.
    """

    features: Mapping[str, Sequence[str]]
    cohorts: tuple[str, ...]
    task: str
    classes: int
    predicts: Target | None = None
    document: StudySchema | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities, in order."""
        return in_order(self.features)

    def column(self, name: str) -> Column:
        """Return a variable by its name, or by ``MODALITY.NAME``.

        Raises:
            InvalidInput: there is none, or several modalities have one.
        """
        found = [c for m in self.modalities for c in self._of_modality(m) if name in (c.name, f"{m}.{c.name}")]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInput(f"several modalities have {name[:40]!r}: name it as {found[0].modality}.{name[:40]}")
        every = [c for m in self.modalities for c in itertools.islice(self._of_modality(m), _SHOWN)]
        known = [c.name for c in sorted(every, key=lambda c: c.missing < 0)]  # variables of their own first
        more = ", ..." * (len(known) > _SHOWN)
        raise InvalidInput(f"no variable {name[:40]!r}; there are {', '.join(known[:_SHOWN])}{more}")

    def number(self, name: str) -> Column:
        """Return a variable that is a number.

        Raises:
            InvalidInput: there is none, or it is a category.
        """
        found = self.column(name)
        if isinstance(found.variable, Category):
            raise InvalidInput(f"expected a number, {name[:40]!r} is a category; ask for counts or a cross-table of it")
        return found

    def axis(self, by: By, *, bins: int = 0) -> Axis:
        """Return the groups of a cohort, modality, pattern, variable or outcome.

        Args:
            by: ``cohort``, ``pattern`` (which modalities a patient has), a modality, a variable, the outcome; or a
                number with its cuts, ``("age", (50, 65))``.
            bins: of a number without cuts; 0 refuses one.

        Raises:
            InvalidInput: no such thing, or a number without cuts.
        """
        name = by if isinstance(by, str) else by[0]
        cuts: tuple[float, ...] = () if isinstance(by, str) else tuple(map(float, by[1]))
        if name == "cohort":
            return Axis(kind="cohort", name=name, groups=self.cohorts)
        if name == "pattern":
            return self._pattern()
        if name in self.features:
            groups = (f"without {name}", f"with {name}")
            return Axis(kind="modality", name=name, modality=name, groups=groups)
        if self._is_outcome(name):
            return self._outcome_axis(cuts, bins)
        found = self.column(name)
        if isinstance(found.variable, Category):
            return Axis(
                kind="category",
                name=found.name,
                groups=(*(level.name for level in found.variable.levels), SEVERAL, MISSING),
                modality=found.modality,
                column=found.place,
                missing=found.missing,
            )
        if not cuts and not bins:
            raise InvalidInput(f'{name[:40]!r} is a number: say where it is cut, by=("{name[:40]}", (50, 65))')
        low, high = found.range
        edges = (low, *cuts, high) if cuts else even_edges(found, bins)
        return number_axis(found, edges)

    def numbers(self) -> tuple[str, ...]:
        """The numbers that are variables of their own, as ``MODALITY.NAME``."""
        every = (column for modality in self.modalities for column in self._of_modality(modality))
        return tuple(f"{c.modality}.{c.name}" for c in every if isinstance(c.variable, Number) and c.missing >= 0)

    def survival(self, time: str, event: str, bins: int) -> Axis:
        """Return the groups of follow-up and event, with the outcome's intervals taken together to at most ``bins``.

        Raises:
            InvalidInput: the datasets hold another outcome.
        """
        outcome = self._outcome()
        if not isinstance(outcome, Survival) or (outcome.time, outcome.event) != (time, event) or not self.predicts:
            raise InvalidInput(
                f"expected the columns of the outcome that these datasets were made for, {self._outcome_columns()}, "
                f"got {time[:40]!r} and {event[:40]!r}; hospitals can publish a dataset for another outcome"
            )
        edges = self.predicts.edges
        if not 1 <= bins <= 200:
            raise InvalidInput(f"expected 1 to 200 intervals, got {bins}")
        count = min(bins, len(edges))
        ends = tuple(sorted({math.ceil(len(edges) * (k + 1) / count) for k in range(count)}))
        marks = (0.0, *(float(edges[end - 1]) for end in ends))
        groups: list[str] = []
        for low, high in itertools.pairwise(marks):
            groups += [f"followed to between {low:g} and {high:g}", f"event between {low:g} and {high:g}"]
        groups.append(f"followed beyond {marks[-1]:g}")
        return Axis(
            kind="survival", name=outcome.label, groups=tuple(groups), ends=ends, marks=marks, unit=outcome.unit
        )

    def factor(
        self, name: str, bounds: tuple[float, float] | None = None
    ) -> tuple[Column, Factor, tuple[float, float]]:
        """Return a number as it is summed: its column, the factor, and the bounds at which it is cut, in its unit.

        Raises:
            InvalidInput: no number, or bounds that are none.
        """
        found = self.number(name)
        low, high = found.range if bounds is None else (float(bounds[0]), float(bounds[1]))
        if not low < high:
            raise InvalidInput(f"expected bounds of {name[:40]!r} with the lower one first, got {low:g} and {high:g}")
        centre, half = centre_and_half(found.encoded(low), found.encoded(high))
        made = Factor(modality=found.modality, column=found.place, missing=found.missing, centre=centre, half=half)
        return found, made, (low, high)

    def _of_modality(self, modality: str) -> list[Column]:
        place = {name: number for number, name in enumerate(self.features[modality])}
        described = self.document.modality(modality) if self.document is not None else None
        if described is not None and described.measure is not None:
            return [
                Column(name=n, modality=modality, place=k, variable=described.measure, centre=c, scale=s)
                for k, n in enumerate(described.names)
                for c, s in (described.centre_and_scale(k),)
            ]
        variables = described.variables if described is not None else VARIABLES if modality == "clinical" else ()
        found = []
        for variable in variables:
            inputs = variable.inputs()
            if inputs[0] not in place or inputs[-1] not in place:
                continue
            number = isinstance(variable, Number)
            found.append(
                Column(
                    name=variable.name,
                    modality=modality,
                    place=place[inputs[0]],
                    missing=place[inputs[-1]],
                    variable=variable,
                    centre=variable.centre if isinstance(variable, Number) else 0.0,
                    scale=variable.scale if isinstance(variable, Number) and number else 1.0,
                )
            )
        if found or ":" in "".join(itertools.islice(place, 3)):
            return found
        return [Column(name=name, modality=modality, place=number) for name, number in place.items()]

    def _pattern(self) -> Axis:
        every = self.modalities
        if len(every) > 6:
            raise InvalidInput(f"expected at most six modalities for patterns, there are {len(every)}")
        held = itertools.product((False, True), repeat=len(every))
        names = ["+".join(m for m, has in zip(every, one, strict=True) if has) or "none" for one in held]
        return Axis(kind="pattern", name="modalities", modalities=every, groups=tuple(names))

    def _outcome(self) -> Outcome | None:
        return self.document.outcome(self.task) if self.document is not None else None

    def _outcome_columns(self) -> str:
        outcome = self._outcome()
        return " and ".join(map(repr, outcome.columns)) if outcome is not None else repr(self.task)

    def _is_outcome(self, name: str) -> bool:
        outcome = self._outcome()
        return name in (self.task, "outcome") or (outcome is not None and outcome.columns == (name,))

    def _outcome_axis(self, cuts: tuple[float, ...], bins: int) -> Axis:
        if self.predicts is None or self.predicts.kind == "categorical":
            outcome = self._outcome()
            if isinstance(outcome, Classes):
                names = tuple(level.name for level in outcome.levels)
            else:
                names = tuple(f"class {k}" for k in range(self.classes))
            return Axis(kind="outcome-class", name=self.task, groups=names)
        if not self.predicts.is_quantity:
            raise InvalidInput(f"{self.task} is survival: ask for kaplan_meier or log_rank")
        low, high = self.predicts.low, self.predicts.high
        edges: tuple[float, ...] = (
            (low, *cuts, high) if cuts else tuple(low + (high - low) * k / max(1, bins) for k in range(bins + 1))
        )
        if not all(a < b for a, b in itertools.pairwise(edges)) or len(edges) < 2:
            raise InvalidInput(f"expected rising cuts between {low:g} and {high:g}, got {cuts}")
        return Axis(
            kind="outcome-number",
            name=self.task,
            groups=tuple(spans(edges)),
            edges=edges,
            marks=edges,
            unit=self.predicts.unit,
        )


def number_axis(column: Column, edges: Sequence[float]) -> Axis:
    """Return the groups of a number between edges in its unit, and one for those of whom it is missing.

    Raises:
        InvalidInput: edges that do not rise, or that lie beyond what the model's input tells apart.
    """
    encoded = tuple(column.encoded(edge) for edge in edges)
    if len(edges) < 2 or not all(a < b for a, b in itertools.pairwise(encoded)):
        low, high = column.range
        raise InvalidInput(
            f"expected rising edges of {column.name!r} between {low:g} and {high:g} {column.unit}, beyond which the "
            f"schema cuts values off, got {', '.join(f'{edge:g}' for edge in edges)[:80]}"
        )
    return Axis(
        kind="number",
        name=column.name,
        groups=(*spans(edges), MISSING),
        modality=column.modality,
        column=column.place,
        missing=column.missing,
        edges=encoded,
        marks=tuple(map(float, edges)),
        unit=column.unit,
    )


def even_edges(column: Column, bins: int) -> tuple[float, ...]:
    """Return so many bins of equal width over a number's range; of few whole numbers one bin each."""
    low, high = column.range
    whole = isinstance(column.variable, Number) and column.variable.whole
    if whole and high - low + 1 <= min(bins, _FEW_VALUES):
        return (*map(float, range(math.ceil(low), math.floor(high) + 1)), math.floor(high) + 0.5)
    if not 1 <= bins <= 500:
        raise InvalidInput(f"expected 1 to 500 bins, got {bins}")
    return tuple(low + (high - low) * k / bins for k in range(bins + 1))


def scale_edges(column: Column, bins: int) -> tuple[float, ...]:
    """Return bins of equal width on the scale on which the model reads a number, in its unit; at least two edges."""
    low, high = column.range
    variable = column.variable
    if not isinstance(variable, Number) or variable.transform == "none":
        return tuple(low + (high - low) * k / bins for k in range(bins + 1))
    first, last = (float(TRANSFORMS[variable.transform](end)) for end in (low, high))
    inner = [UNTRANSFORMED[variable.transform](first + (last - first) * k / bins) for k in range(1, bins)]
    return (low, *inner, high)


def spans(edges: Sequence[float]) -> list[str]:
    """Return the names of the groups between edges.

    >>> spans((0, 50, 100))
    ['0 to 50', '50 to 100']
    """
    return [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
