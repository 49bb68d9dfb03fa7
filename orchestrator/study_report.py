"""The orchestrator's study report: who took part, what each round did, how good the model is, what it cost.

    >>> facts = study_facts(client.get_json("/studies/pilot"), metrics=metrics, sites=site_results)
    >>> html, data = write_study_report(facts, folder)

A self-contained web page and the same facts as JSON (``docs/schemas/study-report.schema.json``); the PDF is in
:mod:`orchestrator.study_pdf`.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasites.contract import parse
from datasites.files import write_atomically
from datasites.report.words import number, small
from datasites.report.writing import TEMPLATES as STYLE
from orchestrator.study_facts import StudyFacts, study_facts
from orchestrator.study_figures import pictures

__all__ = ["study_facts", "study_schema", "totals", "write_study_report"]

NAME = "study-report"


def write_study_report(facts: StudyFacts | Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write ``study-report.html`` and ``study-report.json`` into ``folder`` and return their paths.

    Args:
        facts: as :func:`orchestrator.study_facts.study_facts` collects them, or the same as plain JSON.
        folder: made when missing.

    Raises:
        InvalidInput: the plain JSON lacks a field, or has one that does not belong there.
    """
    known = facts if isinstance(facts, StudyFacts) else parse(StudyFacts, facts)
    html, data = folder / f"{NAME}.html", folder / f"{NAME}.json"
    plain = dataclasses.asdict(known)
    write_atomically(html, _page().render(facts=plain, totals=totals(known), pictures=_images(known)).encode())
    write_atomically(data, json.dumps(plain, indent=2, allow_nan=False).encode())
    return html, data


def study_schema() -> dict[str, Any]:
    """Return the published JSON schema of the report."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(StudyFacts).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tessera study report", **schema}


def totals(facts: StudyFacts) -> dict[str, Any]:
    """Return what the cards at the top show."""
    timed = [r.seconds for r in facts.rounds if r.seconds is not None]
    complete = sum(not r.missing for r in facts.rounds)
    return {
        "rounds": len(facts.rounds),
        "megabytes": sum(r.uplink_bytes for r in facts.rounds) / 1e6,
        "seconds": sum(timed),
        "complete": complete,
        "dropouts": sum(len(r.missing) for r in facts.rounds),
    }


def _images(facts: StudyFacts) -> list[dict[str, str]]:
    return [
        {
            "name": picture.name,
            "data": base64.b64encode(picture.svg).decode(),
            "caption": picture.caption,
            "alternative": picture.alternative,
        }
        for picture in pictures(facts)
    ]


@lru_cache(maxsize=1)
def _page() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"number": number, "small": small}
    template = environment.get_template("study-report.html")
    template.globals["css"] = Markup((STYLE / "report.css").read_text())  # noqa: S704, our own style sheet
    return template
