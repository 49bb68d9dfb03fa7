"""Write a privacy report as a web page, as PDF and as JSON with its schema.

Also here:

* The report ready for a template: every figure with its sentence, every time in words.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.report import words
from datasites.report.facts import Epsilon, Report, to_json
from datasites.report.figures import Picture, pictures
from datasites.study.signing import parse

_TIMES = {"at", "made", "last_entry"}


def presentable(report: Report) -> dict[str, Any]:
    """Return the report as nested dictionaries of text and numbers.

    Each :class:`Epsilon` gains ``text`` (``ε 3.21``) and ``fine`` (delta, adjacency, accountant, against whom); times
    are written out.
    """
    shown: dict[str, Any] = _present(report)
    return shown


def _present(value: Any, name: str = "") -> Any:
    if isinstance(value, Epsilon):
        return {
            **dataclasses.asdict(value),
            "text": f"ε {words.number(value.value)}",
            "fine": _fine(value),
            **_cells(value),
        }
    if dataclasses.is_dataclass(value):
        return {field.name: _present(getattr(value, field.name), field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_present(item) for item in value]
    if isinstance(value, str) and name in _TIMES:
        return _time(value)
    return value


def _fine(epsilon: Epsilon) -> str:
    return f"at δ {words.small(epsilon.delta)}; {epsilon.adjacency}; by {epsilon.accountant}; against {epsilon.against}"


def _cells(epsilon: Epsilon) -> dict[str, str]:
    return {"number": words.number(epsilon.value), "small": words.small(epsilon.delta)}


def _time(text: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except ValueError:
        return text
    return f"{moment:%d %B %Y, %H:%M} UTC".lstrip("0")


TEMPLATES = Path(__file__).parent / "templates"
NAME = "privacy-report"


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
    images = {
        picture.name: {
            "data": base64.b64encode(picture.svg).decode(),
            "caption": picture.caption,
            "alternative": picture.alternative,
        }
        for picture in (pictures(report.populations, report.studies) if drawn is None else drawn)
    }
    write_atomically(path, _page().render(report=presentable(report), pictures=images).encode())


def write_json(report: Report, path: Path) -> None:
    """Write the facts themselves, in the form of ``docs/schemas/privacy-report.schema.json``."""
    write_atomically(path, json.dumps(to_json(report), indent=2, allow_nan=False).encode())


def write_pdf(report: Report, path: Path, drawn: Sequence[Picture] | None = None) -> None:
    """Write an accessible PDF (tagged, PDF/UA-1) with typst; the report's time is the document's."""
    import typst

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shown = pictures(report.populations, report.studies) if drawn is None else drawn
        for picture in shown:
            (folder / picture.name).write_bytes(picture.svg)
        captions = {p.name: {"caption": p.caption, "alternative": p.alternative} for p in shown}
        view = {"report": presentable(report), "pictures": captions}
        (folder / "view.json").write_text(json.dumps(view, allow_nan=False))
        (folder / "report.typ").write_bytes((TEMPLATES / "report.typ").read_bytes())
        document: bytes = typst.compile(
            str(folder / "report.typ"), root=str(folder), format="pdf", pdf_standards=["ua-1"]
        )
    write_atomically(path, document)


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


@lru_cache(maxsize=1)
def _page() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"number": words.number, "small": words.small}
    template = environment.get_template("report.html")
    template.globals["css"] = _safe((TEMPLATES / "report.css").read_text())
    return template


def _safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704, our own style sheet
