"""Waiting for what another thread or process brings about, for as long as a machine with ten others on it may need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LONG_SECONDS = 120.0
"""Ends a wait that is in vain; nothing that works comes near it."""


def until(holds: Callable[[], object], what: str | Callable[[], str] = "", seconds: float = LONG_SECONDS) -> None:
    """Wait until a condition holds; fail with ``what`` was waited for."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what if isinstance(what, str) else what()}"
        time.sleep(0.05)


async def until_in_loop(holds: Callable[[], object], what: str = "", seconds: float = LONG_SECONDS) -> None:
    """Wait in an event loop, which goes on meanwhile, until a condition holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        await asyncio.sleep(0.01)
