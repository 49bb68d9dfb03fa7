"""A role's own web server on a free port, in a thread, for as long as a test needs it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from support.waiting import LONG_SECONDS

from datasites.node.home import Config
from datasites.node.web.server import WebServer


@contextmanager
def serving(app: FastAPI, config: Config, *, port: int = 0, host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """Serve an application and give its address."""
    server = WebServer(app, config)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(LONG_SECONDS)
