"""The orchestrator for its operators: ``/metrics``, and who may read it.

The figures say how much happens, never whose: no label holds a study, a site or a person. They are given to callers on
this machine, and to those who send the content of ``metrics.token`` in the orchestrator's folder as a bearer token. A
request that came through a proxy is not from this machine, whatever its last hop was.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from datasites.node.web.folder_figures import FolderFigures
from datasites.node.web.metrics import CONTENT_TYPE, FIGURES, JournalFigures, RequestMetrics, exposition, new_registry
from datasites.study.parties import parse_time
from orchestrator.rounds.checkpoints import STUDY_RUNS
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import STATES
from orchestrator.rounds.summing.sums import RunningSumProcess
from privacy.errors import Refused
from privacy.ledger.journal import Entry

TOKEN_FILE = "metrics.token"  # noqa: S105 - the name of a file
_SHORTEST_TOKEN = 16
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def install(app: FastAPI, service: Service, folder: Path) -> None:
    """Add request counting and ``/metrics`` to the orchestrator's application.

    Args:
        app: not serving yet.
        service: whose studies and journal are counted.
        folder: may hold ``metrics.token``.
    """
    registry = new_registry()
    registry.register(_Journaled(service))
    registry.register(_Studies(service))
    registry.register(FolderFigures(folder))

    @app.get("/metrics", response_class=Response, responses=FIGURES)
    def metrics(request: Request) -> Response:
        if not _here(request) and not _holds_token(request, folder / TOKEN_FILE):
            raise Refused(f"metrics are for this machine, or for a bearer token that equals {TOKEN_FILE}")
        return Response(exposition(registry), media_type=CONTENT_TYPE)

    app.add_middleware(RequestMetrics, registry=registry)


def _uploads(entry: Entry) -> float:
    return len(entry.body.get("sites", ())) if entry.kind == "round-finished" else 0


def _upload_bytes(entry: Entry) -> float:
    return float(entry.body.get("uplink_bytes", 0)) if entry.kind == "round-finished" else 0


def _seconds(entry: Entry) -> float:
    return float(entry.body.get("seconds", 0)) if entry.kind == "round-finished" else 0


def _rounds(entry: Entry) -> float:
    return float(entry.kind == "round-finished")


def _refusals(entry: Entry) -> float:
    return float(entry.kind == "refusal")


_SUMS = {
    "tessera_rounds": ("Finished rounds of all studies.", _rounds),
    "tessera_round_seconds": ("Seconds spent in finished rounds.", _seconds),
    "tessera_updates": ("Encrypted updates that went into a sum.", _uploads),
    "tessera_update_bytes": ("Bytes of these updates.", _upload_bytes),
    "tessera_refusals": ("Rounds that a site or the keyholder refused.", _refusals),
}


_STEPS = frozenset({"study-registered", STUDY_RUNS, "round-planned", "round-closed", "round-finished", "round-lost"})


class _Journaled(JournalFigures):
    """The sums of the journal, and since when the running study that is furthest behind has made no step."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.journal, _SUMS)
        self._store = service.store
        self._steps: dict[str, str] = {}

    def note(self, entry: Entry) -> None:
        """Remember when a study made its last step."""
        if entry.kind in _STEPS:
            self._steps[str(entry.body["study"])] = entry.at

    def collect(self) -> Iterable[Metric]:
        """Yield the counts, and the oldest last step unless no study runs."""
        yield from super().collect()
        running = [name for name, state, _ in self._store.states() if state == "running"]
        if steps := [self._steps[name] for name in running if name in self._steps]:
            yield GaugeMetricFamily(
                "tessera_study_progress_seconds",
                "When the running study that has stood still for longest made its last step (Unix time).",
                value=parse_time(min(steps)).timestamp(),
            )


class _Studies(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        states = Counter(state for _, state, _ in self._service.store.states())
        studies = GaugeMetricFamily("tessera_studies", "Studies by state.", labels=("state",))
        for state in STATES:
            studies.add_metric((state,), states[state])
        yield studies
        peers = [p.name for p in self._service.roster.everybody if p.name != self._service.roster.orchestrator.name]
        silent = sum(bool(self._service.contacts.trouble(name)) for name in peers)
        yield GaugeMetricFamily("tessera_silent_peers", "Parties that have not called for a minute.", value=silent)
        yield CounterMetricFamily(
            "tessera_sum_worker_restarts",
            "Summing processes that ended unasked since this process began.",
            value=RunningSumProcess.died,
        )


def _here(request: Request) -> bool:
    """Return whether this machine asks itself, by its own name: a page elsewhere could point its name at us."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    return _is_loopback(request.client.host) and _is_loopback(request.url.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _holds_token(request: Request, path: Path) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not path.exists():
        return False
    expected = path.read_text(encoding="utf-8").strip()
    return len(expected) >= _SHORTEST_TOKEN and hmac.compare_digest(given.strip().encode(), expected.encode())
