"""Log lines: one JSON object each for machines, and never a token, key or password."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from datasites.node.process import configure_logs, without_secrets
from datasites.node.web.metrics import RequestMetrics, new_registry
from privacy.errors import InvalidInput

TOKEN = "eyJhdWRpZW5jZSI6IjEyMyJ9.c2lnbmF0dXJlc2lnbmF0dXJl"  # gitleaks:allow - not a real one
PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END PRIVATE KEY-----"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_json_line_says_when_who_what_and_why(stream):
    configure_logs("json", "info", role="datasite", stream=stream)
    logging.getLogger("tessera.requests").info("request", extra={"route": "/work", "status": 200})
    try:
        raise ValueError("a bad number")
    except ValueError:
        logging.getLogger("x").exception("failed for %s", "a reason")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["message"], first["route"], first["status"]) == ("request", "/work", 200)
    assert (first["level"], first["logger"], first["role"]) == ("info", "tessera.requests", "datasite")
    assert first["timestamp"].startswith("20")
    assert second["message"] == "failed for a reason"
    assert "ValueError: a bad number" in second["exception"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_about_a_request_says_in_words_what_was_asked_and_how_it_went(stream, form):
    app = FastAPI()
    app.add_middleware(RequestMetrics, registry=new_registry())
    configure_logs(form, "info", stream=stream)
    TestClient(app).get("/nothing-here?token=secret")
    line = next(line for line in stream.getvalue().splitlines() if "tessera.requests" in line)
    said = json.loads(line)["message"] if form == "json" else line.partition("tessera.requests: ")[2]
    assert re.fullmatch(r"GET \S+ 404 in \d+\.\d{3} s", said)
    assert "secret" not in line


def test_no_line_of_ours_keeps_what_it_has_to_say_in_fields_that_text_does_not_show():
    """The text form shows the message alone, so a message beside fields has to say the same in words."""
    root = Path(__file__).parents[4]
    files = [
        path
        for package in ("datasites", "orchestrator", "privacy", "tessera")
        for path in (root / package).rglob("*.py")
    ]
    calls = [call for path in files for call in ast.walk(ast.parse(path.read_text())) if isinstance(call, ast.Call)]
    with_fields = [
        call for call in calls if any(k.arg == "extra" for k in call.keywords) and "log" in ast.unparse(call.func)
    ]
    assert with_fields
    assert [ast.unparse(call) for call in with_fields if "%" not in ast.unparse(call.args[0])] == []


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Authorization: Tessera {TOKEN}", TOKEN),
        (f"authorization: bearer {TOKEN}", TOKEN),
        (f"GET /register?token={TOKEN}&x=1", TOKEN),
        ("postgresql://tessera:hunter2@db/x", "hunter2"),
        ("cookie tessera-0123456789ab=abcdef; path=/", "abcdef"),
        (PEM, "MC4CAQAwBQYDK2VwBCIEIJ"),
    ],
)
def test_what_looks_like_a_secret_is_cut_out(stream, form, text, secret):
    configure_logs(form, "info", stream=stream)
    logging.getLogger("x").warning("%s", text)
    assert secret not in stream.getvalue()
    assert "[removed]" in stream.getvalue()


def test_secrets_in_fields_and_tracebacks_are_cut_out_too(stream):
    configure_logs("json", "info", stream=stream)
    try:
        raise RuntimeError(f"Bearer {TOKEN}")
    except RuntimeError:
        logging.getLogger("x").exception("oops", extra={"password": "hunter2", "detail": f"Tessera {TOKEN}"})
    assert TOKEN not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_ordinary_sentences_stay_as_they_are():
    for text in ("the summing process ended", "Tessera orchestrator", "tessera status lists the studies"):
        assert without_secrets(text) == text


def test_an_unknown_format_or_level_is_refused():
    with pytest.raises(InvalidInput, match="text, json"):
        configure_logs("xml")
    with pytest.raises(InvalidInput, match="debug"):
        configure_logs("json", "loud")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_message_stays_on_its_line_and_moves_no_cursor(stream, form):
    configure_logs(form, stream=stream)
    logging.getLogger("tessera").warning("refused: %s", "no\n2026-01-01 ERROR tessera: forged\x1b[2J\r\u202e")
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert not set(text) & set("\x1b\r\u202e")
    assert "forged" in text
