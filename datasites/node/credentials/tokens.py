"""Signed statements that let one HTTP request in: who asks whom, for what, with which body, once, and now.

Nobody stores a session or a password. Every request carries ``Authorization: Tessera <statement>.<signature>``,
where the statement is base64url of canonical JSON with the caller's key, the audience (the server's key), method,
target (path and query), the SHA-256 of the body, a nonce and the time. A token that is stolen is worth nothing for
another server, another path, another body, a second time or a minute later.

    >>> from privacy.identity import Identity
    >>> from privacy.canonical import sha256_hex
    >>> caller, server = Identity.generate(), Identity.generate()
    >>> request = {"method": "GET", "target": "/work?wait=20", "body_hash": sha256_hex(b"")}
    >>> header = make_token(caller, audience=server.public_key, **request)
    >>> TokenVerifier(server.public_key).check(header, **request) == caller.public_key
    True

Nonces are remembered for as long as their token could be valid; with a file, also by a server that is killed and starts
again (:class:`NonceFile`). Every request of Tessera is idempotent besides, so a replay repeats what was done already.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import re
import secrets
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from privacy.canonical import canonical_json
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity, verify

SCHEME = "Tessera "
_KIND = "token"
_MAX_HEADER_CHARACTERS = 4096
_MAX_NONCES_PER_CALLER = 50_000
_NONCE = re.compile(r"[0-9a-f]{32}")
_RECORD = struct.Struct(">32s16sd")
_LEAST_KEPT = 20_000
_MOST_KEPT_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Token:
    """The statement inside a token. ``issued_ms`` is in milliseconds since 1970 by the caller's clock."""

    caller: str
    audience: str
    method: str
    target: str
    body_hash: str
    nonce: str
    issued_ms: int


def make_token(
    identity: Identity, *, audience: str, method: str, target: str, body_hash: str, now: float | None = None
) -> str:
    """Return the value of the ``Authorization`` header for one request.

    Args:
        identity: the caller.
        audience: the server's public key, 64 hexadecimal digits.
        method: ``GET``, ``POST``, ``PUT``, ...
        target: path and, after ``?``, the query, exactly as sent.
        body_hash: SHA-256 of the body, 64 hexadecimal digits; of ``b""`` where there is none.
        now: seconds since 1970; the clock's where left out.
    """
    token = Token(
        caller=identity.public_key,
        audience=audience,
        method=method.upper(),
        target=target,
        body_hash=body_hash,
        nonce=secrets.token_hex(16),
        issued_ms=int(1000 * (time.time() if now is None else now)),
    )
    statement = asdict(token)
    encoded = base64.urlsafe_b64encode(canonical_json(statement)).decode()
    return f"{SCHEME}{encoded}.{identity.sign(_KIND, statement)}"


class TokenVerifier:
    """Checks the tokens that one server is shown.

    Args:
        audience: this server's public key.
        lifetime_seconds: how far the token's time may lie from ours, either way.
        admits: says whether a caller's key is known here; unknown callers take up no memory.
        kept: where nonces are kept for the next process; None: in memory only.
    """

    def __init__(
        self,
        audience: str,
        lifetime_seconds: float = 60,
        *,
        admits: Callable[[str], bool] | None = None,
        kept: Path | None = None,
    ) -> None:
        self._audience = audience
        self._lifetime_seconds = lifetime_seconds
        self._admits = admits
        self._file = NonceFile(kept) if kept is not None else None
        self._seen: dict[str, dict[str, float]] = self._file.read(time.time()) if self._file is not None else {}
        self._lock = threading.Lock()

    def check(
        self, authorization: str | None, *, method: str, target: str, body_hash: str, now: float | None = None
    ) -> str:
        """Return the public key of the caller of a request whose body hashes to ``body_hash``.

        Raises:
            Refused: no token, one for another request or server, too old, used before, or an unknown caller.
            Tampered: the signature does not hold.
            InvalidInput: the header is malformed.
        """
        token = self.open(authorization, method=method, target=target, now=now)
        if not _same(token.body_hash, body_hash):
            raise Refused("expected a token for this body, got one for another body; sign every request anew")
        return token.caller

    def open(self, authorization: str | None, *, method: str, target: str, now: float | None = None) -> Token:
        """Check everything but the body, and return the statement; for bodies hashed while they stream in.

        The caller of this method must compare ``body_hash`` of the token with the hash of what arrived.

        Raises:
            Refused, Tampered, InvalidInput: as :meth:`check`.
        """
        token, signature = _parse(authorization)
        clock = time.time() if now is None else now
        for name, got, expected in (
            ("server", token.audience, self._audience),
            ("method", token.method, method.upper()),
            ("address", token.target, target),
        ):
            if not _same(got, expected):
                raise Refused(f"expected a token for this {name}, got one for another {name}")
        if abs(int(1000 * clock) - token.issued_ms) > 1000 * self._lifetime_seconds:
            raise Refused(f"expected a token at most {self._lifetime_seconds:g} s old; check the clocks of both sides")
        verify(token.caller, _KIND, asdict(token), signature)
        if self._admits is not None and not self._admits(token.caller):
            raise Refused("the caller's key is not known here; ask the operator to register it")
        self._use(token, clock)
        return token

    def _use(self, token: Token, clock: float) -> None:
        with self._lock:
            seen = self._seen.setdefault(token.caller, {})
            if token.nonce in seen:
                raise Refused("this token was used before; sign every request anew")
            if len(seen) >= _MAX_NONCES_PER_CALLER:
                seen = {nonce: until for nonce, until in seen.items() if until >= clock}
                self._seen[token.caller] = seen
            if len(seen) >= _MAX_NONCES_PER_CALLER:
                raise Refused(f"more than {_MAX_NONCES_PER_CALLER} requests within a token's lifetime; slow down")
            until = token.issued_ms / 1000 + self._lifetime_seconds
            if self._file is not None:  # before the request is let in
                self._file.add(token.caller, token.nonce, until, clock)
            seen[token.nonce] = until


