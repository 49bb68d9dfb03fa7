"""Pieces of a column as arrays of text, and the numbers among them: what is done to all cells of a piece at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_BLANKS = " \t\n\r\f\v"
_NUMBER = r"^[ \t\n\r\f\v]*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?[ \t\n\r\f\v]*$"
_WITH_COMMA = r"^[ \t\n\r\f\v]*[+-]?\d+,\d+([eE][+-]?\d+)?[ \t\n\r\f\v]*$"


def is_text(cells: pd.Series) -> bool:
    """Return whether cells are text and not numbers."""
    import pandas as pd

    return cells.dtype == object or pd.api.types.is_string_dtype(cells.dtype)


def as_texts(cells: pd.Series) -> pa.Array:
    """Return cells of text as an Arrow array without nulls; what Arrow holds already is not copied."""
    found = pa.array(cells.array, type=pa.string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def plain_numbers(texts: pa.Array) -> Floats:
    """Return the numbers among texts, float64 [cells], NaN where a text is no plain number.

    A plain number has ASCII digits, at most one decimal point, a sign and an exponent; blanks around it do not count.
    The value is the nearest float64, as ``float(text)`` gives it.
    """
    try:  # nearly every piece of a column of numbers: numbers and empty cells
        return _cast(pc.if_else(pc.equal(texts, ""), None, texts))
    except pa.ArrowInvalid:
        return _numbers_like(texts, _NUMBER)


def numbers_with_comma(texts: pa.Array) -> Floats:
    """Return the numbers among texts that have a comma before their decimals and no point, NaN where there is none."""
    return _numbers_like(texts, _WITH_COMMA)


def contains(texts: pa.Array, part: str) -> Flags:
    """Return which texts contain a part, bool [cells]."""
    return _flags(pc.match_substring(texts, part))


def like(texts: pa.Array, pattern: str) -> Flags:
    """Return which texts a pattern (RE2) is found in, bool [cells]."""
    return _flags(pc.match_substring_regex(texts, pattern))


@dataclass(frozen=True, kw_only=True)
class Spellings:
    """The different texts among some cells, in order of their first one: ``codes[i]`` is the text of ``rows[i]``."""

    words: list[str]
    codes: NDArray[np.int64]
    rows: NDArray[np.int64]

    def counted(self) -> Iterator[tuple[str, int]]:
        """Yield every text with the number of its cells."""
        counts = np.bincount(self.codes, minlength=len(self.words)).tolist()
        return zip(self.words, counts, strict=True)

    def firsts(self) -> Iterator[tuple[str, int]]:
        """Yield every text with its first cell."""
        _, first = np.unique(self.codes, return_index=True)
        return zip(self.words, self.rows[first].tolist(), strict=True)


def spellings(texts: pa.Array, which: Flags | None = None) -> Spellings:
    """Return the different texts among all cells, or among some."""
    rows = np.arange(len(texts)) if which is None else np.flatnonzero(which)
    encoded = (texts if which is None else texts.filter(pa.array(which))).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Spellings(words=encoded.dictionary.to_pylist(), codes=codes, rows=rows)


def _numbers_like(texts: pa.Array, pattern: str) -> Floats:
    fits = pc.match_substring_regex(texts, pattern)
    bare = pc.ascii_ltrim(pc.ascii_trim(texts, characters=_BLANKS), characters="+")
    return _cast(pc.if_else(fits, pc.replace_substring(bare, ",", "."), None))


def _cast(texts: pa.Array) -> Floats:
    values = pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def _flags(found: pa.Array) -> Flags:
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)
