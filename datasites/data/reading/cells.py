"""What one cell means: a number in the schema's unit, a level of a category, missing, or refused. Nothing else.

Words are compared whole; a number is a number with nothing before or behind it but a unit that the schema knows. What
is not understood is counted with its spelling, so that the hospital's people see it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasites.study.schema.variables import MISSING, Category, Number, plain
from privacy.errors import InvalidInput
from privacy.sentences import say

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
_NUMBER = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)", re.DOTALL)
_PLAIN = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_COMMA = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(?!\d)")
_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(?![\d.,])")
_BOTH_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+,\d+(?![\d.,])")
_BOTH_POINT = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+\.\d+(?![\d.,])")
_WHOLE = re.compile(r"(\d+)\.0+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")
_EITHER = say("decimals or thousands? say which sign parts decimals")
_NO_NUMBER = say("not a number")
_UNKNOWN_UNIT = say("a unit that the schema does not know")
_NOT_WHOLE = say("not a whole number")
_NO_WORD = say("no word of the schema")
_NO_DATE = say("not a date such as 2024-05-31")
_COMMA_BEFORE = say("a comma before the decimals")
_COMMAS_BETWEEN = say("commas between thousands")
_OWN_UNIT = say("the unit of the column")
_SHOWN = 60
STRANGE = 5
"""How many strange spellings a reading report shows of one column."""


@dataclass(kw_only=True)
class Reading:
    """How the cells of one column were read: each is counted once as understood, missing or refused.

    ``refused`` maps a reason to the spellings that were refused for it; ``mapped`` counts cells that were understood
    by a rule: another spelling, another unit, a decimal comma.
    """

    column: str
    variable: str
    understood: int = 0
    missing: int = 0
    refused: dict[str, Counter[str]] = field(default_factory=dict)
    mapped: Counter[str] = field(default_factory=Counter)

    @property
    def refusals(self) -> int:
        """How many cells were refused."""
        return sum(sum(spellings.values()) for spellings in self.refused.values())

    @property
    def cells(self) -> int:
        """How many cells there were."""
        return self.understood + self.missing + self.refusals

    def refuse(self, reason: str, spelling: str, count: int) -> None:
        """Count cells that were not understood."""
        self.refused.setdefault(reason, Counter())[spelling[:_SHOWN]] += count

    def strange(self) -> list[tuple[str, str, int]]:
        """Return the most frequent refused spellings: (spelling, reason, cells)."""
        every = [(word, reason, n) for reason, words in self.refused.items() for word, n in words.items()]
        return sorted(every, key=lambda item: (-item[2], item[0]))[:STRANGE]


@dataclass(frozen=True, kw_only=True)
class NumberRule:
    """How a hospital writes a number: the unit of its column, and its decimal sign ("" is found out).

    ``commas``: its table has commas before decimals, so that ``1.234`` alone may be a thousand.
    """

    unit: str = ""
    decimal: str = ""
    commas: bool = False


class NumberColumn:
    """Reads one column piece by piece, in the variable's unit.

    The first cell that can only have a decimal point, or only a decimal comma, decides what parts the decimals of the
    column. Cells such as "1,234" wait for that decision, and so does "1.234". Without it the former is refused, the
    latter only in a table with decimal commas. After it, the other sign is refused. A cell with both signs, such as
    "1.234,5", says which is which.

    Args:
        variable: says unit, range and what else is accepted.
        reading: what is counted.
        rule: the hospital's; by default the schema's unit, and a decimal sign that is found out.
    """

    def __init__(self, variable: Number, reading: Reading, rule: NumberRule | None = None) -> None:
        rule = rule or NumberRule()
        self._variable, self._reading = variable, reading
        self._factor, self._sign, self._commas = unit_factor(variable, rule.unit), rule.decimal, rule.commas
        self._missing = MISSING | set(map(plain, variable.missing))
        self._rows = 0
        self._waiting: list[tuple[int, str]] = []
        self._doubtful: list[tuple[NDArray[np.intp], Floats]] = []

    def feed(self, cells: pd.Series) -> Floats:
        """Return the next piece, float64 [rows]: NaN where missing, refused, or waiting (see :meth:`finish`).

        Args:
            cells: text, or numbers (NaN is missing).
        """
        import pandas as pd

        first, self._rows = self._rows, self._rows + len(cells)
        if not _is_text(cells):
            return self._bounded(cells.to_numpy(dtype=np.float64))
        texts = cells.to_numpy(dtype=object)
        values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
        plainly = np.isfinite(values)
        doubtful = np.zeros(len(texts), dtype=bool)
        if plainly.any():
            plainly &= np.fromiter((bool(_PLAIN.fullmatch(t)) for t in texts), dtype=bool, count=len(texts))
            if self._sign != ".":
                doubtful = plainly & np.fromiter((bool(_POINTS.match(t.strip())) for t in texts), bool, len(texts))
                self._look_for_points(texts, plainly & ~doubtful)
            if self._sign == ",":
                plainly &= np.fromiter(("." not in t for t in texts), dtype=bool, count=len(texts))
        found = np.full(len(texts), np.nan)
        found[plainly] = self._bounded(values[plainly])
        places = np.flatnonzero(doubtful & plainly & ~np.isnan(found))
        self._doubtful.append((first + places, found[places]))
        for place in np.flatnonzero(~plainly):
            found[place] = self._slowly(texts[place], first + int(place))
        return found

    def finish(self) -> Iterator[tuple[int, float]]:
        """Yield (row, value) of the cells that waited; call it once, after the last piece.

        Cells such as "1.234" were read as they stand. They are taken back (NaN) if the column turned out to have commas
        before its decimals, or if its table has and the column does not say.
        """
        for row, text in self._waiting:
            value = self._read(text)
            if not math.isnan(value):
                yield row, value
        if self._sign == "," or (self._commas and not self._sign):
            for rows, values in self._doubtful:
                for row, value in zip(rows.tolist(), values.tolist(), strict=True):
                    self._reading.understood -= 1
                    self._reading.refuse(_EITHER, _as_text(value / self._factor), 1)
                    yield row, math.nan
        self._waiting, self._doubtful = [], []

    def _look_for_points(self, texts: NDArray[np.object_], plainly: NDArray[np.bool_]) -> None:
        if not self._sign and any("." in text for text in texts[plainly]):
            self._sign = "."

    def _slowly(self, text: str, row: int) -> float:
        stripped = text.strip()
        if not self._sign:
            if _BOTH_COMMA.match(stripped) or (_COMMA.match(stripped) and not _THOUSANDS.match(stripped)):
                self._sign = ","
            elif _BOTH_POINT.match(stripped):
                self._sign = "."
            elif _THOUSANDS.match(stripped):
                self._waiting.append((row, text))
                return math.nan
        return self._read(text)

    def _plainly(self, stripped: str) -> str:
        """Return a number's text with a point before its decimals; what is in doubt keeps a comma, or two points."""
        if self._sign == ",":
            if _BOTH_COMMA.match(stripped):
                return stripped.replace(".", "").replace(",", ".", 1)
            return stripped.replace(".", ",") if "." in stripped else stripped.replace(",", ".", 1)
        if self._sign == "." and _BOTH_POINT.match(stripped):
            return stripped.replace(",", "")
        return stripped

    def _read(self, text: str) -> float:
        reading, stripped = self._reading, text.strip()
        if plain(text) in self._missing:
            reading.missing += 1
            return math.nan
        candidate = self._plainly(stripped)
        found = _NUMBER.fullmatch(candidate)
        if found is None or "," in candidate:
            mixed = bool(re.fullmatch(r"[+-]?[\d.,]+", stripped))
            reading.refuse(_EITHER if mixed else _NO_NUMBER, text, 1)
            return math.nan
        value, unit, factor = float(found[1]), found[2].strip(), self._factor
        if unit:
            try:
                factor = unit_factor(self._variable, unit)
            except KeyError:
                reading.refuse(_UNKNOWN_UNIT, text, 1)
                return math.nan
        problem = self._problem(value, factor)
        if problem:
            reading.refuse(problem, text, 1)
            return math.nan
        reading.understood += 1
        if candidate != stripped:
            reading.mapped[_COMMA_BEFORE if self._sign == "," else _COMMAS_BETWEEN] += 1
        if factor != 1.0:
            reading.mapped[_converted(unit or _OWN_UNIT, self._variable.unit)] += 1
        return value * factor

    def _bounded(self, values: Floats) -> Floats:
        variable, reading = self._variable, self._reading
        converted, missing = values * self._factor, np.isnan(values)
        fits = ~missing & (converted >= variable.low) & (converted <= variable.high)
        if variable.whole:
            fits &= converted == np.round(converted)
        for value, count in Counter(values[~missing & ~fits].tolist()).items():
            reading.refuse(self._problem(value, self._factor), _as_text(value), count)
        reading.missing += int(missing.sum())
        reading.understood += int(fits.sum())
        if self._factor != 1.0:
            reading.mapped[_converted(_OWN_UNIT, variable.unit)] += int(fits.sum())
        return np.where(fits, converted, np.nan)

    def _problem(self, value: float, factor: float) -> str:
        variable, converted = self._variable, value * factor
        if not variable.low <= converted <= variable.high:  # NaN and infinities too
            hints = [u for u, f in variable.units.items() if variable.low <= value * f <= variable.high]
            outside = _outside(variable)
            return say("{outside}; as {unit} it would fit", outside=outside, unit=hints[0]) if hints else outside
        return _NOT_WHOLE if variable.whole and converted != round(converted) else ""


