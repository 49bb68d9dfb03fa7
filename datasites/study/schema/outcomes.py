"""What a study predicts: one outcome, said before anybody reads a record.

Every kind is a sum of losses of single records, as differential privacy needs it. A Cox partial likelihood is not (a
record's loss depends on everybody at risk), so survival is a chain of intervals instead: the hazard of each interval
that a patient entered is one binary label.

>>> Survival(name="os", label="overall survival", time="os_months", event="os_event", unit="months",
...          edges=(12.0, 24.0, 60.0), happened=Level(name="dead"), censored=Level(name="alive")).outputs
3
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from datasites.study.schema.variables import Level, check_levels, check_variable_name
from datasites.study.signing import Message
from models.targets import Target
from privacy.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Classes(Message):
    """One class out of several. ``binary`` has two; ``ordinal`` has an order, the mildest first; ``categorical`` none.

    ``left_out`` are words of patients who have an outcome that this study does not ask for (stage IV, say): they are
    counted and left out, and are no strange spellings.
    """

    name: str
    kind: Literal["binary", "ordinal", "categorical"]
    label: str
    column: str
    levels: tuple[Level, ...]
    left_out: tuple[str, ...] = ()
    prevalence: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_named(self.name, self.column)
        check_levels(self.levels, f"outcome {self.name!r}", least=2)
        if (self.kind == "binary") != (len(self.levels) == 2):
            raise InvalidInput(f"outcome {self.name!r}: expected two levels if binary and more if {self.kind}")
        if self.prevalence and (len(self.prevalence) != len(self.levels) or abs(sum(self.prevalence) - 1) > 0.01):
            raise InvalidInput(f"outcome {self.name!r}: expected one declared prevalence per level, summing to 1")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it is read from."""
        return (self.column,)

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for one patient."""
        return len(self.levels) if self.kind == "categorical" else len(self.levels) - 1

    @property
    def classes(self) -> int:
        """How many classes a model tells apart."""
        return len(self.levels)

    @property
    def target(self) -> Target | None:
        """What a model predicts; None where classes have an order, as two always do."""
        return Target(kind="categorical") if self.kind == "categorical" else None


@dataclass(frozen=True, kw_only=True)
class Quantity(Message):
    """A ``count`` (whole, from ``low``) or a bounded ``continuous`` number, in its unit.

    ``typical`` and ``spread`` are a usual value and a usual distance from it, public guesses with which training
    starts and by which errors are weighed. Without them they follow from the bounds: the middle and a quarter of the
    range, of a count the middle on a logarithmic scale.
    """

    name: str
    kind: Literal["count", "continuous"]
    label: str
    column: str
    unit: str = ""
    low: float
    high: float
    typical: float | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        _check_named(self.name, self.column)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InvalidInput(f"outcome {self.name!r}: expected finite bounds, low below high")
        if self.kind == "count" and self.low < 0:
            raise InvalidInput(f"outcome {self.name!r}: expected counts from 0 on")
        if self.typical is not None and not self.low <= self.typical <= self.high:
            raise InvalidInput(f"outcome {self.name!r}: expected a typical value within the bounds")
        if self.kind == "count" and (self.spread is not None or self.typical == 0):
            raise InvalidInput(f"outcome {self.name!r}: a count has a typical value above 0 and no spread")
        if self.spread is not None and not 0 < self.spread < math.inf:
            raise InvalidInput(f"outcome {self.name!r}: expected a spread above 0")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it is read from."""
        return (self.column,)

    @property
    def outputs(self) -> int:
        """One number per patient: the expected value."""
        return 1

    @property
    def classes(self) -> int:
        """None: it is a number."""
        return 0

    @property
    def target(self) -> Target:
        """What a model predicts."""
        low, high = float(self.low), float(self.high)
        if self.kind == "count":
            middle = math.sqrt((1 + low) * (1 + high)) - 1
            return Target(kind="count", unit=self.unit, low=low, high=high, typical=float(self.typical or middle))
        middle, quarter = (low + high) / 2, (high - low) / 4
        return Target(
            kind="continuous",
            unit=self.unit,
            low=low,
            high=high,
            typical=float(middle if self.typical is None else self.typical),
            spread=float(self.spread or quarter),
        )


@dataclass(frozen=True, kw_only=True)
class Survival(Message):
    """Time to an event, cut into intervals at ``edges`` (in ``unit``, rising, the last one ends the follow-up)."""

    name: str
    kind: Literal["survival"] = "survival"
    label: str
    time: str
    event: str
    unit: str
    edges: tuple[float, ...]
    happened: Level
    censored: Level

    def __post_init__(self) -> None:
        _check_named(self.name, self.time, self.event)
        check_levels((self.censored, self.happened), f"outcome {self.name!r}", least=2)
        rising = all(a < b for a, b in itertools.pairwise((0.0, *self.edges)))
        if not (1 <= len(self.edges) <= 200 and rising and math.isfinite(self.edges[-1])):
            raise InvalidInput(f"outcome {self.name!r}: expected 1 to 200 rising edges above 0")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it is read from."""
        return (self.time, self.event)

    @property
    def outputs(self) -> int:
        """One hazard per interval."""
        return len(self.edges)

    @property
    def classes(self) -> int:
        """None: it is a time."""
        return 0

    @property
    def target(self) -> Target:
        """What a model predicts."""
        return Target(kind="survival", unit=self.unit, edges=tuple(map(float, self.edges)))


Outcome = Annotated[Classes | Quantity | Survival, Field(discriminator="kind")]


def _check_named(*names: str) -> None:
    for name in names:
        check_variable_name(name)
