"""A web server that lets go of whoever waits for news when it is asked to end.

uvicorn waits for open answers at shutdown, and an event stream is never finished by itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from datasites.home import Config

_GRACE_SECONDS = 3


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
                timeout_graceful_shutdown=_GRACE_SECONDS,
                ssl_certfile=config.tls_certificate or None,
                ssl_keyfile=config.tls_key or None,
            )
        )
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what waits, then everything else."""
        for end in self._ending:
            end()
        await super().shutdown(sockets)
