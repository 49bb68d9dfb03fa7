"""The study report for every participant: ``GET /studies/STUDY/report``, once a study is over.

The orchestrator writes and signs it; a hospital keeps it beside its own reports. It says what the orchestrator knows:
what the scientist measured outside the protocol is in the scientist's own report.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import threading
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Response

from datasites.language import check_language
from datasites.node.credentials.signed_pdf import sign_pdf
from datasites.study.proposal import Party
from orchestrator.api.authentication import Authenticator
from orchestrator.api.openapi import StudyName
from orchestrator.rounds.service import Service
from orchestrator.studies.status import OVER, study_status
from privacy.errors import Refused

Kind = Literal["pdf", "json"]
_MEDIA = {"pdf": "application/pdf", "json": "application/json"}
_MOST_KEPT = 32


class StudyReports:
    """Writes reports, one at a time, and keeps the newest: every hospital asks for the same ones.

    Args:
        service: the orchestrator's.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str, int, Kind, str], bytes] = {}

    def read(self, study: str, caller: str, kind: Kind, language: str) -> bytes:
        """Return one report.

        Raises:
            InvalidInput: no such study, or no such language.
            Refused: ``caller`` takes no part in it, or it is not over.
        """
        check_language(language)
        status = study_status(self._service.store, study, caller)
        if status["state"] not in OVER:
            raise Refused(f"the study is {status['state']}; its report is there when it is over")
        key = (study, str(status["state"]), int(status["rounds_completed"]), kind, language)
        with self._lock:
            if key not in self._kept:
                while len(self._kept) >= _MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = self._write(status, kind, language)
            return self._kept[key]

    def _write(self, status: dict[str, Any], kind: Kind, language: str) -> bytes:
        from orchestrator.studies.facts import study_facts
        from orchestrator.studies.report import study_pdf

        facts = study_facts(status, made=dt.datetime.now(dt.UTC), language=language)
        if kind == "json":
            return json.dumps(dataclasses.asdict(facts), indent=2, allow_nan=False).encode()
        party = self._service.roster.orchestrator
        return sign_pdf(
            study_pdf(facts),
            self._service.identity,
            name=party.name,
            institution=party.institution,
            reason=f"Study report {facts.number}",
        )


def add_study_reports(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    """Add the request to the orchestrator's application."""
    reports = StudyReports(service)
    caller = Depends(authenticate)

    @app.get("/studies/{study}/report", responses={200: {"content": {media: {} for media in _MEDIA.values()}}})
    async def report(
        study: StudyName,
        kind: Kind = "pdf",
        language: Annotated[str, Query(max_length=8)] = "en",
        party: Party = caller,
    ) -> Response:
        document = await asyncio.to_thread(reports.read, study, party.name, kind, language)
        return Response(document, media_type=_MEDIA[kind])