class NonceFile:
    """Used nonces in one file: 56 bytes each, written before the request is let in and dropped when it is too old.

    The file is not synced: what a killed process wrote is there for the next one, and a machine that loses power needs
    longer to come back than a token lives.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written, self._live = 0, 0
        self._descriptor = -1

    def read(self, now: float) -> dict[str, dict[str, float]]:
        """Return the nonces that are still good at ``now``, by caller, and write the file anew with these alone.

        Raises:
            InvalidInput: it is no such file.
        """
        data = self._path.read_bytes() if self._path.exists() else b""
        if len(data) > _MOST_KEPT_BYTES:
            raise InvalidInput(f"expected used nonces in {self._path.name}, got {len(data)} bytes; delete it")
        found: dict[str, dict[str, float]] = {}
        for caller, nonce, until in _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]):
            if until >= now:
                found.setdefault(caller.hex(), {})[nonce.hex()] = until
        self._renew(found)
        return found

    def add(self, caller: str, nonce: str, until: float, now: float) -> None:
        """Keep one nonce."""
        if self._written >= _LEAST_KEPT and self._written > 4 * self._live:
            self.read(now)
        record = _RECORD.pack(bytes.fromhex(caller), bytes.fromhex(nonce), until)
        try:
            whole = os.write(self._descriptor, record) == len(record)
        except OSError:  # a full disk: this process remembers it all the same
            whole = False
        if whole:
            self._written += 1
        else:
            os.ftruncate(self._descriptor, self._written * _RECORD.size)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _renew(self, found: Mapping[str, Mapping[str, float]]) -> None:
        lines = [
            _RECORD.pack(bytes.fromhex(caller), bytes.fromhex(nonce), until)
            for caller, nonces in found.items()
            for nonce, until in nonces.items()
        ]
        write_atomically(self._path, b"".join(lines))
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._written = self._live = len(lines)


def _same(got: str, expected: str) -> bool:
    return hmac.compare_digest(got.encode(), expected.encode())


def _parse(authorization: str | None) -> tuple[Token, str]:
    if not authorization or not authorization.startswith(SCHEME):
        raise Refused("expected an Authorization header of the form 'Tessera <token>'")
    if len(authorization) > _MAX_HEADER_CHARACTERS:
        raise InvalidInput(f"expected a token of at most {_MAX_HEADER_CHARACTERS} characters")
    encoded, _, signature = authorization[len(SCHEME) :].partition(".")
    try:
        data: Any = json.loads(base64.b64decode(encoded.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidInput("expected a token of base64url JSON, a dot and a signature") from error
    return _statement(data), signature


def _statement(data: Any) -> Token:
    texts = ("caller", "audience", "method", "target", "body_hash", "nonce")
    valid = (
        isinstance(data, dict)
        and data.keys() == {*texts, "issued_ms"}
        and all(isinstance(data[name], str) and data[name].isascii() for name in texts)
        and type(data["issued_ms"]) is int
        and _NONCE.fullmatch(data["nonce"]) is not None
    )
    if not valid:
        raise InvalidInput(f"expected a token with the fields {', '.join(texts)} and issued_ms")
    return Token(**data)
