"""Look up translations. The catalogues are text (GNU gettext ``.po``), compiled by Babel when first needed."""

from __future__ import annotations

import gettext
import io
import string
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.errors import InvalidInput
from privacy.sentences import Sentence

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

LANGUAGES = {"en": "English", "de": "Deutsch", "fr": "Français"}
"""Every language by its code, with its name in itself; the first is the language of the code."""
LOCALES = {"en": "en_GB", "de": "de_DE", "fr": "fr_FR"}
"""How numbers and dates of each language are written."""
DEFAULT = "en"
_language: ContextVar[str] = ContextVar("language", default=DEFAULT)


def current() -> str:
    """Return the code of the language that is spoken now."""
    return _language.get()


def check_language(language: str) -> None:
    """Refuse a language that is not in :data:`LANGUAGES`.

    Raises:
        InvalidInput: with the languages that there are.
    """
    if language not in LANGUAGES:
        raise InvalidInput(f"expected a language of {', '.join(LANGUAGES)}, got {language[:20]!r}")


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Speak a language inside the block.

    Raises:
        InvalidInput: a language that is not in :data:`LANGUAGES`.
    """
    check_language(language)
    token = _language.set(language)
    try:
        yield
    finally:
        _language.reset(token)


def negotiate(accepted: str) -> str:
    """Return the best of our languages for a browser's ``Accept-Language``; English when none fits.

    >>> negotiate("fr-CH, fr;q=0.9, en;q=0.8")
    'fr'
    """
    wanted = []
    for part in accepted[:500].split(","):
        code, _, weight = part.partition(";")
        try:
            quality = float(weight.partition("=")[2] or 1.0) if weight else 1.0
        except ValueError:
            continue
        wanted.append((quality, code.strip().lower().partition("-")[0]))
    wanted.sort(key=lambda item: -item[0])
    return next((code for quality, code in wanted if code in LANGUAGES and quality > 0), DEFAULT)


def tr(message: str, /, **values: object) -> str:
    """Return a message in the language that is spoken, with ``{name}`` filled from ``values``.

    >>> tr("{count} of {total}", count=3, total=4)
    '3 of 4'
    """
    text = _translations(_language.get()).gettext(message) if message else ""
    return text.format_map(_spoken(values)) if values else text


def tr_plural(one: str, many: str, count: int, /, **values: object) -> str:
    """Return the form of a message that fits ``count``, which fills ``{count}``.

    >>> tr_plural("{count} round", "{count} rounds", 1)
    '1 round'
    """
    text = _translations(_language.get()).ngettext(one, many, count)
    return text.format_map({"count": count, **_spoken(values)})


def _spoken(values: dict[str, object]) -> dict[str, object]:
    return {name: spoken(value) if isinstance(value, Sentence) else value for name, value in values.items()}


def spoken(text: str) -> str:
    """Return a text in the language that is spoken: a :class:`~privacy.sentences.Sentence`, or any other as it is.

    What fills a sentence is said in the same language: sentences within it, and its numbers.
    """
    if not isinstance(text, Sentence):
        return text
    known = _translations(_language.get())
    found = known.ngettext(text.message, text.many, text.values["count"]) if text.many else known.gettext(text.message)
    return _Filling().vformat(found, (), text.values) if text.values else found


class _Filling(string.Formatter):
    """Fills the gaps of a sentence in the language that is spoken."""

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        """Return what fills one gap."""
        value = super().get_value(key, args, kwargs)
        return value() if callable(value) else value

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return it as text, a number as the language writes it."""
        if isinstance(value, str):
            return format(spoken(value), format_spec)
        text = str(format(value, format_spec))
        return localised(text) if isinstance(value, (int, float)) and not isinstance(value, bool) else text


def localised(text: str) -> str:
    """Return a number that Python wrote, as the language that is spoken writes it; text that is none as it is."""
    if _language.get() == DEFAULT:
        return text
    from babel.numbers import format_decimal

    whole, _, part = text.replace(",", "").partition(".")
    if not (whole.lstrip("-").isdigit() and (part.isdigit() or not part)):
        return text
    pattern = "#,##0" + ("." + "0" * len(part) if part else "")
    return format_decimal(float(f"{whole}.{part or 0}"), format=pattern, locale=LOCALES[_language.get()])


def mark(message: str) -> str:
    """Return ``message`` itself: it is looked up later, with :func:`tr`."""
    return message


def read_catalog(language: str) -> Catalog:
    """Return the translations of a language as they are in the package."""
    from babel.messages.pofile import read_po

    with (Path(__file__).parent / f"{language}.po").open("rb") as file:
        return read_po(file, locale=language)


@lru_cache(maxsize=len(LANGUAGES))
def _translations(language: str) -> gettext.NullTranslations:
    if language == DEFAULT:
        return gettext.NullTranslations()
    from babel.messages.mofile import write_mo

    catalog = read_catalog(language)
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
