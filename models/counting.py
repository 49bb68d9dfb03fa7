"""What a counting study asks: tables of counts and of bounded sums over public groups. No torch in here.

Counts, missingness, means, quantiles, histograms, cross-tables, correlations, Kaplan-Meier curves and log-rank tests
are all read from a few such tables. A hospital computes them in the round of an ordinary study whose "model" is the
vector of all cells (:class:`models.counter.Counter`), so that approval, sandbox, noise, encryption and ledger are those
of any study.

>>> sex = Axis(kind="category", name="sex", modality="clinical", column=2,
...            groups=("female", "male", "several", "missing"))
>>> age = Factor(modality="clinical", column=0, missing=1, centre=0.0, half=4.0)
>>> asked = Counting(questions=(Question(kind="means", title="age by sex", counts=(
...     Count(axes=(sex,), needs=(age,)), Count(axes=(sex,), factors=(age,), needs=(age,)))),))
>>> asked.length, round(asked.sensitivity ** 2)
(8, 2)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from models.targets import InvalidModel

AxisKind = Literal["cohort", "modality", "pattern", "number", "category", "outcome-class", "outcome-number", "survival"]
QuestionKind = Literal[
    "counts",
    "missingness",
    "means",
    "quantiles",
    "histogram",
    "cross_table",
    "correlations",
    "kaplan_meier",
    "log_rank",
]
MOST_CELLS = 20_000
MOST_COUNTS = 400
_MOST_PATTERN = 6
_MARGIN = 1e-5
_Strict: Mapping[str, Any] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A number of a record that is multiplied: ``(x - centre) / half``, cut to -1..1, of one input column.

    ``column`` is the place of x among the inputs of ``modality``; ``missing`` the place of the input that says that it
    is missing, -1 where there is none. Everything is on the scale on which models read the column.
    """

    modality: str
    column: int
    missing: int = -1
    centre: float = 0.0
    half: float = 1.0
    __pydantic_config__: ClassVar[Mapping[str, Any]] = _Strict

    def __post_init__(self) -> None:
        if self.column < 0 or not (math.isfinite(self.centre) and 0 < self.half < math.inf):
            raise InvalidModel("expected a column from 0 on, a finite centre and a half-width above 0")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One way to part records into public groups; every record falls into exactly one.

    * ``cohort``: its cohort. ``modality``: without or with ``modality``. ``pattern``: which of ``modalities`` it has,
      as a binary number with the first as its highest digit.
    * ``number``: between ``edges``, rising, on the scale on which models read the column: group i holds edge i and ends
      before edge i + 1; the first and the last also hold what lies beyond; the group after them is ``missing``.
    * ``category``: a group per level, then ``several`` (more than one), then ``missing`` (none, or the modality is).
    * ``outcome-class``: the class. ``outcome-number``: the outcome between ``edges``, in its unit.
    * ``survival``: the interval label (:class:`models.targets.Target`), where ``ends`` are numbers of the outcome's
      intervals that are taken together, rising: two groups (followed no further, event) per interval, and one more.

    ``name`` and ``groups`` are what people read; ``marks`` are the bounds of numbers and times in their unit.
    """

    kind: AxisKind
    name: str
    groups: tuple[str, ...]
    modality: str = ""
    modalities: tuple[str, ...] = ()
    column: int = 0
    missing: int = -1
    edges: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()
    marks: tuple[float, ...] = ()
    unit: str = ""
    __pydantic_config__: ClassVar[Mapping[str, Any]] = _Strict

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in itertools.pairwise(self.edges)) and all(map(math.isfinite, self.edges))
        if not rising or not all(a < b for a, b in itertools.pairwise((0, *self.ends))):
            raise InvalidModel(f"expected rising edges of {self.name!r}")
        expected = {
            "modality": 2,
            "pattern": 1 << len(self.modalities),
            "number": len(self.edges),
            "outcome-number": len(self.edges) - 1,
            "survival": 2 * len(self.ends) + 1,
        }.get(self.kind, len(self.groups))
        if len(self.groups) != expected or expected < 1 or len(self.modalities) > _MOST_PATTERN:
            raise InvalidModel(f"expected {expected} groups of {self.name!r}, got {len(self.groups)}")
        if self.column < 0 or (self.kind == "category" and len(self.groups) < 3):
            raise InvalidModel(f"expected a column from 0 on and at least one level of {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class Count:
    """One table: a record adds the product of ``factors`` (1 without any) to the one cell it falls into.

    A record that lacks a number of ``needs`` or ``factors`` adds nothing.
    """

    axes: tuple[Axis, ...] = ()
    factors: tuple[Factor, ...] = ()
    needs: tuple[Factor, ...] = ()
    __pydantic_config__: ClassVar[Mapping[str, Any]] = _Strict

    @property
    def shape(self) -> tuple[int, ...]:
        """How many groups each axis has."""
        return tuple(len(axis.groups) for axis in self.axes)

    @property
    def cells(self) -> int:
        """How many cells the table has."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Question:
    """One statistic, and the tables it is read from; ``settings`` are its public numbers by name."""

    kind: QuestionKind
    title: str
    counts: tuple[Count, ...]
    names: tuple[str, ...] = ()
    settings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    __pydantic_config__: ClassVar[Mapping[str, Any]] = _Strict


