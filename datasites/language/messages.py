"""Collect the sentences of code and templates, and bring the catalogues up to date.

``python -m datasites.language.messages`` adds new sentences to ``de.po`` and ``fr.po``, without a translation, and
takes out what nothing shows any more. Translations are never guessed from similar sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import write_po

from datasites.language.catalog import DEFAULT, LANGUAGES, read_catalog

ROOT = Path(__file__).parents[2]
_PACKAGES = ("datasites", "orchestrator", "privacy")
_KEYWORDS = {"tr": None, "mark": None, "tr_plural": (1, 2), "say": None, "say_plural": (1, 2)}
_TYPST = re.compile(r'\bt\("((?:[^"\\]|\\.)*)"')
_HEADER = {
    "header_comment": "# Tessera's sentences in another language; written by `python -m datasites.language.messages`.",
    "project": "Tessera",
    "version": "0.1",
    "copyright_holder": "The Tessera authors",
    "msgid_bugs_address": "see SECURITY.md",
    "last_translator": "The Tessera authors",
    "language_team": "The Tessera authors",
}
Message = str | tuple[str, ...]


def typst_messages(source: str) -> tuple[str, ...]:
    """Return the sentences of a typst template, which it shows with ``t("...")``."""
    return tuple(match.replace('\\"', '"') for match in _TYPST.findall(source))


def messages(root: Path = ROOT) -> Iterator[tuple[str, int, Message]]:
    """Yield file, line and sentence of everything that code and templates can show; a pair has a plural."""
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix == ".typ":
                yield from ((name, 1, message) for message in typst_messages(path.read_text()))
            elif path.suffix in (".py", ".html"):
                method = "python" if path.suffix == ".py" else "jinja2.ext:babel_extract"
                options = {} if path.suffix == ".py" else {"trimmed": "true", "silent": "false"}
                with path.open("rb") as file:
                    for line, found, _, _ in extract(method, file, keywords=_KEYWORDS, options=options):
                        yield name, line, found


def collected(root: Path = ROOT) -> Catalog:
    """Return a catalogue of every sentence, without translations."""
    catalog = Catalog(project="Tessera", fuzzy=False)
    for name, _, message in messages(root):
        catalog.add(message, locations=[(name, 0)])
    return catalog


def read(language: str) -> Catalog:
    """Return the translations of a language as they are in the package."""
    return read_catalog(language)


def update() -> None:
    """Write every catalogue anew, with the sentences of now and the translations it has."""
    template = collected()
    for language in LANGUAGES:
        if language == DEFAULT:
            continue
        path = Path(__file__).parent / f"{language}.po"
        known = read(language) if path.exists() else Catalog(locale=language)
        fresh = Catalog(locale=language, fuzzy=False, creation_date=known.creation_date, **_HEADER)
        for message in template:
            if message.id:
                before = known.get(message.id)
                fresh.add(message.id, before.string if before is not None else None, locations=message.locations)
        with path.open("wb") as file:
            write_po(file, fresh, width=120, include_lineno=False, sort_by_file=True, omit_header=False)


if __name__ == "__main__":
    update()
