"""Forged, replayed and stolen tokens: what a request's signature is worth anywhere but where it was made for."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import asdict
from typing import Any

import pytest

from datasites.node.credentials.tokens import Token, TokenVerifier, make_token
from privacy.canonical import sha256_hex
from privacy.errors import Refused, Tampered, TesseraError
from privacy.identity import Identity

ALBA, SERVER, OTHER, MALLORY = (Identity.from_seed(letter * 32) for letter in (b"a", b"s", b"o", b"m"))
NOW = 1_800_000_000.0
REQUEST = {"method": "PUT", "target": "/studies/pilot/rounds/1/update?x=1", "body_hash": sha256_hex(b"body")}


def verifier(server: Identity = SERVER) -> TokenVerifier:
    return TokenVerifier(server.public_key, admits={ALBA.public_key, OTHER.public_key}.__contains__)


def token(signer: Identity = ALBA, **changes: Any) -> str:
    fields = {**REQUEST, "audience": SERVER.public_key, "now": NOW, **changes}
    return make_token(signer, **fields)


def forged(signer: Identity = MALLORY, **changes: Any) -> str:
    """A token that says it is alba's, signed by somebody else."""
    _, statement = read(token())
    statement.update(changes)
    encoded = base64.urlsafe_b64encode(json.dumps(statement).encode()).decode()
    return f"Tessera {encoded}.{signer.sign('token', statement)}"


def read(header: str) -> tuple[str, dict[str, Any]]:
    encoded, _, signature = header.removeprefix("Tessera ").partition(".")
    return signature, json.loads(base64.urlsafe_b64decode(encoded))


def test_an_honest_token_is_good_once_and_never_again() -> None:
    server, header = verifier(), token()
    assert server.check(header, now=NOW, **REQUEST) == ALBA.public_key
    for later in (0.0, 1.0, 59.0, 119.0, 3600.0):
        with pytest.raises(Refused):
            server.check(header, now=NOW + later, **REQUEST)


def test_a_token_for_one_host_is_nothing_at_another() -> None:
    with pytest.raises(Refused, match="for this server"):
        verifier(OTHER).check(token(), now=NOW, **REQUEST)


@pytest.mark.parametrize("seconds", [-1e9, -61.0, 61.0, 1e9])
def test_a_token_of_another_time_is_refused(seconds: float) -> None:
    with pytest.raises(Refused, match="clocks"):
        verifier().check(token(now=NOW + seconds), now=NOW, **REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "POST"},
        {"method": "put "},
        {"target": "/studies/pilot/rounds/2/update?x=1"},
        {"target": "/studies/pilot/rounds/1/update"},
        {"target": "/studies/pilot/rounds/1/update?x=1&x=2"},
        {"target": "/studies/pilot/rounds/%31/update?x=1"},
        {"target": "//studies/pilot/rounds/1/update?x=1"},
        {"target": "/studies/pilot/rounds/1/update?x=1#"},
        {"body_hash": sha256_hex(b"another")},
    ],
    ids=str,
)
def test_a_token_is_for_one_method_address_and_body_to_the_letter(change: dict[str, str]) -> None:
    with pytest.raises(Refused, match="expected a token for this"):
        verifier().check(token(), now=NOW, **{**REQUEST, **change})


@pytest.mark.parametrize("kind", ["token ", "update", "mailbox-letter", "approval"])
def test_a_signature_for_another_purpose_is_no_token(kind: str) -> None:
    _, statement = read(token())
    encoded = base64.urlsafe_b64encode(json.dumps(statement).encode()).decode()
    with pytest.raises(Tampered):
        verifier().check(f"Tessera {encoded}.{ALBA.sign(kind, statement)}", now=NOW, **REQUEST)


def test_whoever_signs_for_another_is_not_the_other() -> None:
    for header in (forged(), forged(OTHER), forged(nonce="f" * 32)):
        with pytest.raises(Tampered):
            verifier().check(header, now=NOW, **REQUEST)
    with pytest.raises(Refused, match="not known"):  # honest about who it is, and nobody here
        verifier().check(token(MALLORY), now=NOW, **REQUEST)


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), 2**63, -(2**63), 1e300, float("inf"), float("nan"), True, None, "1", [], {}],
    ids=lambda v: repr(v)[:12],
)
def test_a_time_that_is_none_is_refused_and_breaks_nothing(value: Any) -> None:
    _, statement = read(token())
    statement["issued_ms"] = value
    encoded = base64.urlsafe_b64encode(json.dumps(statement).encode()).decode()
    with pytest.raises(TesseraError):
        verifier().check(f"Tessera {encoded}.AA==", now=NOW, **REQUEST)


@pytest.mark.parametrize("field", [name for name in asdict(Token(**read(token())[1])) if name != "issued_ms"])
@pytest.mark.parametrize("value", ["", "\u0661", "\x00", "A" * 64, "é" * 32, None, 7, ["a"]], ids=repr)
def test_no_field_of_a_forged_statement_gets_anybody_in(field: str, value: Any) -> None:
    with pytest.raises(TesseraError):
        verifier().check(forged_unsigned(field, value), now=NOW, **REQUEST)


def forged_unsigned(field: str, value: Any) -> str:
    signature, statement = read(token())
    statement[field] = value
    return f"Tessera {base64.urlsafe_b64encode(json.dumps(statement).encode()).decode()}.{signature}"


def test_of_many_uses_at_the_same_moment_one_is_good() -> None:
    server, header, good, gate = verifier(), token(), [], threading.Barrier(8)

    def use() -> None:
        gate.wait()
        try:
            good.append(server.check(header, now=NOW, **REQUEST))
        except Refused:
            return

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [ALBA.public_key]
