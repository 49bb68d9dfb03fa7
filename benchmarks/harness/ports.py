"""A port that a server may take now and again after a restart: no outgoing connection of this machine is given it."""

from __future__ import annotations

import os
import random
import socket

_FIRST, _LAST = 20_000, 32_000
"""Below what Linux and macOS give to connections that name no port of their own (32768 and 49152 on)."""


def kept_port() -> int:
    """Return a free port that stays free while its server is away."""
    dice = random.Random(os.urandom(8))  # noqa: S311 - no secret
    while True:
        port = dice.randrange(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
