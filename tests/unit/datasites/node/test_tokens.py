"""Tokens open exactly one request, once, now, at one server."""

from __future__ import annotations

from typing import Any

import pytest

from datasites.node.credentials.tokens import TokenVerifier, make_token
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.identity import Identity

CALLER = Identity.from_seed(b"c" * 32)
SERVER = Identity.from_seed(b"s" * 32)
REQUEST: dict[str, Any] = {"method": "POST", "target": "/work?wait=2", "body_hash": sha256_hex(b"body")}
NOW = 1_800_000_000.0


def token(**changes: Any) -> str:
    return make_token(CALLER, **{"audience": SERVER.public_key, "now": NOW, **REQUEST, **changes})


def check(header: str | None, **changes: Any) -> str:
    verifier = changes.pop("verifier", None) or TokenVerifier(SERVER.public_key)
    return verifier.check(header, **{"now": NOW, **REQUEST, **changes})


def test_a_fresh_token_names_its_caller() -> None:
    assert check(token()) == CALLER.public_key


def test_a_token_is_good_once() -> None:
    verifier = TokenVerifier(SERVER.public_key)
    header = token()
    check(header, verifier=verifier)
    with pytest.raises(Refused, match="used before"):
        check(header, verifier=verifier)
    assert check(token(), verifier=verifier) == CALLER.public_key


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"target": "/work?wait=3"},
        {"target": "/work"},
        {"body_hash": sha256_hex(b"another body")},
        {"audience": CALLER.public_key},
        {"now": NOW - 61},
        {"now": NOW + 61},
    ],
)
def test_a_token_for_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        check(token(**change))


def test_a_changed_signature_is_noticed() -> None:
    statement = token().split(".")[0]
    other = token().split(".")[1]
    with pytest.raises(Tampered):
        check(f"{statement}.{other}")


@pytest.mark.parametrize("header", [None, "", "Bearer abc", "tessera abc.def"])
def test_a_missing_token_is_refused(header: str | None) -> None:
    with pytest.raises(Refused, match="expected an Authorization header"):
        check(header)


@pytest.mark.parametrize("header", ["Tessera ", "Tessera a.b", "Tessera e30=.AAAA", "Tessera " + "A" * 9000])
def test_a_malformed_token_is_invalid_input(header: str) -> None:
    with pytest.raises(InvalidInput):
        check(header)


def test_an_unknown_caller_is_refused_and_takes_no_memory() -> None:
    verifier = TokenVerifier(SERVER.public_key, admits=lambda _: False)
    with pytest.raises(Refused, match="not known"):
        check(token(), verifier=verifier)
    assert verifier._seen == {}


def test_a_flood_of_requests_is_refused_until_old_nonces_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasites.node.credentials.tokens._MAX_NONCES_PER_CALLER", 3)
    verifier = TokenVerifier(SERVER.public_key)
    for _ in range(3):
        check(token(), verifier=verifier)
    with pytest.raises(Refused, match="slow down"):
        check(token(), verifier=verifier)
    later = NOW + 61
    assert check(token(now=later), verifier=verifier, now=later) == CALLER.public_key
