"""Numbers of a column, in the schema's unit: nothing before or behind them but a unit that the schema knows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasites.data.reading.cells.columns import (
    Flags,
    as_texts,
    contains,
    is_text,
    like,
    numbers_with_comma,
    plain_numbers,
    spellings,
)
from datasites.data.reading.cells.counting import Reading
from datasites.data.reading.cells.words import number_text
from datasites.study.schema.variables import MISSING, Number, plain
from privacy.sentences import say

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Sign = Literal["", ".", ","]
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_SIGNED = re.compile(r"([+-]?[\d.,]+)([eE][+-]?\d+)?([^\d.,].*)?", re.DOTALL)
_COMMA = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(?!\d)")
_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(?![\d.,])")
_POINTS_AMONG_NUMBERS = r"^\s*[+-]?[1-9]\d{0,2}\.\d{3}(\D|$)"
_BOTH_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+,\d+(?![\d.,])")
_BOTH_POINT = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+\.\d+(?![\d.,])")
_EITHER = say("decimals or thousands? say which sign parts decimals")
_NO_NUMBER = say("not a number")
_UNKNOWN_UNIT = say("a unit that the schema does not know")
_NOT_WHOLE = say("not a whole number")
_COMMA_BEFORE = say("a comma before the decimals")
_COMMAS_BETWEEN = say("commas between thousands")
_OWN_UNIT = say("the unit of the column")


@dataclass(frozen=True, kw_only=True)
class NumberRule:
    """How a hospital writes a number: the unit of its column, its decimal sign ("" is found out), words for missing.

    ``commas``: its table has commas before decimals, so that ``1.234`` alone may be a thousand.
    """

    unit: str = ""
    decimal: str = ""
    commas: bool = False
    missing: Sequence[str] = ()


@dataclass(kw_only=True)
class _Held:
    """Cells that are numbers only if one sign parts decimals: how they were read then, and how they are refused else.

    ``rows`` has for each piece its first row and one bit a row, so that a column of any length is held.
    """

    read: Reading
    refused: Reading
    rows: list[tuple[int, int, NDArray[np.uint8]]] = field(default_factory=list)

    def add(self, first: int, which: Flags) -> None:
        if which.any():
            self.rows.append((first, len(which), np.packbits(which)))

    def places(self) -> Iterator[int]:
        for first, count, bits in self.rows:
            yield from (first + np.flatnonzero(np.unpackbits(bits, count=count))).tolist()


class NumberColumn:
    """Reads one column piece by piece, in the variable's unit.

    The first cell that can only have a decimal point, or only a decimal comma, decides what parts the decimals of the
    column; how the table is cut into pieces changes nothing. Cells such as "1,234" wait for that decision, and so does
    "1.234". Without it the former is refused, the latter only in a table with decimal commas. After it, the other sign
    is refused. A cell with both signs, such as "1.234,5", says which is which.

    Args:
        variable: says unit, range and what else is accepted.
        reading: what is counted; cells that wait are counted by :meth:`finish`.
        rule: the hospital's; by default the schema's unit, and a decimal sign that is found out.
    """

    def __init__(self, variable: Number, reading: Reading, rule: NumberRule | None = None) -> None:
        rule = rule or NumberRule()
        self._variable, self._reading = variable, reading
        self._factor, self._commas = unit_factor(variable, rule.unit), rule.commas
        self._sign: str = rule.decimal
        own = (*variable.missing, *rule.missing)
        self._missing = MISSING | set(map(plain, own))
        self._codes = np.array([value for word in own if (value := _code(word)) is not None])
        self._rows = 0
        self._held = {sign: _Held(read=_beside(reading), refused=_beside(reading)) for sign in (".", ",")}

    def feed(self, cells: pd.Series) -> Floats:
        """Return the next piece, float64 [rows]: NaN where missing or refused; :meth:`finish` may take some back.

        Args:
            cells: text, or numbers (NaN is missing).
        """
        first, self._rows = self._rows, self._rows + len(cells)
        if not is_text(cells):
            return self._bounded(cells.to_numpy(dtype=np.float64), self._reading)
        texts = as_texts(cells)
        values = plain_numbers(texts)
        plainly, pointed = ~np.isnan(values), np.zeros(len(texts), dtype=np.bool_)
        doubtful = pointed
        if self._sign != ".":
            pointed = plainly & contains(texts, ".")
        if not self._sign:
            doubtful = pointed & like(texts, _POINTS_AMONG_NUMBERS) if pointed.any() else pointed
            self._decide(texts, pointed & ~doubtful, plainly)
        if self._sign == ".":
            doubtful = np.zeros(len(texts), dtype=np.bool_)
        elif self._sign == ",":
            plainly, doubtful = plainly & ~pointed, np.zeros(len(texts), dtype=np.bool_)
        found = np.full(len(texts), np.nan)
        found[plainly & ~doubtful] = self._bounded(values[plainly & ~doubtful], self._reading)
        self._hold_points(texts, values, doubtful, first, found)
        rest = ~plainly
        if self._sign == "," and rest.any():
            rest &= ~self._with_commas(texts, rest, found)
        if rest.any():
            self._by_spelling(texts, rest, first, found)
        return found

    def finish(self) -> Iterator[tuple[int, float]]:
        """Count the cells that waited, and yield (row, NaN) of those that are no numbers after all.

        Call it once, after the last piece. Cells such as "1.234" and "1,234" were read as they would be if the sign in
        them parted decimals.
        """
        for sign, held in self._held.items():
            if self._sign == sign or (sign == "." and not self._sign and not self._commas):
                self._reading.take(held.read)
            else:
                self._reading.take(held.refused)
                yield from ((row, math.nan) for row in held.places())
            held.rows.clear()

    def _decide(self, texts: pa.Array, points: Flags, plainly: Flags) -> None:
        """Let the first cell that says which sign parts decimals say it; ``points`` are plain numbers that do."""
        place = int(points.argmax()) if points.any() else len(points)
        for word, row in spellings(texts, ~plainly).firsts() if not plainly.all() else ():
            if row > place:
                break
            self._sign = self._said(word.strip())
            if self._sign:
                return
        self._sign = "." if place < len(points) else ""

    def _said(self, stripped: str) -> Sign:
        """Return the decimal sign that a cell shows, nothing where it shows none or both would do."""
        found = _SIGNED.fullmatch(stripped)
        if found is None or not self._knows((found[3] or "").strip()):
            return ""
        number, power = found[1], found[2] or ""
        if _BOTH_COMMA.fullmatch(number) or (_COMMA.fullmatch(number) and not _THOUSANDS.fullmatch(number)):
            return ","
        one_point = _NUMBER.fullmatch(number + power) and "." in number
        return "." if _BOTH_POINT.fullmatch(number) or (one_point and not _POINTS.fullmatch(number)) else ""

    def _in_doubt(self, stripped: str) -> Sign:
        """Return the sign of a cell that may be one before decimals or between thousands, nothing of other cells."""
        found = _SIGNED.fullmatch(stripped)
        if found is None or not self._knows((found[3] or "").strip()):
            return ""
        return "," if _THOUSANDS.fullmatch(found[1]) else "." if _POINTS.fullmatch(found[1]) else ""

    def _knows(self, unit: str) -> bool:
        try:
            unit_factor(self._variable, unit)
        except KeyError:
            return False
        return True

    def _hold_points(self, texts: pa.Array, values: Floats, doubtful: Flags, first: int, found: Floats) -> None:
        """Read numbers such as "1.234" as if a point parted decimals, and hold them until that is certain."""
        if not doubtful.any():
            return
        held = self._held["."]
        found[doubtful] = self._bounded(values[doubtful], held.read)
        held.refused.refuse_each(_EITHER, lambda: spellings(texts, doubtful).counted(), int(doubtful.sum()))
        held.add(first, doubtful & ~np.isnan(found))

    def _with_commas(self, texts: pa.Array, rest: Flags, found: Floats) -> Flags:
        """Read numbers with a decimal comma that are in range; return which cells these were."""
        values = numbers_with_comma(texts)
        fits = rest & ~np.isin(values, self._codes)
        fits[fits] = self._fits(values[fits] * self._factor)
        count, reading = int(fits.sum()), self._reading
        found[fits] = values[fits] * self._factor
        reading.understood += count
        if count:
            reading.mapped[_COMMA_BEFORE] += count
        if count and self._factor != 1.0:
            reading.mapped[_converted(_OWN_UNIT, self._variable.unit)] += count
        return fits

    def _by_spelling(self, texts: pa.Array, rest: Flags, first: int, found: Floats) -> None:
        """Read the cells that are no plain numbers, each spelling once."""
        apart = spellings(texts, rest)
        values, signs = np.full(len(apart.words), np.nan), np.zeros(len(apart.words), dtype="<U1")
        for place, (word, count) in enumerate(apart.counted()):
            stripped = word.strip()
            signs[place] = "" if self._sign else self._in_doubt(stripped)
            if signs[place]:
                held = self._held[str(signs[place])]
                values[place] = self._read(word, count, held.read, str(signs[place]))
                if plain(word) in self._missing:
                    held.refused.missing += count
                else:
                    held.refused.refuse(_EITHER, word, count)
            else:
                values[place] = self._read(word, count, self._reading, self._sign)
        found[apart.rows] = values[apart.codes]
        for sign, held in self._held.items():
            which = np.zeros(len(found), dtype=np.bool_)
            which[apart.rows] = (signs == sign)[apart.codes] & ~np.isnan(values)[apart.codes]
            held.add(first, which)

    def _read(self, text: str, count: int, reading: Reading, sign: str) -> float:
        """Return what one spelling means if ``sign`` parts decimals, and count its cells."""
        stripped = text.strip()
        if plain(text) in self._missing:
            reading.missing += count
            return math.nan
        written = _SIGNED.fullmatch(stripped)
        if written is None or not any(map(str.isdigit, written[1])):
            reading.refuse(_NO_NUMBER, text, count)
            return math.nan
        number, unit = written[1] + (written[2] or ""), (written[3] or "").strip()
        if not self._knows(unit):
            reading.refuse(_UNKNOWN_UNIT, text, count)
            return math.nan
        candidate = _with_points(number, sign)
        if not _NUMBER.fullmatch(candidate):
            reading.refuse(_EITHER, text, count)
            return math.nan
        value = float(candidate)
        if not unit and value in self._codes:
            reading.missing += count
            return math.nan
        factor = unit_factor(self._variable, unit) if unit else self._factor
        problem = self._problem(value, factor)
        if problem:
            reading.refuse(problem, text, count)
            return math.nan
        reading.understood += count
        if candidate != number:
            reading.mapped[_COMMA_BEFORE if sign == "," else _COMMAS_BETWEEN] += count
        if factor != 1.0:
            reading.mapped[_converted(unit or _OWN_UNIT, self._variable.unit)] += count
        return value * factor

    def _bounded(self, values: Floats, reading: Reading) -> Floats:
        """Return plain numbers in the variable's unit, NaN where missing or refused, and count them."""
        converted, missing = values * self._factor, np.isnan(values)
        if len(self._codes):
            missing |= np.isin(values, self._codes)
        fits = ~missing & self._fits(converted)
        outside, counts = np.unique(values[~missing & ~fits], return_counts=True)
        for value, count in zip(outside.tolist(), counts.tolist(), strict=True):
            reading.refuse(self._problem(value, self._factor), number_text(value), count)
        understood = int(fits.sum())
        reading.missing += int(missing.sum())
        reading.understood += understood
        if self._factor != 1.0 and understood:
            reading.mapped[_converted(_OWN_UNIT, self._variable.unit)] += understood
        return np.where(fits, converted, np.nan)

    def _fits(self, converted: Floats) -> Flags:
        fits = (converted >= self._variable.low) & (converted <= self._variable.high)
        return fits & (converted == np.round(converted)) if self._variable.whole else fits

    def _problem(self, value: float, factor: float) -> str:
        variable, converted = self._variable, value * factor
        if not variable.low <= converted <= variable.high:  # NaN and infinities too
            hints = [u for u, f in variable.units.items() if variable.low <= value * f <= variable.high]
            outside = _outside(variable)
            return say("{outside}; as {unit} it would fit", outside=outside, unit=hints[0]) if hints else outside
        return _NOT_WHOLE if variable.whole and converted != round(converted) else ""