def _converted(unit: str, own: str) -> str:
    return say("converted from {unit} to {own}", unit=unit, own=own)


def _outside(variable: Number) -> str:
    if not variable.unit:
        return say("outside {low:g} to {high:g}", low=variable.low, high=variable.high)
    return say("outside {low:g} to {high:g} {unit}", low=variable.low, high=variable.high, unit=variable.unit)


def unit_factor(variable: Number, unit: str) -> float:
    """Return the factor from a unit to the variable's own; an empty unit is the variable's own.

    Raises:
        KeyError: the schema knows no such unit for this variable.
    """
    known = {plain(variable.unit): 1.0} | {plain(name): factor for name, factor in variable.units.items()}
    return known[plain(unit)] if unit else 1.0


class CategoryColumn:
    """Reads one column piece by piece as the places of a variable's levels.

    Args:
        variable: says the levels and their spellings.
        reading: what is counted.
        words: the hospital's own spellings, each to the name of a level, or to "" for missing.
        others: whether any other word counts as one level more, behind the variable's own.

    Raises:
        InvalidInput: a word stands for a level that the variable has not.
    """

    def __init__(
        self, variable: Category, reading: Reading, words: Mapping[str, str] | None = None, *, others: bool = False
    ) -> None:
        self._others = others
        self._variable, self._reading = variable, reading
        self._known = {word: place for place, level in enumerate(variable.levels) for word in level.words()}
        places = {level.name: place for place, level in enumerate(variable.levels)}
        unknown = [level for level in (words or {}).values() if level and level not in places]
        if unknown:
            raise InvalidInput(
                f"{variable.name}: expected words for {', '.join(places)} or an empty text for missing, "
                f"got {unknown[0][:40]!r}"
            )
        self._own = {plain(word): places[level] if level else None for word, level in (words or {}).items()}
        self._missing = (MISSING | set(map(plain, variable.missing))) - set(self._known)
        self.combinations: list[tuple[int, ...]] = []
        """The places of the levels that each code stands for."""

    def feed(self, cells: pd.Series) -> Floats:
        """Return the next piece, float64 [rows]: an index into :attr:`combinations`, NaN where missing or refused.

        Args:
            cells: text; numbers are read as their shortest spelling.
        """
        texts = cells if _is_text(cells) else cells.map(_as_text)
        codes = {text: self._code(str(text), int(n)) for text, n in texts.value_counts(dropna=False).items()}
        return np.array([codes[text] for text in texts], dtype=np.float64)

    def finish(self) -> Iterator[tuple[int, float]]:
        """No cell waits; see :meth:`NumberColumn.finish`."""
        return iter(())

    def _code(self, text: str, count: int) -> float:
        places = self._places(text, count)
        if not places:
            return math.nan
        if places not in self.combinations:
            self.combinations.append(places)
        return float(self.combinations.index(places))

    def _code_of(self, word: str) -> str:
        """Return a word, and ``1`` for ``1.0`` where only the former is known: programs store codes as fractions."""
        whole = _WHOLE.fullmatch(word)
        known = whole is not None and word not in self._own and word not in self._known
        return whole[1] if whole is not None and known and (whole[1] in self._own or whole[1] in self._known) else word

    def _places(self, text: str, count: int) -> tuple[int, ...]:
        reading, whole, separator = self._reading, plain(text), self._variable.separator
        if self._own.get(whole, 0) is None or (whole not in self._own and whole in self._missing):
            reading.missing += count
            return ()
        one_word = whole in self._known or whole in self._own or not separator
        parts = [whole] if one_word else [plain(part) for part in whole.split(separator)]
        parts = [self._code_of(part) for part in parts]
        found = [self._own.get(part, self._known.get(part)) for part in parts]
        places = tuple(sorted({place for place in found if place is not None}))
        if self._others and not places and plain(text):
            reading.understood += count
            reading.mapped[say("{spelling!r} is none of them", spelling=text.strip()[:_SHOWN])] += count
            return (len(self._variable.levels),)
        if None in found or not places:
            reading.refuse(_NO_WORD, text, count)
            return ()
        reading.understood += count
        names = [self._variable.levels[place].name for place in places]
        if sorted(parts) != sorted(map(plain, names)):
            levels = " + ".join(names)
            reading.mapped[say("{spelling!r} is read as {levels}", spelling=text.strip()[:_SHOWN], levels=levels)] += (
                count
            )
        return places


