"""Server-sent events: a page hears that something changed and fetches itself again.

Every open page asks for the same few values once a second, so :class:`Cached` computes each of them once for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

T = TypeVar("T")


class Cached(Generic[T]):
    """Remembers for a moment what a function returned, so that a hundred readers cost as much as one.

    While one reader computes the next value, the others get the last one and do not wait.
    """

    def __init__(self, function: Callable[[], T], *, seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: tuple[T, float] | None = None

    def __call__(self) -> T:
        """Return the value, at most ``seconds`` old, or a little older while the next one is computed."""
        kept = self._kept
        if kept is not None and (time.monotonic() < kept[1] or self._lock.locked()):
            return kept[0]
        with self._lock:
            kept = self._kept
            if kept is None or time.monotonic() >= kept[1]:
                kept = (self._function(), time.monotonic() + self._seconds)
                self._kept = kept
            return kept[0]


_POLL_SECONDS = 1.0
_LONGEST_SECONDS = 900.0
_KEEP_ALIVE_SECONDS = 15.0


def mark(snapshot: object) -> str:
    """Return a short text that differs for two snapshots with different ``repr``: 24 hexadecimal digits."""
    return hashlib.sha256(repr(snapshot).encode()).hexdigest()[:24]


class Streams:
    """The event streams of one server; all of them end when it does."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    def close(self) -> None:
        """End all streams now; to be called on the server's event loop."""
        self._ended.set()

    def events(self, request: Request, snapshot: Callable[[], object], *, seen: str = "") -> StreamingResponse:
        """Return a stream of events: one ``changed`` whenever ``snapshot`` returns something else.

        Args:
            request: the browser's.
            snapshot: returns what the page shows, or figures that differ whenever the page would.
            seen: :func:`mark` of the snapshot that the page was drawn from, so that what happened between the drawing
                of the page and the opening of this stream is told at once; empty for what is so when it opens.
        """
        return StreamingResponse(
            self._changes(request, snapshot, seen),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    async def _changes(self, request: Request, snapshot: Callable[[], object], seen: str) -> AsyncIterator[str]:
        seen = seen or mark(await run_in_threadpool(snapshot))
        started = spoken = time.monotonic()
        yield "retry: 2000\n\n"
        while time.monotonic() - started < _LONGEST_SECONDS and not await request.is_disconnected():
            now = mark(await run_in_threadpool(snapshot))
            if now != seen:
                seen, spoken = now, time.monotonic()
                yield "event: changed\ndata: {}\n\n"
            elif time.monotonic() - spoken > _KEEP_ALIVE_SECONDS:
                spoken = time.monotonic()
                yield "event: here\ndata: {}\n\n"  # a page that hears nothing says that it may be old
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._ended.wait()
            if self._ended.is_set():
                return
