"""Code as a reviewer reads it: highlighted files, and side-by-side differences between two versions."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

from datasites.language import mark, tr
from datasites.language.formats import listed, significant, whole

_LONGEST_TEXT = 200_000
_CONTEXT_LINES = 3
STATES = (mark("unchanged"), mark("changed"), mark("added"), mark("removed"))
Kind = Literal["same", "changed", "added", "removed", "gap"]


@dataclass(frozen=True, kw_only=True)
class CodeFile:
    """One file of a plan: its lines as safe HTML, numbered from 1 by their place."""

    name: str
    sha256: str
    lines: tuple[Markup, ...]


@dataclass(frozen=True, kw_only=True)
class DiffRow:
    """One row of a side-by-side comparison; a number is None where a side has no such line."""

    kind: Kind
    old_number: int | None
    old: str
    new_number: int | None
    new: str


@dataclass(frozen=True, kw_only=True)
class FileDiff:
    """The differences of one file; no rows when both versions are the same."""

    name: str
    state: Literal["unchanged", "changed", "added", "removed"]
    rows: tuple[DiffRow, ...]


def read_text(path: Path) -> str:
    """Return a file's text for reading, never more than a person could review."""
    try:
        return path.read_bytes()[:_LONGEST_TEXT].decode(errors="replace")
    except OSError:
        return ""


def code_file(folder: Path, name: str, sha256: str) -> CodeFile:
    """Return a file of a plan with its syntax highlighted."""
    return CodeFile(name=name, sha256=sha256, lines=_highlighted(name, read_text(folder / name)))


def code_diff(old: tuple[Path, Mapping[str, str]] | None, new: tuple[Path, Mapping[str, str]]) -> tuple[FileDiff, ...]:
    """Compare two code trees, each a folder and its files' hashes; ``old`` None means everything is new."""
    old_folder, old_code = old or (Path("/nonexistent"), {})
    new_folder, new_code = new
    found = []
    for name in sorted({*old_code, *new_code}):
        if old_code.get(name) == new_code.get(name):
            found.append(FileDiff(name=name, state="unchanged", rows=()))
            continue
        state: Literal["changed", "added", "removed"] = (
            "added" if name not in old_code else "removed" if name not in new_code else "changed"
        )
        before = read_text(old_folder / name) if name in old_code else ""
        after = read_text(new_folder / name) if name in new_code else ""
        found.append(FileDiff(name=name, state=state, rows=side_by_side(before, after)))
    return tuple(found)


def side_by_side(before: str, after: str) -> tuple[DiffRow, ...]:
    """Return the rows of two texts next to each other, long unchanged stretches shortened to a gap."""
    old, new = before.splitlines(), after.splitlines()
    rows: list[DiffRow] = []
    groups = list(difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_grouped_opcodes(_CONTEXT_LINES))
    for group in groups:
        if rows or group[0][1] > 0:
            rows.append(DiffRow(kind="gap", old_number=None, old="", new_number=None, new=""))
        for tag, i1, i2, j1, j2 in group:
            rows += _rows(tag, old, new, (i1, i2), (j1, j2))
    return tuple(rows)


def facts_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """Return every field of two proposals that differs, as (dotted name, before, now), each value as people read it.

    >>> facts_diff({"rounds": 5, "seed": None}, {"rounds": 8, "seed": None})
    (('rounds', '5', '8'),)
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    differing = (name for name in sorted({*before, *after}) if before.get(name) != after.get(name))
    rows = ((name, *_told_apart(before.get(name), after.get(name))) for name in differing)
    return tuple(row for row in rows if row[1] != row[2])


def _told_apart(before: Any, now: Any) -> tuple[str, str]:
    """Return two values as people read them, with all digits where fewer do not tell them apart."""
    texts = _readable(before), _readable(now)
    if texts[0] == texts[1] and isinstance(before, float) and isinstance(now, float):
        return significant(before, 17), significant(now, 17)
    return texts


def _readable(value: Any) -> str:
    """Return a value of a proposal as people read it: no code, no more digits than anybody compares."""
    if value is None or value in ("", [], (), {}):
        return tr("none")
    if isinstance(value, bool):
        return tr("yes") if value else tr("no")
    if isinstance(value, float):
        return significant(value, 6)
    if isinstance(value, int):
        return whole(value)
    if isinstance(value, (list, tuple)):
        return listed([_readable(item) for item in value])
    return str(value)


def _rows(tag: str, old: list[str], new: list[str], i: tuple[int, int], j: tuple[int, int]) -> Iterator[DiffRow]:
    kinds: dict[str, Kind] = {"equal": "same", "replace": "changed", "delete": "removed", "insert": "added"}
    for offset in range(max(i[1] - i[0], j[1] - j[0])):
        left = i[0] + offset if i[0] + offset < i[1] else None
        right = j[0] + offset if j[0] + offset < j[1] else None
        kind = kinds[tag]
        if kind == "changed" and (left is None or right is None):
            kind = "added" if left is None else "removed"
        yield DiffRow(
            kind=kind,
            old_number=None if left is None else left + 1,
            old="" if left is None else old[left],
            new_number=None if right is None else right + 1,
            new="" if right is None else new[right],
        )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
        for index, item in enumerate(value):
            yield from _flat(item, f"{prefix}.{item.get('name', index)}")
    else:
        yield prefix, None if value in ({}, None) else value


@lru_cache(maxsize=128)
def _highlighted(name: str, text: str) -> tuple[Markup, ...]:
    try:
        lexer = get_lexer_for_filename(name, stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    html: str = highlight(text, lexer, HtmlFormatter(nowrap=True))
    return tuple(Markup(line) for line in html.splitlines())  # noqa: S704 - pygments escapes
