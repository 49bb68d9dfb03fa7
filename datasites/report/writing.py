"""The privacy report as a web page, as a PDF, and as JSON with its schema.

Page and PDF show the same view of the report (:func:`presentable`): every figure with the sentence that says what it
means, and every time in words.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.node.web.charts import Picture
from datasites.node.web.documents import inlined, render_page, render_pdf
from datasites.report.facts import Epsilon, Report, to_json
from datasites.report.figures import pictures
from datasites.study.signing import parse
from datasites.study.text import delta_text, epsilon_text

NAME = "privacy-report"
_TEMPLATES = Path(__file__).parent / "templates"
_TIMES = {"at", "made", "last_entry"}


def write_all(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write ``privacy-report.html``, ``.pdf`` and ``.json`` into ``folder``; return their paths."""
    drawn = pictures(report.populations, report.studies)
    html, pdf, data = (folder / f"{NAME}.{suffix}" for suffix in ("html", "pdf", "json"))
    write_html(report, html, drawn)
    write_pdf(report, pdf, drawn)
    write_json(report, data)
    return html, pdf, data


def write_html(report: Report, path: Path, drawn: Sequence[Picture] | None = None) -> None:
    """Write one self-contained page: no script, no address outside it."""
    shown = pictures(report.populations, report.studies) if drawn is None else drawn
    page = render_page(_TEMPLATES / "report.html", report=presentable(report), pictures=inlined(shown))
    write_atomically(path, page)


def write_pdf(report: Report, path: Path, drawn: Sequence[Picture] | None = None) -> None:
    """Write an accessible PDF (tagged, PDF/UA-1); the report's time is the document's."""
    shown = pictures(report.populations, report.studies) if drawn is None else drawn
    write_atomically(path, render_pdf(_TEMPLATES / "report.typ", {"report": presentable(report)}, shown))


def write_json(report: Report, path: Path) -> None:
    """Write the facts themselves, in the form of ``docs/schemas/privacy-report.schema.json``."""
    write_atomically(path, json.dumps(to_json(report), indent=2, allow_nan=False).encode())


def read_json(path: Path) -> Report:
    """Read a report back from its JSON; InvalidInput when it is not one."""
    return parse(Report, path.read_bytes())


def json_schema() -> dict[str, Any]:
    """Return the published JSON schema of the report."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Report).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tessera privacy budget audit report",
        **schema,
    }


def presentable(report: Report) -> dict[str, Any]:
    """Return the report as nested dictionaries of text and numbers.

    Each :class:`Epsilon` gains ``text`` (``ε 3.21``) and ``fine`` (delta, adjacency, accountant, against whom); times
    are written out.
    """
    shown: dict[str, Any] = _present(report)
    return shown


def _present(value: Any, name: str = "") -> Any:
    if isinstance(value, Epsilon):
        number, small = epsilon_text(value.value), delta_text(value.delta)
        fine = f"at δ {small}; {value.adjacency}; by {value.accountant}; against {value.against}"
        return {**dataclasses.asdict(value), "text": f"ε {number}", "fine": fine, "number": number, "small": small}
    if dataclasses.is_dataclass(value):
        return {field.name: _present(getattr(value, field.name), field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_present(item) for item in value]
    return _time(value) if isinstance(value, str) and name in _TIMES else value


def _time(text: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except ValueError:
        return text
    return f"{moment:%d %B %Y, %H:%M} UTC".lstrip("0")
