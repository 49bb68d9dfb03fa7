"""Waiting for what others do: woken when something arrives, and able to say for whom and since when."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Collection
from contextlib import suppress


class Waiting:
    """One study's waiting; everything runs on the event loop.

    >>> waiting = Waiting()
    >>> await waiting.until(lambda: "north" in arrived, 60.0, lambda: "the update of north")
    """

    def __init__(self) -> None:
        self._arrived = asyncio.Event()
        self._now: tuple[Callable[[], str], str] | None = None

    @property
    def text(self) -> str:
        """Return what is waited for, and since when; empty while nothing is."""
        if self._now is None:
            return ""
        what, since = self._now
        return f"waiting since {since} for {what()}"

    def wake(self) -> None:
        """Have the condition looked at again."""
        self._arrived.set()
        self._arrived = asyncio.Event()

    async def until(self, condition: Callable[[], bool], seconds: float | None, what: Callable[[], str]) -> None:
        """Return once ``condition`` holds or the time is over.

        Args:
            condition: looked at now and after every :meth:`wake`.
            seconds: a duration by the monotonic clock, so that a wall clock set forward or back changes nothing; None
                waits for ever.
            what: says what is still missing, for people.
        """
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        self._now = what, dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        try:
            while not condition():
                remaining = None if deadline is None else deadline - loop.time()
                if remaining is not None and remaining <= 0:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), remaining)
        finally:
            self._now = None


def names(parties: Collection[str]) -> str:
    """Return a list of names for people."""
    return ", ".join(sorted(parties)) or "nobody"
