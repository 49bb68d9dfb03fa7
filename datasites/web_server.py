"""A web server that lets go of whoever waits for news when it is asked to end, and of whoever asks too slowly.

uvicorn waits for open answers at shutdown, and an event stream is never finished by itself. How long clients may take
is in :mod:`datasites.patience`.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from datasites.home import Config
from datasites.patience import HEAD_BYTES, PatientProtocol, allow_connections

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
                app,
                log_config=None,
                access_log=False,
                http=PatientProtocol,
                ws="none",
                h11_max_incomplete_event_size=HEAD_BYTES,
                server_header=False,
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
