"""Every sentence is translated, none is fuzzy, and no template shows one that is not marked."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message

from datasites.language.catalog import LANGUAGES
from datasites.language.messages import ROOT, collected, read

OTHERS = [code for code in LANGUAGES if code != "en"]
HTML = sorted(p for r in ("datasites", "orchestrator") for p in (ROOT / r).rglob("*.html"))
TYPST = sorted(p for r in ("datasites", "orchestrator") for p in (ROOT / r).rglob("*.typ"))
SAME_EVERYWHERE = {"Tessera", "AUROC", "JSON", "PDF", "ε", "δ", "API", "CSV", "UTC", "SHA"}


@pytest.fixture(scope="module")
def source() -> Catalog:
    return collected()


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_is_translated_and_nothing_else_is_in_the_catalogue(source: Catalog, language: str) -> None:
    catalog = read(language)
    found = {m.id: m for m in catalog if m.id}
    assert set(found) == {m.id for m in source if m.id}, "run python -m datasites.language.messages"
    missing = [m.id for m in found.values() if not all(forms(m))]
    assert missing == [], f"translate these in {language}.po"
    assert [m.id for m in found.values() if m.fuzzy] == []
    assert catalog.obsolete == {}


def test_babel_finds_every_sentence_of_the_code(source: Catalog) -> None:
    """Babel overlooks a sentence inside the call of another one; such a sentence needs a line of its own."""
    known = {m.id[0] if isinstance(m.id, tuple) else m.id for m in source if m.id}
    overlooked = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("datasites", "orchestrator", "privacy")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("tr", "mark", "say", "tr_plural", "say_plural")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value not in known
    ]
    assert overlooked == []


def forms(message: Message) -> tuple[str, ...]:
    return tuple(message.string) if isinstance(message.string, (list, tuple)) else (message.string,)


def names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_fills_in_what_its_sentence_does(language: str) -> None:
    catalog = read(language)
    for message in catalog:
        if not message.id:
            continue
        many = message.id[-1] if isinstance(message.id, tuple) else message.id
        assert len(forms(message)) == (catalog.num_plurals if isinstance(message.id, tuple) else 1)
        for form in forms(message):
            assert names(form) - {"count"} == names(many) - {"count"}, message.id


class Text(HTMLParser):
    """Collects what a template shows as it stands: texts and the attributes that people read or hear."""

    READ = frozenset({"alt", "title", "aria-label", "placeholder", "content"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.shown: list[str] = []
        self.skip = 0
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skip += tag in ("script", "style", "code", "svg")
        named = dict(attrs)
        if named.get("name") not in ("viewport", "generator") and "http-equiv" not in named:
            self.shown += [value for name, value in attrs if name in self.READ and value]

    def handle_endtag(self, tag: str) -> None:
        self.skip -= tag in ("script", "style", "code", "svg")

    def handle_data(self, data: str) -> None:
        if not self.skip:
            self.shown.append(data)


def words(text: str) -> Iterator[str]:
    address = text.strip().startswith("/")
    return (word for word in re.findall(r"[^\W\d_]{2,}", text) if word not in SAME_EVERYWHERE and not address)


@pytest.mark.parametrize("path", HTML, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_page_shows_a_sentence_that_is_not_marked(path: Path) -> None:
    plain = re.sub(r"\{#.*?#\}|\{\{.*?\}\}|\{%.*?%\}", " ", path.read_text(), flags=re.DOTALL)
    assert [text.strip() for text in Text(plain).shown if any(words(text))] == []


@pytest.mark.parametrize("path", TYPST, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_pdf_shows_a_sentence_that_is_not_marked(path: Path) -> None:
    source = re.sub(r"^\s*//.*$|//(?!\w).*$", "", path.read_text(), flags=re.MULTILINE)
    source = re.sub(r'\bt\("(?:[^"\\]|\\.)*"', "t(", source)
    literals = re.findall(r'"([^"]*)"', source)
    sentences = [text for text in literals if re.search(r"[^\W\d_] [^\W\d_]|^[A-Z][a-z]+$", text)]
    assert set(sentences) <= {"DejaVu Sans Mono"}
    written = re.sub(r'"[^"]*"', "", source)
    assert re.findall(r"[\]\[] ?[A-Z][a-z]+ [a-z]+[^\n\](]*\]", written) == []
