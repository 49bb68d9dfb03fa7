"""A token is good once, also across the end of the server: it is killed, starts again, and remembers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from datasites.node.credentials import tokens
from datasites.node.credentials.tokens import NonceFile, TokenVerifier, make_token
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity

ALBA, SERVER = Identity.from_seed(b"a" * 32), Identity.from_seed(b"s" * 32)
REQUEST = {"method": "POST", "target": "/head", "body_hash": sha256_hex(b"{}")}


def started(path: Path) -> TokenVerifier:
    return TokenVerifier(SERVER.public_key, kept=path)


def token() -> str:
    return make_token(ALBA, audience=SERVER.public_key, **REQUEST)


def test_a_restart_forgets_no_token(tmp_path: Path) -> None:
    path, header = tmp_path / "tokens.bin", token()
    assert started(path).check(header, **REQUEST) == ALBA.public_key
    for _ in range(3):
        with pytest.raises(Refused, match="used before"):
            started(path).check(header, **REQUEST)
    assert path.stat().st_mode & 0o077 == 0 and path.stat().st_size == 56
    assert started(path).check(token(), **REQUEST) == ALBA.public_key


def test_what_is_too_old_is_forgotten_and_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_LEAST_KEPT", 10)
    path = tmp_path / "tokens.bin"
    kept = NonceFile(path)
    assert kept.read(0.0) == {}
    for number in range(100):
        kept.add(ALBA.public_key, f"{number:032x}", until=number + 1.0, now=float(number))
    assert path.stat().st_size <= 56 * 12
    assert NonceFile(path).read(99.0) == {ALBA.public_key: {f"{98:032x}": 99.0, f"{99:032x}": 100.0}}


@pytest.mark.parametrize("cut", range(1, 56, 9))
def test_a_record_that_was_cut_off_costs_no_other(tmp_path: Path, cut: int) -> None:
    path, header = tmp_path / "tokens.bin", token()
    started(path).check(header, **REQUEST)
    path.write_bytes(path.read_bytes() + b"x" * cut)
    with pytest.raises(Refused, match="used before"):
        started(path).check(header, **REQUEST)


@pytest.mark.parametrize("how", ["full", "half"])
def test_a_full_disk_lets_requests_in_and_the_process_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    server, real = started(tmp_path / "tokens.bin"), os.write
    server.check(token(), **REQUEST)

    def full(descriptor: int, data: bytes) -> int:
        if how == "half":
            return real(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "no space left")

    lost = token()
    with monkeypatch.context() as patch:
        patch.setattr(tokens.os, "write", full)
        server.check(lost, **REQUEST)
    with pytest.raises(Refused, match="used before"):
        server.check(lost, **REQUEST)
    later = token()
    server.check(later, **REQUEST)
    with pytest.raises(Refused, match="used before"):
        started(tmp_path / "tokens.bin").check(later, **REQUEST)


@pytest.mark.parametrize("nonce", ["g" * 32, "A" * 32, "0" * 31, "\u00e9" * 32, "0" * 33])
def test_a_nonce_is_32_hexadecimal_digits(tmp_path: Path, nonce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens.secrets, "token_hex", lambda _: nonce)
    with pytest.raises(InvalidInput):
        started(tmp_path / "tokens.bin").check(token(), **REQUEST)
