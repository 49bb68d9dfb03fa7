"""Writing the reports as of now, beside the pages: whoever asked sees that it goes on, and when it is done."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from datasites.portal.context import PortalContext
from privacy.errors import TesseraError
from privacy.sentences import say, sentence_of


@dataclass(frozen=True, kw_only=True)
class WritingProgress:
    """How far it is; ``since`` is an ISO time: when it began, or ended."""

    state: Literal["never", "running", "written", "failed"] = "never"
    since: str = ""
    problem: str = ""


class ReportWriting:
    """One writer at a time; how the last one ended is remembered until the portal restarts."""

    def __init__(self, context: PortalContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._state = WritingProgress()

    def state(self) -> WritingProgress:
        """Return how far it is."""
        return self._state

    def start(self) -> None:
        """Begin in the background; where it goes on already, that is as good."""
        with self._lock:
            if self._state.state == "running":
                return
            self._state = WritingProgress(state="running", since=self._now())
        threading.Thread(target=self._write, name="reports", daemon=True).start()

    def _write(self) -> None:
        problem: str = say("the reports could not be written; the reason is in the log")
        try:
            self._context.write_reports()
            problem = ""
        except TesseraError as error:
            problem = sentence_of(error)
        finally:
            ended: Literal["failed", "written"] = "failed" if problem else "written"
            self._state = WritingProgress(state=ended, since=self._now(), problem=problem)

    def _now(self) -> str:
        return self._context.clock().isoformat(timespec="seconds")