def _as_text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.15g}"


def _is_text(cells: pd.Series) -> bool:
    import pandas as pd

    return cells.dtype == object or pd.api.types.is_string_dtype(cells.dtype)


def years_between(since: pd.Series, until: pd.Series, reading: Reading) -> pd.Series:
    """Return the years from one date to another, float64 [rows], NaN where one is missing or no date (refused).

    Dates are written as ISO 8601 does, with year, month and day (2024-05-31); a year of 365.25 days. A row that is
    refused here is taken off the missing ones, among which the reader of the years counts it.
    """
    import pandas as pd

    texts = [
        cells.astype(object).where(cells.notna(), "").map(lambda cell: str(cell).strip()) for cells in (since, until)
    ]
    absent = [text.map(lambda word: plain(word) in MISSING) for text in texts]
    whole = [text.map(lambda word: bool(_DATE.fullmatch(word))) for text in texts]
    dates = [
        pd.to_datetime(text.where(fits, None), errors="coerce", format="ISO8601", utc=True)
        for text, fits in zip(texts, whole, strict=True)
    ]
    strange = [date.isna() & ~gone & ~(absent[0] | absent[1]) for date, gone in zip(dates, absent, strict=True)]
    for text, odd in ((texts[0], strange[0]), (texts[1], strange[1] & ~strange[0])):
        for word, count in text[odd].value_counts().items():
            reading.refuse(_NO_DATE, str(word), int(count))
    reading.missing -= int((strange[0] | strange[1]).sum())
    return (dates[1] - dates[0]).dt.total_seconds() / (365.25 * 86400)
