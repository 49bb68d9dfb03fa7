"""The privacy report as a web page, as a PDF, and as JSON with its schema.

Page and PDF show the same view of the report (:func:`datasites.report.shown.presentable`) in the report's language:
every figure with the sentence that says what it means, and every time in words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasites.language import speaking
from datasites.node.files import write_atomically
from datasites.node.web.charts import Picture
from datasites.node.web.documents import inlined, render_page, render_pdf
from datasites.report.facts import Report, to_json
from datasites.report.figures import pictures
from datasites.report.shown import presentable
from datasites.study.signing import parse

NAME = "privacy-report"
Sign = Callable[[bytes], bytes]
_TEMPLATES = Path(__file__).parent / "templates"


def write_all(report: Report, folder: Path, *, sign: Sign | None = None) -> tuple[Path, ...]:
    """Write the report's web page, PDF and JSON into ``folder``; return their paths.

    They are called ``privacy-report.html``, ``.pdf`` and ``.json``, and ``privacy-report.de.html`` in another
    language than English. The JSON waits for neither of the others. ``sign`` puts a signature on the PDF.
    """
    html, pdf = (_path(report, folder, suffix) for suffix in ("html", "pdf"))
    data = json_of(report, folder)
    with speaking(report.language):
        drawn = pictures(report.populations, report.studies)
    write_html(report, html, drawn)
    write_pdf(report, pdf, drawn, sign=sign)
    return html, pdf, data


def json_of(report: Report, folder: Path) -> Path:
    """Write the report's JSON alone into ``folder``, under its name there; return its path."""
    data = _path(report, folder, "json")
    write_json(report, data)
    return data


def _path(report: Report, folder: Path, suffix: str) -> Path:
    return folder / (f"{NAME}.{suffix}" if report.language == "en" else f"{NAME}.{report.language}.{suffix}")


def write_html(report: Report, path: Path, drawn: Sequence[Picture] | None = None) -> None:
    """Write one self-contained page: no script, no address outside it."""
    with speaking(report.language):
        shown = pictures(report.populations, report.studies) if drawn is None else drawn
        page = render_page(_TEMPLATES / "report.html", report=presentable(report), pictures=inlined(shown))
    write_atomically(path, page)


def write_pdf(report: Report, path: Path, drawn: Sequence[Picture] | None = None, *, sign: Sign | None = None) -> None:
    """Write an accessible PDF (tagged, PDF/UA-1), signed where ``sign`` is given."""
    with speaking(report.language):
        shown = pictures(report.populations, report.studies) if drawn is None else drawn
        document = render_pdf(_TEMPLATES / "report.typ", {"report": presentable(report)}, shown)
    write_atomically(path, sign(document) if sign else document)


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
