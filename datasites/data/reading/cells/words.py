"""Words of a category: each counts whole, as the schema or the hospital's mapping spells it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasites.data.reading.cells.columns import as_texts, is_text, spellings
from datasites.data.reading.cells.counting import Reading, shortened
from datasites.study.schema.variables import MISSING, Category, plain
from privacy.errors import InvalidInput
from privacy.sentences import say

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
_WHOLE = re.compile(r"(\d+)\.0+")
_NO_WORD = say("no word of the schema")


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
        import pandas as pd

        if is_text(cells):
            found = spellings(as_texts(cells))
            words, codes = found.words, found.codes
        else:
            codes, numbers = pd.factorize(cells.to_numpy(dtype=np.float64), use_na_sentinel=False)
            words = [number_text(value) for value in numbers]
        counts = np.bincount(codes, minlength=len(words)).tolist()
        of_word = np.array([self._code(word, n) for word, n in zip(words, counts, strict=True)] or [math.nan])
        return of_word[codes]

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
            reading.mapped[say("{spelling!r} is none of them", spelling=shortened(text.strip()))] += count
            return (len(self._variable.levels),)
        if None in found or not places:
            reading.refuse(_NO_WORD, text, count)
            return ()
        reading.understood += count
        names = [self._variable.levels[place].name for place in places]
        if sorted(parts) != sorted(map(plain, names)):
            levels = " + ".join(names)
            read_as = say("{spelling!r} is read as {levels}", spelling=shortened(text.strip()), levels=levels)
            reading.mapped[read_as] += count
        return places


def number_text(value: float) -> str:
    """Return the shortest spelling of a number, an empty text for NaN."""
    return "" if math.isnan(value) else f"{value:.15g}"
