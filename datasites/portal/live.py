"""What changes while somebody looks: running studies, dry runs in the background, and the journal as it grows."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from datasites.approval_records import Request as ReviewRequest
from datasites.portal.context import DryRun, PortalContext
from privacy.errors import Refused, TesseraError
from privacy.journal import Entry, Journal

_LOG_BYTES = 20_000


class JournalView:
    """The journal's entries, read from the file once and then only what is new."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def entries(self, *, search: str = "", kind: str = "") -> list[Entry]:
        """Return the entries of one kind that contain a text, the newest first."""
        with self._lock:
            last = self._entries[-1].index if self._entries else 0
            self._entries.extend(self._journal.entries(since=last))
            known = list(reversed(self._entries))
        text = search.casefold()
        return [
            e for e in known if (not kind or e.kind == kind) and (not text or text in f"{e.kind} {e.body}".casefold())
        ]

    def kinds(self) -> list[str]:
        """Return every kind of entry there is."""
        return sorted({e.kind for e in self._entries})


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """A dry run of one request: not yet, running (with its log so far), ended, or failed to run at all."""

    state: Literal["none", "running", "done", "failed"] = "none"
    since: str = ""
    result: DryRun | None = None
    problem: str = ""
    log: str = ""

    @property
    def passed(self) -> bool:
        """Whether the run ended well and everything that was tried held."""
        result = self.result
        return result is not None and result.outcome == "ok" and all(held for _, held in result.checks)


class DryRuns:
    """Dry runs, one at a time; the last one of every request is remembered until the portal restarts."""

    def __init__(self, context: PortalContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._states: dict[str, TrialState] = {}
        self._logs: dict[str, Path] = {}

    def state(self, proposal_hash: str) -> TrialState:
        """Return how the dry run of a request stands."""
        state = self._states.get(proposal_hash, TrialState())
        log = self._logs.get(proposal_hash)
        return replace(state, log=_tail(log)) if state.state == "running" and log is not None else state

    def start(self, request: ReviewRequest) -> None:
        """Begin a dry run in the background.

        Raises:
            Refused: another one is going on.
        """
        self._begin(request.proposal_hash)
        threading.Thread(target=self._run, args=(request,), name="dry-run", daemon=True).start()

    def run(self, request: ReviewRequest) -> TrialState:
        """Do a dry run and wait for its end.

        Raises:
            Refused: another one is going on.
        """
        self._begin(request.proposal_hash)
        self._run(request)
        return self.state(request.proposal_hash)

    def _begin(self, proposal_hash: str) -> None:
        with self._lock:
            if any(s.state == "running" for s in self._states.values()):
                raise Refused("another dry run is going on; wait until it has ended")
            since = self._context.clock().strftime("%H:%M:%S UTC")
            self._states[proposal_hash] = TrialState(state="running", since=since)

    def _run(self, request: ReviewRequest) -> None:
        state = self._states[request.proposal_hash]
        try:
            watch = partial(self._logs.__setitem__, request.proposal_hash)
            ended = replace(state, state="done", result=self._context.dry_run(request, watch))
        except TesseraError as error:
            ended = replace(state, state="failed", problem=str(error))
        except BaseException:
            self._states[request.proposal_hash] = replace(state, state="failed", problem="it could not be run")
            raise
        self._states[request.proposal_hash] = ended


def _tail(path: Path) -> str:
    """Return the end of a log that still grows, or nothing when it is not there yet or no more."""
    try:
        return path.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
    except OSError:
        return ""
