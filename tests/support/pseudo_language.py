"""A made-up language for tests: whatever a catalogue could translate stands in ⟦brackets⟧, anything else does not.

What fills a gap of a sentence stays outside the brackets unless it is a sentence itself, so an English fragment inside
a translated sentence is found as well.
"""

from __future__ import annotations

import calendar
import gettext
import re
import string
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

import pytest

from datasites.language import catalog

CODE = "xx"
# names of things that are the same everywhere, and what Babel writes, which knows nothing of the made-up language
SAME = {"Tessera", "AUROC", "JSON", "PDF", "CSV", "API", "UTC", "SHA", "CKKS", "PLD", "RDP", "MiB", "MB", "Opacus"}
BABEL = {"and", *calendar.month_name, *calendar.month_abbr}


class Bracketed(gettext.NullTranslations):
    """Translates every sentence into itself, in brackets."""

    def gettext(self, message: str) -> str:
        return bracketed(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return bracketed(msgid1 if n == 1 else msgid2)


def bracketed(message: str) -> str:
    """Return ``⟦every ⟧{part}⟦ of a message⟧`` that is no gap in brackets."""
    made = []
    for text, name, spec, conversion in string.Formatter().parse(message):
        if text:
            made.append(f"⟦{text.replace('{', '{{').replace('}', '}}')}⟧")
        if name is not None:
            made.append("{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}")
    return "".join(made)


@pytest.fixture
def made_up(monkeypatch) -> str:
    """The code of the made-up language, which pages and reports can be asked for while the test runs."""
    known = catalog._translations
    monkeypatch.setitem(catalog.LANGUAGES, CODE, "⟦Made up⟧")
    monkeypatch.setitem(catalog.LOCALES, CODE, "en_GB")
    monkeypatch.setattr(catalog, "_translations", lambda code: Bracketed() if code == CODE else known(code))
    return CODE


class Shown(HTMLParser):
    """Every text of a page that people read or hear, but for code, logs and hashes."""

    READ = frozenset({"alt", "title", "aria-label", "placeholder"})
    SKIPPED = frozenset({"script", "style", "code", "pre", "time"})
    VOID = frozenset({"meta", "link", "input", "br", "hr", "img", "rect", "line", "path", "circle"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self._open: list[bool] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        hidden = tag in self.SKIPPED or {"hash", "code"} & set((named.get("class") or "").split())
        if tag not in self.VOID:
            self._open.append(bool(hidden))
        self.texts += [value for name, value in attrs if name in self.READ and value]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not any(self._open) and data.strip():
            self.texts.append(data.strip())


def unmarked(page: str, data: Iterable[str]) -> Iterator[str]:
    """Yield every text of a page with a word outside brackets that is not in ``data``, which people or files brought.

    Args:
        page: HTML, asked for in the made-up language.
        data: texts that stand on the page as they are.
    """
    longest = sorted({text for text in data if text}, key=len, reverse=True)
    for text in Shown(page).texts:
        rest = re.sub("⟦[^⟧]*⟧|[0-9a-f]{12,}", " ", text)
        for known in longest:
            rest = rest.replace(known, " ")
        words = [word for word in re.findall(r"[^\W\d_]{2,}", rest) if word not in SAME and word not in BABEL]
        if words:
            yield text


def texts_in(value: object) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_in(item)
