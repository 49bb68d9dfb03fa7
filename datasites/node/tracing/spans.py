"""One trace for every round, through all roles: what each did, and for how long.

No trace context travels: the identifier of a round's trace, and that of its span at the orchestrator, follow from the
orchestrator's key, the study and the round, which every role knows. So nobody can make a role join another trace, and a
role without traces breaks none.

    TESSERA_TRACES=http://127.0.0.1:4318 tessera datasite run --home HOME

Needs the extra ``traces``. A span says role, kind of work, study, round and how it ended (:data:`SAID`), and nothing
else: no record, no number of a model, no reason of a refusal. How long a hospital trains may tell about its records, so
its collector is its own.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from privacy.errors import InvalidInput, TesseraError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from datasites.node.home import Home
    from datasites.study.messages import WorkItem

VARIABLE = "TESSERA_TRACES"
SAID = ("tessera.role", "tessera.party", "tessera.work", "tessera.study", "tessera.round", "tessera.ended")
"""Every attribute that a span may have."""


class _Worker(Protocol):
    @property
    def home(self) -> Any: ...


W = TypeVar("W", bound=_Worker)


class _Traces:
    """The process's traces: a provider with an exporter, or nothing."""

    def __init__(self) -> None:
        self.provider: Any = None
        self.role, self.party = "", ""


_traces = _Traces()
_begun: ContextVar[tuple[int, int]] = ContextVar("begun", default=(0, 0))
"""Trace and span of the round that begins just now."""


def start(role: str, party: str, exporter: SpanExporter | None = None) -> None:
    """Send spans of this process from now on, to ``exporter`` or to the collector in ``TESSERA_TRACES`` (if any).

    Raises:
        InvalidInput: a collector is named, but its address is none, or the extra is not installed.
    """
    address = os.environ.get(VARIABLE, "")
    if exporter is None and not address:
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError as error:
        raise InvalidInput(f"{VARIABLE} names a collector, but: pip install 'tessera-fl[traces]' first") from error

    class Identifiers(RandomIdGenerator):
        """Those of a round where one begins; random ones for what lies below it."""

        def generate_trace_id(self) -> int:
            return _begun.get()[0] or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return _begun.get()[1] or super().generate_span_id()

    provider = TracerProvider(resource=Resource({"service.name": f"tessera-{role}"}), id_generator=Identifiers())
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        provider.add_span_processor(BatchSpanProcessor(_collector(address)))
    _traces.provider, _traces.role, _traces.party = provider, role, party


@contextmanager
def sent(role: str, party: str) -> Iterator[None]:
    """Send the spans of this process inside the context, where a collector is named (:func:`start`)."""
    start(role, party)
    try:
        yield
    finally:
        stop()


def stop() -> None:
    """Send what waits, and send nothing from now on."""
    if _traces.provider is not None:
        _traces.provider.shutdown()
        _traces.provider = None


def _collector(address: str) -> Any:
    from urllib.parse import urlsplit

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"expected the address of a collector such as http://127.0.0.1:4318 in {VARIABLE}")
    return OTLPSpanExporter(endpoint=f"{address.rstrip('/')}/v1/traces")


def identifiers(orchestrator: str, study: str, number: int) -> tuple[int, int]:
    """Return the trace of a round (128 bits) and its span at the orchestrator (64 bits); neither is 0.

    Args:
        orchestrator: its public key, 64 hexadecimal digits.
        study: the study's name.
        number: the round's.
    """
    digest = hashlib.sha256(f"tessera/trace/{orchestrator}/{number}/{study}".encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def traced(handle: Callable[[W, WorkItem], None]) -> Callable[[W, WorkItem], None]:
    """Give a role's work item a span of its own, below the round's."""

    @functools.wraps(handle)
    def with_span(self: W, item: WorkItem) -> None:
        if _traces.provider is None or item.round < 1:
            return handle(self, item)
        home: Home = self.home
        with _span(item.kind, home.roster().orchestrator.public_key, item.study, item.round):
            return handle(self, item)

    return with_span


@contextmanager
def round_span(orchestrator: str, study: str, number: int) -> Iterator[None]:
    """Be the round's span at the orchestrator, which those of the other roles lie below."""
    if _traces.provider is None:
        yield
        return
    with _span("round", orchestrator, study, number, whole=True):
        yield


@contextmanager
def _span(work: str, orchestrator: str, study: str, number: int, *, whole: bool = False) -> Iterator[None]:
    from opentelemetry import trace
    from opentelemetry.context import Context

    trace_id, span_id = identifiers(orchestrator, study, number)
    said = (_traces.role, _traces.party, work, study, number)
    above = Context()
    if not whole:
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        parent = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
        above = trace.set_span_in_context(trace.NonRecordingSpan(parent), above)
    begun = _begun.set((trace_id, span_id) if whole else (0, 0))
    try:
        span = _traces.provider.get_tracer("tessera").start_span(
            work,
            above,
            attributes=dict(zip(SAID, said, strict=False)),
            record_exception=False,
            set_status_on_exception=False,
        )
    finally:
        _begun.reset(begun)
    ended = "done"
    try:
        yield
    except TesseraError:
        ended = "refused"
        raise
    except BaseException:
        ended = "cut short"
        raise
    finally:
        span.set_attribute(SAID[-1], ended)
        span.end()
