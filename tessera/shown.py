"""How objects show themselves: one line in a terminal, a small table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(title: str, rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
    """Return a table with a title; every text in it is escaped."""
    lines = [f"<table><caption>{escape(title)}</caption>"]
    if head:
        lines.append("<thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr></thead>")
    cells = ("".join(f"<td>{escape(_text(cell))}</td>" for cell in row) for row in rows)
    lines += [f"<tr>{row}</tr>" for row in cells]
    return "".join([*lines, "</table>"])


def _text(cell: object) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
