"""The words of a pathologic stage: which of I, II, III and IV each stands for, and which say that there is none.

>>> stage_word("Stage IIIC1"), stage_word("2b"), stage_word("Stage X"), stage_word("late")
('III', 'II', '', None)
"""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd

from datasites.study.schema.variables import MISSING, plain
from datasites.study.text import visible
from privacy.errors import InvalidInput

STAGES = {"I": 0, "II": 1, "III": 2, "IV": 3}
REFUSE_ABOVE = 0.05
"""Tables of which a larger share of the values of a column is not understood are refused."""

_NUMERALS = {"1": "I", "2": "II", "3": "III", "4": "IV"}
_STAGE = re.compile(
    r"(?:(?:ajcc|figo|pathologic|pathological)[\s_-]+)?(?:stage[\s:_-]*)?"
    r"(iv|iii|ii|i|[1-4](?=\.0*$|[^.]|$))(?:\.0*)?"
    r"(?:[\s_-]?[abcds](?:[\s_-]?[1-3](?:\s?\(?i{1,3}\)?)?)?)?"
)
_WITHOUT = MISSING | {
    *("stage x", "x", "stage 0", "stage 0is", "0is", "stage tis", "tis", "is", "in situ", "stage is in situ", "0a"),
    *("stage 0a", "not staged", "unstaged", "no stage", "stage unknown", "unknown stage", "i/ii nos", "stage i/ii nos"),
    *("i or ii nos", "indeterminate", "not allowed to collect", "ungraded"),
}
_SHOWN = 5


def stage_word(text: object) -> str | None:
    """Return I, II, III or IV; an empty text for words that say there is none; None for what is not understood.

    Letters and numbers of sub-stages do not count. A bare ``0`` is not understood: it may be stage 0, or the first of
    numbers that count from 0.
    """
    word = "" if text is None else plain(str(text))
    found = _STAGE.fullmatch(word)
    if found is not None:
        numeral = found.group(1)
        return _NUMERALS.get(numeral, numeral.upper())
    return "" if word in _WITHOUT else None


def stage_of(text: object) -> str | None:
    """Return I, II, III or IV of ``Stage IIA`` and the like, None for anything else (``Stage X``, ``Stage 0``)."""
    return stage_word(text) or None


def read_stages(cells: pd.Series, *, where: str) -> tuple[pd.Series, list[str]]:
    """Return the stages (None: without one) and what to say of the cells that have none.

    Raises:
        InvalidInput: more than :data:`REFUSE_ABOVE` of the words are not understood; the message shows them.
    """
    words = [str(cell).strip() for cell in cells.astype(object).where(cells.notna(), "")]
    found = [stage_word(word) for word in words]
    strange = Counter(word for word, stage in zip(words, found, strict=True) if stage is None)
    given = sum(plain(word) not in MISSING for word in words)
    notes = []
    if strange:
        shown = ", ".join(f"{visible(word)[:40]!r} ({count})" for word, count in strange.most_common(_SHOWN))
        line = f"{where}: {sum(strange.values())} of {given} stages were not understood: {shown}"
        if sum(strange.values()) > REFUSE_ABOVE * given:
            raise InvalidInput(f"{line}; expected I, II, III or IV, such as 'Stage IIA', 'IIA' or '2'")
        notes.append(f"{line}; these cases have no stage")
    without = Counter(word for word, stage in zip(words, found, strict=True) if stage == "" and _told(word))
    if without:
        shown = ", ".join(f"{visible(word)[:40]!r} ({count})" for word, count in without.most_common(_SHOWN))
        notes.append(f"{where}: {sum(without.values())} cases have a word that is no stage I to IV: {shown}")
    return pd.Series([stage or None for stage in found], index=cells.index, dtype=object), notes


def _told(word: str) -> bool:
    return plain(word) not in MISSING
