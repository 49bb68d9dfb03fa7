"""Who is calling: the FastAPI side of :mod:`datasites.node.credentials.tokens`.

    authenticate = Authenticator(identity.public_key, registry.party)
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/work")
    async def work(caller: Party = Depends(authenticate)) -> ...

``Depends(authenticate)`` reads the whole body, up to what a JSON document of ours can need, to compare its hash; an
endpoint that takes a model or a letter uses ``Depends(authenticate.up_to(size))``, and one that streams a large body to
disk ``Depends(authenticate.streamed)`` and compares the hash itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request

from datasites.node.credentials.tokens import Token, TokenVerifier
from datasites.node.web.metrics import AsgiApp, Message, Receive, Send
from datasites.study.proposal import Party
from datasites.study.protocol import (
    DATA_HEADER,
    MOST_CHARACTERS,
    PROPOSALS_HEADER,
    PROTOCOL,
    PROTOCOL_HEADER,
    RELEASE_HEADER,
    check_protocol,
)
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused

Registry = Callable[[str], Party | None]
Runs = Callable[[str, str, str, str, str], object]
"""Told a party's name, protocol, release, the hash of its software that touches data and the proposals it knows."""
JSON_BYTES = 1024**2
"""No JSON document that a hospital or the keyholder sends needs more."""


@dataclass(frozen=True, kw_only=True)
class StreamedCall:
    """A caller whose body has not been read yet; it must hash to ``body_hash``."""

    party: Party
    body_hash: str


class Authenticator:
    """Turns a request into the :class:`Party` that signed it.

    Args:
        audience: this server's public key, which tokens must be made out to.
        registry: gives the party of a public key, or None where the key is unknown.
        lifetime_seconds: how old a token may be.
        max_body_bytes: the longest body that is read into memory.
        heard: told the name of every party that has called.
        kept: where used tokens are kept, so that none is good a second time after a restart; None: in memory.
        runs: told what software each caller names.
    """

    def __init__(
        self,
        audience: str,
        registry: Registry,
        *,
        lifetime_seconds: float = 60,
        max_body_bytes: int = JSON_BYTES,
        heard: Callable[[str], object] = lambda _: None,
        kept: Path | None = None,
        runs: Runs = lambda *_: None,
    ) -> None:
        self._heard, self._runs = heard, runs
        self._registry = registry
        self._max_body_bytes = max_body_bytes
        self._verifier = TokenVerifier(
            audience, lifetime_seconds, admits=lambda public_key: registry(public_key) is not None, kept=kept
        )

    async def __call__(self, request: Request) -> Party:
        """Check the token and the body of ``request`` and return the caller.

        Raises:
            Refused, Tampered, InvalidInput: as ``TokenVerifier.check``; InvalidInput for a body that is too long.
        """
        return await self._checked(request, self._max_body_bytes)

    def up_to(self, allowed: int | Callable[[Request, Party], int]) -> Callable[[Request], Awaitable[Party]]:
        """Return the same check for an endpoint that takes longer bodies.

        Args:
            allowed: how many bytes; or says so for one caller, before any of them is read, and may refuse it.
        """

        async def check(request: Request) -> Party:
            return await self._checked(request, allowed)

        return check

    async def _checked(self, request: Request, allowed: int | Callable[[Request, Party], int]) -> Party:
        token = self._open(request)
        body = await read_body(request, allowed if isinstance(allowed, int) else allowed(request, self._party(token)))
        if sha256_hex(body) != token.body_hash:
            raise Refused("expected a token for this body, got one for another body; sign every request anew")
        party = self._party(token)
        self._heard(party.name)
        return party

    async def streamed(self, request: Request) -> StreamedCall:
        """Check everything but the body, which is left unread for the endpoint to stream and compare."""
        token = self._open(request)
        return StreamedCall(party=self._party(token), body_hash=token.body_hash)

    def _open(self, request: Request) -> Token:
        """Check the token first: only of a party of the consortium anything is noted."""
        headers = request.headers
        token = self._verifier.open(headers.get("authorization"), method=request.method, target=_target(request))
        said, name = headers.get(PROTOCOL_HEADER), self._party(token).name
        release, data = headers.get(RELEASE_HEADER, ""), headers.get(DATA_HEADER, "")
        known = headers.get(PROPOSALS_HEADER, "")
        self._runs(name, (said or "")[: MOST_CHARACTERS + 1], release, data, known)
        check_protocol(said, name)
        return token

    def _party(self, token: Token) -> Party:
        party = self._registry(token.caller)
        if party is None:
            raise Refused("the caller's key is not known here; ask the operator to register it")
        return party


class SpeaksProtocol:
    """ASGI middleware: every answer names the protocol that is spoken here."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass one request on and name the protocol in its answer."""

        async def speaking(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (PROTOCOL_HEADER.lower().encode(), PROTOCOL.encode())]
            await send(message)

        await self._app(scope, receive, speaking)


def _target(request: Request) -> str:
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    query: bytes = request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body of a request, which is read no further than ``max_bytes``.

    Raises:
        InvalidInput: it is longer, or says that it is.
    """
    declared = request.headers.get("content-length", "0")
    if len(declared) > 18 or not declared.isascii() or not declared.isdigit() or int(declared) > max_bytes:
        raise InvalidInput(f"expected a body of at most {max_bytes} bytes, got {declared[:20]}")
    if hasattr(request, "_body"):
        return await request.body()
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise InvalidInput(f"expected a body of at most {max_bytes} bytes, got more")
    request._body = bytes(body)  # starlette's own cache, so that request.body() and request.json() still answer
    return request._body
