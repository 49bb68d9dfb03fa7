"""One variable of a study's schema: how a hospital's cell is understood, and how it becomes a model's input.

A variable is a number or a category. Everything about it is public and fixed before anybody reads a record: its unit,
the range that is plausible, the words of a category, centre and scale. Nothing here is computed from patients.

>>> age = Number(name="age", unit="years", low=18, high=110, centre=60, scale=12)
>>> float(age.encoded(72.0))
1.0
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from datasites.study.signing import Message
from datasites.study.text import check_name
from privacy.errors import InvalidInput

Transform = Literal["none", "log1p", "log2p1", "signed-log1p", "arcsinh", "square-root"]
Numbers = float | NDArray[np.floating]
TRANSFORMS: Mapping[Transform, Callable[[Any], Any]] = {
    "none": lambda x: x,
    "log1p": np.log1p,
    "log2p1": lambda x: np.log2(1.0 + x),
    "signed-log1p": lambda x: np.copysign(np.log1p(np.abs(x)), x),
    "arcsinh": np.arcsinh,
    "square-root": np.sqrt,
}
"""From values in their unit, one or many, to the scale on which they are centred."""

UNTRANSFORMED: Mapping[Transform, Callable[[float], float]] = {
    "none": lambda x: x,
    "log1p": math.expm1,
    "log2p1": lambda x: 2.0**x - 1.0,
    "signed-log1p": lambda x: math.copysign(math.expm1(abs(x)), x),
    "arcsinh": math.sinh,
    "square-root": lambda x: max(x, 0.0) ** 2,
}
"""The way back, of one value."""

MISSING_WORDS = (
    "", "-", "--", "'--", "?", "na", "n/a", "#n/a", "nan", "null", "nil", "missing", "unknown", "not available",
    "not reported", "not evaluated", "not applicable", "not performed", "not done", "not known", "not assessed",
    "[not available]", "[not applicable]", "[not evaluated]", "[unknown]", "[completed]", "[discrepancy]",
)  # fmt: skip
"""What says that a value is missing, unless the schema says otherwise; capitals and spaces around it do not count."""

_MOST_UNITS = 20
_LONGEST_NAME = 200


def plain(text: str) -> str:
    """Return a word as words are compared: one Unicode form, no capitals, single spaces, none around it.

    >>> plain("  Not\u00a0 Reported ")
    'not reported'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


MISSING = frozenset(map(plain, MISSING_WORDS))
"""The words above, as words are compared."""


@dataclass(frozen=True, kw_only=True)
class Number(Message):
    """A measured number: ``(transform(x) - centre) / scale``, clipped to -clip..clip.

    ``low`` and ``high`` bound what is plausible, in ``unit``; a value outside is refused, not cut off. ``units`` maps
    other units that a hospital may use to the factor that leads to ``unit``. ``whole`` numbers have no fraction.
    """

    name: str
    kind: Literal["number"] = "number"
    label: str = ""
    unit: str = ""
    low: float
    high: float
    units: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False
    transform: Transform = "none"
    centre: float = 0.0
    scale: float = 1.0
    clip: float = 4.0
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_variable_name(self.name)
        numbers = (self.low, self.high, self.centre, self.scale, self.clip, *self.units.values())
        if not all(map(math.isfinite, numbers)) or not self.low < self.high:
            raise InvalidInput(f"variable {self.name!r}: expected finite numbers with low below high")
        if not (self.scale > 0 and 0 < self.clip <= 100 and all(f > 0 for f in self.units.values())):
            raise InvalidInput(f"variable {self.name!r}: expected scale, clip (at most 100) and factors above 0")
        lowest = {"log1p": -1.0, "log2p1": -1.0, "square-root": 0.0}.get(self.transform)
        if lowest is not None and (self.low < lowest or (lowest < 0 and self.low == lowest)):
            raise InvalidInput(
                f"variable {self.name!r}: the transform {self.transform} needs numbers "
                f"{'from' if lowest == 0 else 'above'} {lowest:g}, low is {self.low:g}"
            )
        if len(self.units) > _MOST_UNITS:
            raise InvalidInput(f"variable {self.name!r}: expected at most {_MOST_UNITS} other units")

    def encoded(self, values: Numbers, centre: Numbers | None = None, scale: Numbers | None = None) -> Any:
        """Return the model's inputs for values in ``unit``, one or many, that lie between ``low`` and ``high``.

        Args:
            values: a number, or an array of any shape.
            centre: in the place of the variable's own.
            scale: in the place of the variable's own, above 0.
        """
        moved = TRANSFORMS[self.transform](values) - (self.centre if centre is None else centre)
        return np.clip(moved / (self.scale if scale is None else scale), -self.clip, self.clip)

    def inputs(self) -> tuple[str, ...]:
        """Return the names of the model's inputs: the value, and whether it is missing."""
        return (f"{self.name}:value", f"{self.name}:missing")


@dataclass(frozen=True, kw_only=True)
class Level(Message):
    """One value of a category: its name and every other spelling that means it."""

    name: str
    spellings: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """Return every spelling as words are compared, the name first."""
        return tuple(dict.fromkeys(plain(word) for word in (self.name, *self.spellings)))


@dataclass(frozen=True, kw_only=True)
class Category(Message):
    """One word out of a list, or several where ``separator`` parts them; the whole word counts, never its beginning.

    A level may be spelled as a word that elsewhere says "missing": the level wins.
    """

    name: str
    kind: Literal["category"] = "category"
    label: str = ""
    levels: tuple[Level, ...]
    separator: str = ""
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_variable_name(self.name)
        check_levels(self.levels, f"variable {self.name!r}", least=1)
        if len(self.separator) > 3:
            raise InvalidInput(f"variable {self.name!r}: expected a separator of at most three characters")

    def inputs(self) -> tuple[str, ...]:
        """Return the names of the model's inputs: one per level, and whether the value is missing."""
        return (*(f"{self.name}:{level.name}" for level in self.levels), f"{self.name}:missing")


Variable = Annotated[Number | Category, Field(discriminator="kind")]


def check_levels(levels: tuple[Level, ...], where: str, *, least: int) -> None:
    """Check that levels have names and that no spelling means two of them.

    Raises:
        InvalidInput: too few, more than 200, a name that does not read as it is, or a spelling of two levels.
    """
    if not least <= len(levels) <= 200:
        raise InvalidInput(f"{where}: expected {least} to 200 levels, got {len(levels)}")
    owner: dict[str, str] = {}
    for level in levels:
        check_variable_name(level.name)
        for word in level.words():
            if owner.setdefault(word, level.name) != level.name:
                raise InvalidInput(f"{where}: the spelling {word!r} means both {owner[word]!r} and {level.name!r}")
    if len({level.name for level in levels}) < len(levels):
        raise InvalidInput(f"{where}: expected every level once")


def check_variable_name(name: str) -> None:
    """Check the name of a variable, column or level.

    Raises:
        InvalidInput: empty, above 200 characters, with spaces around it or characters that are not seen.
    """
    check_name(name, "a name in the schema")
    if len(name) > _LONGEST_NAME or name != name.strip() or re.search(r"[\r\n\t]", name):
        raise InvalidInput(f"expected a name of at most {_LONGEST_NAME} characters without spaces around it")
