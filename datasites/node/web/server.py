"""Uvicorn with two changes: shutdown ends open event streams and long polls, and slow clients are disconnected.

Without the first, uvicorn would wait for answers that never end by themselves. :class:`Patience` says how long a client
may take; connections that ask too slowly, or not at all, are dropped.
"""

from __future__ import annotations

import asyncio
import functools
import json
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from datasites.node.home import Config
from datasites.node.web.middleware import PlainRequests
from datasites.node.web.problems import new_problem
from privacy.sentences import say

_DESCRIPTORS = 4096
HEAD_BYTES = 32 * 1024


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a client may take, and how many connections may be open.

    Args:
        head_seconds: for the whole head of a request, from the connection's start or the answer before.
        body_seconds: for a body, on top of what ``body_bytes_per_second`` gives for what has arrived.
        body_bytes_per_second: the slowest body.
        leftover_seconds: for the rest of a body whose request was answered already.
        read_seconds: for a client to take anything of an answer that waits for it.
        look_seconds: how often a connection is looked at.
        connections: open at once.
        connections_of_one: of these from one address; a proxy in front is one address.
    """

    head_seconds: float = 15.0
    body_seconds: float = 20.0
    body_bytes_per_second: float = 4096.0
    leftover_seconds: float = 5.0
    read_seconds: float = 60.0
    look_seconds: float = 1.0
    connections: int = 2048
    connections_of_one: int = 1024


class PatientProtocol(H11Protocol):
    """Uvicorn's HTTP protocol; it disconnects clients that are too slow."""

    patience: ClassVar[Patience] = Patience()

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._look: asyncio.TimerHandle | None = None
        self._phase: tuple[object, ...] = ()
        self._since = self._stuck_since = self.loop.time()
        self._received = self._unread = 0

    @property
    def awaited_since(self) -> float | None:
        """Since when the head of a request is awaited, by the loop's clock; None while a request is dealt with."""
        idle = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
        return self._since if idle else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to watch; where there are too many connections, one that asked for nothing makes room."""
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        everybody = [c for c in self.connections if isinstance(c, PatientProtocol)]
        of_one = [c for c in everybody if c.client and c.client[0] == host]
        limits = ((of_one, self.patience.connections_of_one), (everybody, self.patience.connections))
        for found, most in limits:
            if len(found) > most:
                self._make_room(found)
                break
        self._look = self.loop.call_later(self.patience.look_seconds, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives."""
        self._received += len(data)
        super().data_received(data)

    def send_400_response(self, _: str) -> None:
        """Answer what is no HTTP at all with a problem document of our own, and close."""
        body = json.dumps(new_problem(400, "no-http", say("the request is not HTTP as it is written")).model_dump())
        reason = h11.Response(
            status_code=400,
            headers=[(b"content-type", b"application/problem+json"), (b"connection", b"close")],
            reason=b"Bad Request",
        )
        for event in (reason, h11.Data(data=body.encode()), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _make_room(self, found: list[PatientProtocol]) -> None:
        waiting = [c for c in found if c.awaited_since is not None and c is not self]
        (min(waiting, key=lambda c: c._since) if waiting else self).transport.abort()

    def _watch(self) -> None:
        now, phase = self.loop.time(), (self.conn.their_state, self.cycle, self._answered())
        if phase != self._phase:
            # what was received since the last look belongs to the new phase or to the old one; either is honest
            self._phase, self._since, self._received = phase, now, 0
        if self.flow.read_paused:
            self._since += self.patience.look_seconds  # we are the slow ones
        allowed = float("inf") if self.transport.is_closing() else self._allowed_seconds()
        if now - self._since > allowed or self._is_stuck(now):
            self.transport.abort()
            return
        self._look = self.loop.call_later(self.patience.look_seconds, self._watch)

    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _allowed_seconds(self) -> float:
        state = self.conn.their_state
        if state is h11.IDLE:
            return self.patience.head_seconds
        if state is not h11.SEND_BODY:
            return float("inf")
        if self._answered():
            return self.patience.leftover_seconds
        return self.patience.body_seconds + self._received / self.patience.body_bytes_per_second

    def _is_stuck(self, now: float) -> bool:
        """Return whether the client has taken nothing of its answer for too long."""
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread or not unread:
            self._unread, self._stuck_since = unread, now
        return now - self._stuck_since > self.patience.read_seconds


def allow_connections() -> None:
    """Let this process have as many open descriptors as it needs, where the machine allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


_STRICT = ("strict-transport-security", f"max-age={365 * 24 * 3600}")
"""Whoever came by HTTPS once comes by nothing else for a year."""
_GRACE_SECONDS = 3
_HANDSHAKE_SECONDS = 10


class WebServer(uvicorn.Server):
    """Serves one application of one role.

    Args:
        app: the ASGI application.
        config: of the role; its certificate, if it has one, makes the server speak HTTPS.
        ending: called on the server's event loop when the shutdown begins; end streams and long polls.
    """

    def __init__(self, app: Any, config: Config, *ending: Callable[[], object]) -> None:
        super().__init__(
            uvicorn.Config(
                PlainRequests(app),
                log_config=None,
                access_log=False,
                http=PatientProtocol,
                ws="none",
                h11_max_incomplete_event_size=HEAD_BYTES,
                server_header=False,
                proxy_headers=False,  # whoever reaches this server could write them
                headers=[_STRICT] if config.tls_certificate or config.public_url.startswith("https:") else [],
                timeout_graceful_shutdown=_GRACE_SECONDS,
                ssl_certfile=config.tls_certificate or None,
                ssl_keyfile=config.tls_key or None,
            )
        )
        self._ending = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with room for many connections and little time for TLS handshakes."""
        allow_connections()
        if self.config.is_ssl:
            loop = asyncio.get_running_loop()
            # uvicorn passes no such option on, and asyncio's own is a minute, in which nothing else watches
            limited = functools.partial(loop.create_server, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
            loop.create_server = limited  # type: ignore[method-assign]
        await super().startup(sockets=sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what waits, then everything else."""
        for end in self._ending:
            end()
        await super().shutdown(sockets)
