"""Look up translations. The catalogues are text (GNU gettext ``.po``), compiled by Babel when first needed."""

from __future__ import annotations

import gettext
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from privacy.errors import InvalidInput

LANGUAGES = {"en": "English", "de": "Deutsch", "fr": "Français"}
"""Every language by its code, with its name in itself; the first is the language of the code."""
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
    return text.format_map(values) if values else text


def tr_plural(one: str, many: str, count: int, /, **values: object) -> str:
    """Return the form of a message that fits ``count``, which fills ``{count}``.

    >>> tr_plural("{count} round", "{count} rounds", 1)
    '1 round'
    """
    text = _translations(_language.get()).ngettext(one, many, count)
    return text.format_map({"count": count, **values})


def mark(message: str) -> str:
    """Return ``message`` itself: it is looked up later, with :func:`tr`."""
    return message


@lru_cache(maxsize=len(LANGUAGES))
def _translations(language: str) -> gettext.NullTranslations:
    if language == DEFAULT:
        return gettext.NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with (Path(__file__).parent / f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
