"""The orchestrator's study report: who took part, what each round did, how good the model is, what it cost.

    >>> facts = study_facts(client.get_json("/studies/pilot"), metrics=metrics, sites=site_results)
    >>> html, data = write_study_report(facts, folder)

It is a self-contained web page, the same facts as JSON (``docs/schemas/study-report.schema.json``), and an accessible
PDF that shows what the page shows, ready to print. All are in the language of the facts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasites.language import speaking
from datasites.node.files import write_atomically
from datasites.node.web.documents import inlined, render_page, render_pdf
from datasites.study.signing import parse
from orchestrator.studies.facts import StudyFacts
from orchestrator.studies.figures import pictures
from orchestrator.studies.shown import shown

NAME = "study-report"
_TEMPLATES = Path(__file__).parent / "templates"


def write_study_report(facts: StudyFacts | Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write ``study-report.html`` and ``study-report.json`` into ``folder`` and return their paths.

    In another language than English they are called ``study-report.de.html`` and so on.

    Args:
        facts: as :func:`orchestrator.studies.facts.study_facts` collects them, or the same as plain JSON.
        folder: made when missing.

    Raises:
        InvalidInput: the plain JSON lacks a field, or has one that does not belong there.
    """
    known = facts if isinstance(facts, StudyFacts) else parse(StudyFacts, facts)
    html, data = (_path(known, folder, suffix) for suffix in ("html", "json"))
    write_atomically(data, json.dumps(dataclasses.asdict(known), indent=2, allow_nan=False).encode())
    with speaking(known.language):
        drawn = inlined(pictures(known))
        page = render_page(_TEMPLATES / f"{NAME}.html", view=shown(known), pictures=drawn)
    write_atomically(html, page)
    return html, data


def write_study_pdf(facts: StudyFacts, folder: Path, *, sign: Callable[[bytes], bytes] | None = None) -> Path:
    """Write ``study-report.pdf`` (tagged, PDF/UA-1), signed where ``sign`` is given, and return its path."""
    path = _path(facts, folder, "pdf")
    document = study_pdf(facts)
    write_atomically(path, sign(document) if sign else document)
    return path


def study_pdf(facts: StudyFacts) -> bytes:
    """Return the PDF, without a signature."""
    with speaking(facts.language):
        return render_pdf(_TEMPLATES / f"{NAME}.typ", {"report": shown(facts)}, pictures(facts))


def study_schema() -> dict[str, Any]:
    """Return the published JSON schema of the report."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(StudyFacts).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tessera study report", **schema}


def _path(facts: StudyFacts, folder: Path, suffix: str) -> Path:
    return folder / (f"{NAME}.{suffix}" if facts.language == "en" else f"{NAME}.{facts.language}.{suffix}")
