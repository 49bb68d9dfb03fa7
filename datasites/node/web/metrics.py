"""Metrics for Prometheus: requests are counted as they pass, other figures are read from the journal.

No label holds anything that a caller chose: an address counts under its route; methods and statuses are fixed sets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Total
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from privacy.ledger.journal import Entry, Journal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

CONTENT_TYPE = CONTENT_TYPE_LATEST
FIGURES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0)
_log = logging.getLogger("tessera.requests")


def new_registry() -> CollectorRegistry:
    """Return a registry of one process, with its memory and processor time."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the registry's figures in Prometheus' text format."""
    return generate_latest(registry)


class RequestMetrics:
    """ASGI middleware: counts requests, their bytes and seconds by route, and logs each at level info."""

    def __init__(self, app: AsgiApp, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ("method", "route")
        self._requests = Total("tessera_http_requests", "Requests answered.", (*labels, "status"), registry=registry)
        self._received = Total("tessera_http_received_bytes", "Bytes of request bodies.", labels, registry=registry)
        self._sent = Total("tessera_http_sent_bytes", "Bytes of answers.", labels, registry=registry)
        self._seconds = Histogram(
            "tessera_http_request_seconds",
            "Seconds until an answer was complete; long polls wait on purpose.",
            labels,
            registry=registry,
            buckets=_BUCKETS,
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass one request on and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, figures = time.perf_counter(), {"status": 500, "received": 0, "sent": 0}

        async def counted_receive() -> Message:
            message = await receive()
            figures["received"] += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                figures["status"] = int(message["status"])
            figures["sent"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            self._count(scope, figures, time.perf_counter() - started)

    def _count(self, scope: MutableMapping[str, Any], figures: dict[str, int], seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = str(getattr(scope.get("route"), "path", "") or "unmatched")
        self._requests.labels(method, route, str(figures["status"])).inc()
        self._received.labels(method, route).inc(figures["received"])
        self._sent.labels(method, route).inc(figures["sent"])
        self._seconds.labels(method, route).observe(seconds)
        facts = {"method": method, "route": route, "seconds": round(seconds, 4), **figures}
        _log.info("%s %s %d in %.3f s", method, route, figures["status"], seconds, extra=facts)


class JournalFigures(Collector):
    """Counts a journal's entries by kind and adds up figures from them; each time it reads only the new entries.

    Args:
        journal: whose entries to count.
        sums: metric name to (help, what one entry adds to it).
        kinds: shown from the start, at 0 while there is none: Prometheus sees a count grow only from a count it knew.
    """

    def __init__(
        self,
        journal: Journal,
        sums: Mapping[str, tuple[str, Callable[[Entry], float]]] | None = None,
        *,
        kinds: Iterable[str] = (),
    ) -> None:
        self._journal = journal
        self._sums = sums or {}
        self._totals: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._kinds: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self._read = 0

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the journal."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the counts as they are now."""
        with self._lock:
            self._read_on()
        kinds = CounterMetricFamily("tessera_journal_entries", "Entries of the journal.", labels=("kind",))
        for kind, count in sorted(self._kinds.items()):
            kinds.add_metric((kind,), count)
        yield kinds
        for name, (text, _) in self._sums.items():
            yield CounterMetricFamily(name, text, value=self._totals[name])

    def _read_on(self) -> None:
        for entry in self._journal.entries(since=self._read):
            self._read = max(self._read, entry.index)
            self._kinds[entry.kind] += 1
            for name, (_, figure) in self._sums.items():
                self._totals[name] += figure(entry)
            self.note(entry)

    def note(self, entry: Entry) -> None:
        """Take one new entry into account; for figures that are no sums."""
