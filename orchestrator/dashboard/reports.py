"""The study report on request: written once for every state of a study, with the public figures of this moment."""

from __future__ import annotations

import threading
from pathlib import Path

from orchestrator.study_facts import StudyFacts
from orchestrator.study_report import write_study_report
from privacy.canonical import sha256_hex


class Reports:
    """Reports in a folder of the orchestrator's home, one per study, the newest only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._written: dict[str, StudyFacts] = {}

    def write(self, facts: StudyFacts) -> Path:
        """Return the web page of a study's report, written now unless it says the same already."""
        folder = self._folder / sha256_hex(facts.study.encode())[:16]
        with self._lock:
            if self._written.get(facts.study) != facts:
                write_study_report(facts, folder)
                self._written[facts.study] = facts
        return folder / "study-report.html"
