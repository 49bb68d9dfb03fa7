"""Sentences that were stored in English, such as the reason in a ledger's entry, said in another language.

What is journaled or signed is English text for ever. A page looks for the sentence of the catalogue that such a text
was filled from, and says that one. A text that people wrote is none of them and stays as it is.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from functools import lru_cache

from datasites.language.catalog import DEFAULT, LANGUAGES, read_catalog, spoken
from privacy.sentences import Sentence

_LONGEST = 1000
_LEAST_LETTERS = 8


def told(text: str) -> str:
    """Return a stored English text so that it can be said in another language, or as it is where nothing is known.

    >>> told("the worker failed in rounds 1, 2: the study has ended here").message
    'the worker failed in rounds {rounds}: the study has ended here'
    """
    if isinstance(text, Sentence) or not isinstance(text, str) or len(text) > _LONGEST:
        return text
    return _told(text)


def retold(text: str) -> str:
    """Return a stored English text in the language that is spoken, where the catalogue knows it; see :func:`told`."""
    return spoken(told(text))


@lru_cache(maxsize=4096)
def _told(text: str) -> str:
    plain, patterns = _known()
    if text in plain:
        return Sentence(text)
    for pattern, message in patterns:
        match = pattern.fullmatch(text)
        if match:
            return Sentence(text, message, values={name: _Part(told(part)) for name, part in match.groupdict().items()})
    return text


class _Part(str):
    """What filled a gap: text already, whatever format the gap asks for."""

    __slots__ = ("said",)
    said: str

    def __new__(cls, text: str) -> _Part:
        made = super().__new__(cls, text)
        made.said = text
        return made

    def __format__(self, _: str) -> str:
        return spoken(self.said)

    def __repr__(self) -> str:
        return str(self)


@lru_cache(maxsize=1)
def _known() -> tuple[frozenset[str], tuple[tuple[re.Pattern[str], str], ...]]:
    """Return the sentences without gaps, and a pattern for each with gaps, those with the most text first."""
    language = next(code for code in LANGUAGES if code != DEFAULT)
    messages = [m.id for m in read_catalog(language) if isinstance(m.id, str) and m.id]
    found = [(_pattern(message), message) for message in messages if "{" in message]
    with_text = [(made, message) for made, message in found if made is not None]
    with_text.sort(key=lambda item: -sum(len(text) for text, *_ in string.Formatter().parse(item[1])))
    return frozenset(m for m in messages if "{" not in m), tuple(with_text)


def _pattern(message: str) -> re.Pattern[str] | None:
    letters = sum(len(text) for text, *_ in string.Formatter().parse(message))
    return re.compile("".join(_parts(message)), re.DOTALL) if letters >= _LEAST_LETTERS else None


def _parts(message: str) -> Iterator[str]:
    seen: set[str] = set()
    for text, name, _, _ in string.Formatter().parse(message):
        yield re.escape(text)
        if name:
            yield f"(?P={name})" if name in seen else f"(?P<{name}>.+?)"
            seen.add(name)
