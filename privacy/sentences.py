"""Sentences in English that know how they were made, so that a page can say them in its reader's language.

An error is raised deep below any page, and is journaled, logged and answered in English. :func:`say` gives it a text
that is English everywhere and still holds the sentence with its gaps and what fills them: a page looks the sentence up
in its catalogue (``datasites.language.spoken``) and fills the gaps anew.

    >>> text = say("{spent:g} of {cap:g} is spent", spent=0.5, cap=8.0)
    >>> text, text.message
    ('0.5 of 8 is spent', '{spent:g} of {cap:g} is spent')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class Sentence(str):
    """An English text, and the sentence it was filled from; use :func:`say` to make one.

    Attributes:
        message: the sentence with ``{gaps}``.
        many: the sentence for more than one, or empty where there is no plural.
        values: what fills the gaps; a function is called when the sentence is said, in the language it is said in.
    """

    __slots__ = ("many", "message", "values")
    message: str
    many: str
    values: Mapping[str, Any]

    def __new__(cls, text: str, message: str = "", many: str = "", values: Mapping[str, Any] | None = None) -> Sentence:
        """Return ``text``, which is ``message`` filled with ``values``."""
        made = super().__new__(cls, text)
        made.message, made.many, made.values = message or text, many, values or {}
        return made


def say(message: str, /, **values: Any) -> Sentence:
    """Return a sentence whose gaps are filled.

    Args:
        message: in English, with gaps as :meth:`str.format` knows them.
        values: what fills them: text, numbers, other sentences, or functions that return one of these.
    """
    return Sentence(_filled(message, values), message, values=values)


def say_plural(one: str, many: str, count: int, /, **values: Any) -> Sentence:
    """Return the form of a sentence that fits ``count``, which fills ``{count}``.

    >>> say_plural("{count} round", "{count} rounds", 2)
    '2 rounds'
    """
    values = {"count": count, **values}
    return Sentence(_filled(one if count == 1 else many, values), one, many, values)


def joined(parts: Iterable[str], by: str = "; ") -> Sentence:
    """Return sentences one after the other, each still able to be said in another language."""
    values = {f"part{number}": part for number, part in enumerate(parts)}
    return Sentence(by.join(values.values()), by.join(f"{{{name}}}" for name in values), values=values)


def sentence_of(error: BaseException) -> str:
    """Return what an error says, still able to be said in another language (``str`` of an error is English alone)."""
    first = error.args[0] if error.args else ""
    return first if isinstance(first, Sentence) and len(error.args) == 1 else str(error)


def _filled(message: str, values: Mapping[str, Any]) -> str:
    return message.format_map({name: _value(value) for name, value in values.items()}) if values else message


def _value(value: Any) -> Any:
    return value() if callable(value) else value
