"""What a model predicts: its kind and the public numbers that go with it. Importing it does not import torch.

A study of stages in order (two or more) states no target. The others are classes without an order, counts, bounded
numbers, and survival in discrete time. Every loss is a sum over records, so per-record clipping bounds each one's
gradient whatever its outcome is (:mod:`models.losses`).

>>> Target(kind="survival", edges=(12.0, 24.0, 60.0), unit="months").interval_label(30.0, happened=True)
5
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


class InvalidModel(ValueError):
    """A configuration describes no model, or bytes and values do not fit the model they are meant for."""


TargetKind = Literal["categorical", "count", "continuous", "survival"]
MOST_HORIZONS = 3
"""At so many times at most a survival model is scored."""
_MOST_EDGES = 200
QUANTITY_CELLS = 4


@dataclass(frozen=True, kw_only=True)
class Target:
    """The outcome of a model that does not order classes.

    ``count`` and ``continuous`` lie from ``low`` to ``high`` in ``unit``. ``typical`` is a usual value, where the model
    starts; ``spread`` is the distance (of a count: nothing) on which a prediction's error counts as one.

    ``survival`` is cut at ``edges`` (in ``unit``, rising). A label is one integer: ``2 m`` for a patient who was
    followed through m whole intervals and not further, ``2 j + 1`` for an event in interval j, counted from 0. An
    event in the interval from edge a to edge b happened after a and not after b.
    """

    kind: TargetKind
    unit: str = ""
    low: float = 0.0
    high: float = 0.0
    typical: float = 0.0
    spread: float = 0.0
    edges: tuple[float, ...] = ()
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True}  # as part of a proposal

    def __post_init__(self) -> None:
        numbers = (self.low, self.high, self.typical, self.spread, *self.edges)
        if not all(map(math.isfinite, numbers)):
            raise InvalidModel("expected finite numbers of an outcome")
        if self.is_quantity != (self.low < self.high) or (self.is_quantity and self.edges):
            raise InvalidModel("a count or a continuous outcome has bounds, low below high, and no other has any")
        if self.is_quantity and not (self.low <= self.typical <= self.high and self.spread >= 0.0):
            raise InvalidModel("expected a typical value within the bounds and a spread above 0")
        if (self.kind == "continuous") != (self.spread > 0.0) or (self.kind == "count" and not self.typical > 0.0):
            raise InvalidModel("a continuous outcome has a spread above 0, a count a typical value above 0")
        if self.kind == "count" and self.low < 0.0:
            raise InvalidModel("expected counts from 0 on")
        rising = all(a < b for a, b in itertools.pairwise((0.0, *self.edges)))
        if (self.kind == "survival") != bool(self.edges) or not rising or len(self.edges) > _MOST_EDGES:
            raise InvalidModel(f"survival has 1 to {_MOST_EDGES} rising edges above 0, and no other outcome has any")

    @property
    def is_quantity(self) -> bool:
        """Whether the outcome is a number."""
        return self.kind in ("count", "continuous")

    @property
    def horizons(self) -> tuple[int, ...]:
        """The numbers of whole intervals after which a survival model is scored: three of them, or all of fewer."""
        count = len(self.edges)
        wanted = min(MOST_HORIZONS, count)
        return tuple(math.ceil(count * (place + 1) / wanted) for place in range(wanted))

    @property
    def cuts(self) -> tuple[float, ...]:
        """The public values that part a quantity into :data:`QUANTITY_CELLS` cells; one on a cut is below it."""
        if self.kind == "count":
            return (self.typical / 2, self.typical, 2 * self.typical)
        return (self.typical - self.spread, self.typical, self.typical + self.spread)

    @property
    def error_span(self) -> float:
        """The absolute error, in ``unit``, at which the private evaluation stops to tell errors apart."""
        return 4.0 * (self.spread if self.kind == "continuous" else max(1.0, self.typical))

    def interval_label(self, time: float, *, happened: bool) -> int:
        """Return the label of a time of follow-up, in ``unit``, that ended with the event or without."""
        if happened and time <= self.edges[-1]:
            return 2 * bisect.bisect_left(self.edges, time) + 1
        return 2 * bisect.bisect_right(self.edges, time)

    def holds(self, label: float) -> bool:
        """Return whether ``label`` can be one of this outcome; of classes that depends on their number."""
        if self.is_quantity:
            whole = self.kind == "continuous" or float(label).is_integer()
            return self.low <= label <= self.high and whole
        return 0 <= label <= 2 * len(self.edges) and float(label).is_integer()
