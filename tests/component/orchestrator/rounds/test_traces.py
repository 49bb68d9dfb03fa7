"""One trace a round through orchestrator, hospitals, keyholder and helpers, which says nothing that is private."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.played import Played

from datasites.node.tracing import spans
from datasites.node.tracing.spans import SAID, identifiers
from privacy.errors import InvalidInput

STUDY, ROUNDS = "pilot", 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Played, tuple[ReadableSpan, ...]]]:
    kept = InMemorySpanExporter()
    with Played(tmp_path_factory.mktemp("traces"), sites=3, helpers=2) as made:
        made.open()
        spans.start("all", "this test", kept)
        try:
            made.propose(STUDY, length=60, rounds=ROUNDS)
            assert made.play(STUDY)["state"] == "finished"
        finally:
            spans.stop()
        yield made, kept.get_finished_spans()


def test_every_role_is_in_the_one_trace_of_the_round(finished: tuple[Played, tuple[ReadableSpan, ...]]) -> None:
    made, found = finished
    key = made.roster.orchestrator.public_key
    for number in range(1, ROUNDS + 1):
        trace, root = identifiers(key, STUDY, number)
        of_round = [span for span in found if span.context.trace_id == trace]
        works = [str(span.name) for span in of_round]
        assert {"round", "key", "train", "attest", "decrypt", "commit", "pads"} <= set(works)
        assert works.count("train") == 3 and works.count("round") == 1
        for span in of_round:
            if span.name == "round":
                assert span.parent is None and span.context.span_id == root
            else:
                assert span.parent is not None and span.parent.span_id == root
            assert span.end_time is not None and span.end_time >= span.start_time
    assert len({identifiers(key, STUDY, number)[0] for number in range(1, 100)}) == 99


def test_spans_say_nothing_but_what_is_listed(finished: tuple[Played, tuple[ReadableSpan, ...]]) -> None:
    made, found = finished
    secrets = [home.identity().derive_secret("noise").hex() for home in made.homes.values()]
    assert found
    for span in found:
        assert set(span.attributes or {}) == set(SAID)
        assert span.attributes["tessera.ended"] == "done"
        assert not span.events and not span.links and span.status.description is None
        text = span.to_json()
        assert not any(secret in text for secret in secrets) and str(made.folder) not in text
        assert set(json.loads(text)["resource"]["attributes"]) <= {
            "service.name",
            "telemetry.sdk.language",
            "telemetry.sdk.name",
            "telemetry.sdk.version",
            "service.instance.id",
        }


def test_a_refusal_is_said_without_its_reason() -> None:
    kept = InMemorySpanExporter()
    spans.start("orchestrator", "o", kept)
    for error in (InvalidInput("patient TCGA-1"), ValueError("TCGA-1")):
        with pytest.raises(type(error)), spans.round_span("ab" * 32, STUDY, 1):
            raise error
    spans.stop()
    found = kept.get_finished_spans()
    assert [span.attributes["tessera.ended"] for span in found] == ["refused", "cut short"]
    assert not any("TCGA" in span.to_json() for span in found)


def test_without_a_collector_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(spans.VARIABLE, raising=False)
    with spans.sent("keyholder", "k"):
        assert spans._traces.provider is None
        with spans.round_span("ab" * 32, STUDY, 1):
            pass


@pytest.mark.parametrize("address", ["collector", "ftp://collector", "http://", "127.0.0.1:4318"])
def test_an_address_that_is_none_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv(spans.VARIABLE, address)
    with pytest.raises(InvalidInput, match="address of a collector"), spans.sent("keyholder", "k"):
        pass


def test_spans_arrive_at_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv(spans.VARIABLE, f"http://127.0.0.1:{server.server_port}")
        with spans.sent("keyholder", "k"), spans.round_span("ab" * 32, STUDY, 1):
            pass
        server.shutdown()
        thread.join()
    ((path, body),) = bodies
    assert path == "/v1/traces" and b"tessera-keyholder" in body and STUDY.encode() in body


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setenv(spans.VARIABLE, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidInput, match=r"tessera-fl\[traces\]"), spans.sent("keyholder", "k"):
        pass