@dataclass(frozen=True, kw_only=True)
class Counting:
    """All questions of one counting study; their tables lie one after the other in one vector."""

    questions: tuple[Question, ...]
    __pydantic_config__: ClassVar[Mapping[str, Any]] = _Strict

    def __post_init__(self) -> None:
        if not 1 <= len(self.counts) <= MOST_COUNTS or not 1 <= self.length <= MOST_CELLS:
            raise InvalidModel(
                f"expected 1 to {MOST_COUNTS} tables with at most {MOST_CELLS} cells together, got {len(self.counts)} "
                f"with {self.length}"
            )

    @property
    def counts(self) -> tuple[Count, ...]:
        """The tables of all questions, in order."""
        return tuple(count for question in self.questions for count in question.counts)

    @property
    def length(self) -> int:
        """How many cells there are."""
        return sum(count.cells for count in self.counts)

    @property
    def sensitivity(self) -> float:
        """How far one patient moves the vector of all cells at most, in L2 norm: the root of the number of tables.

        A patient has one record at a hospital (:func:`datasites.data.dataset.check_patients`). In every table it falls
        into one cell at most, since an axis gives it one group, and adds there a product of factors that are cut to
        -1..1. So it moves a table by a vector with one entry of absolute value 1 at most. The tables lie beside each
        other, so the squares add up: the squared norm is at most their number. Adjacency is add or remove.

        The gradient of a record is clipped to this norm as in any study, so the bound does not rest on this proof
        alone. ``max_grad_norm`` is larger by a hundred-thousandth, so that clipping leaves honest records as they are.
        """
        return math.sqrt(len(self.counts))

    @property
    def max_grad_norm(self) -> float:
        """The clipping norm with which no record is scaled down by rounding."""
        return self.sensitivity * (1.0 + _MARGIN)

    @property
    def modalities(self) -> frozenset[str]:
        """The modalities that are read."""
        found = {axis.modality for count in self.counts for axis in count.axes if axis.modality}
        found |= {name for count in self.counts for axis in count.axes for name in axis.modalities}
        return frozenset(found | {f.modality for count in self.counts for f in (*count.factors, *count.needs)})

    def check(self, features: Mapping[str, int], *, cohorts: int, classes: int) -> None:
        """Refuse questions about columns that are not there.

        Args:
            features: number of inputs by modality.
            cohorts: how many there are.
            classes: of the outcome; 0 of a number or survival.

        Raises:
            InvalidModel: a modality, column or number of groups that the study has not.
        """
        if not self.modalities <= set(features):
            raise InvalidModel("expected questions about the study's own modalities")
        for count in self.counts:
            for axis in count.axes:
                _check_axis(axis, features, cohorts, classes)
            for factor in (*count.factors, *count.needs):
                if max(factor.column, factor.missing) >= features[factor.modality]:
                    raise InvalidModel(f"expected columns of {factor.modality}, got place {factor.column}")


def _check_axis(axis: Axis, features: Mapping[str, int], cohorts: int, classes: int) -> None:
    width = features.get(axis.modality, 0)
    levels = len(axis.groups) - 2
    reach = {"number": max(axis.column, axis.missing) + 1, "category": max(axis.column + levels, axis.missing + 1)}
    if reach.get(axis.kind, 0) > width:
        raise InvalidModel(f"expected columns of {axis.modality} for {axis.name!r}, got some beyond its inputs")
    groups = {"cohort": cohorts, "outcome-class": classes}.get(axis.kind, len(axis.groups))
    if len(axis.groups) != groups:
        raise InvalidModel(f"expected {groups} groups of {axis.name!r}, got {len(axis.groups)}")