def unit_factor(variable: Number, unit: str) -> float:
    """Return the factor from a unit to the variable's own; an empty unit is the variable's own.

    Raises:
        KeyError: the schema knows no such unit for this variable.
    """
    known = {plain(variable.unit): 1.0} | {plain(name): factor for name, factor in variable.units.items()}
    return known[plain(unit)] if unit else 1.0


def _with_points(stripped: str, sign: str) -> str:
    """Return a number's text with a point before its decimals; what is in doubt keeps a comma, or two points."""
    if sign == ",":
        if _BOTH_COMMA.match(stripped):
            return stripped.replace(".", "").replace(",", ".", 1)
        return stripped.replace(".", ",") if "." in stripped else stripped.replace(",", ".", 1)
    if sign == "." and _BOTH_POINT.match(stripped):
        return stripped.replace(",", "")
    return stripped


def _beside(reading: Reading) -> Reading:
    return Reading(column=reading.column, variable=reading.variable)


def _code(word: str) -> float | None:
    """Return the number that a word for missing is, None where it is none."""
    return float(word) if _NUMBER.fullmatch(word.strip()) else None


def _converted(unit: str, own: str) -> str:
    return say("converted from {unit} to {own}", unit=unit, own=own)


def _outside(variable: Number) -> str:
    if not variable.unit:
        return say("outside {low:g} to {high:g}", low=variable.low, high=variable.high)
    return say("outside {low:g} to {high:g} {unit}", low=variable.low, high=variable.high, unit=variable.unit)
