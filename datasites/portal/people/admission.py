"""Whose password is checked next, so that a flood of sign-ins keeps nobody from reading and signing.

A check takes a tenth of a second and 64 MiB. It waits here and runs in a thread of its own, never in one that answers
pages. Whoever waits is served in turn by address and name; a browser that has signed in before goes first.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from privacy.sentences import say

T = TypeVar("T")
_RETRY_SECONDS = 5
_Job = tuple[str, Callable[[], Any], Future[Any]]


class Admission:
    """Runs work of many callers in a few threads, in turn.

    Args:
        threads: that work at once.
        waiting: callers that may wait in all.
        waiting_of_one: callers of one address that may wait.
    """

    def __init__(self, *, threads: int, waiting: int, waiting_of_one: int) -> None:
        self._threads, self._waiting, self._waiting_of_one = threads, waiting, waiting_of_one
        self._lock = threading.Lock()
        self._lanes: tuple[dict[tuple[str, str], deque[_Job]], ...] = ({}, {})  # those known here, and all others
        self._of: Counter[str] = Counter()
        self._running = 0

    async def run(self, address: str, name: str, work: Callable[[], T], *, known: bool = False) -> T:
        """Wait for a turn and return what ``work`` returns.

        Args:
            address: of the caller.
            name: under which the caller signs in; each name of an address waits in a queue of its own.
            work: is run in another thread.
            known: the caller's browser has signed in under this name before.

        Raises:
            HTTPException: 429, too many wait already.
        """
        return await asyncio.wrap_future(self.submit(address, name, work, known=known))

    def submit(self, address: str, name: str, work: Callable[[], T], *, known: bool = False) -> Future[T]:
        """Queue ``work``; as :meth:`run`, for callers that wait themselves."""
        future: Future[T] = Future()
        context = contextvars.copy_context()  # the language of who asks, among other things
        with self._lock:
            if self._of[address] >= self._waiting_of_one or self._of.total() >= self._waiting:
                raise HTTPException(
                    429,
                    say("too many people sign in at this moment; try again in a few seconds"),
                    headers={"retry-after": str(_RETRY_SECONDS)},
                )
            self._of[address] += 1
            self._lanes[0 if known else 1].setdefault((address, name[:64]), deque()).append(
                (address, partial(context.run, work), future)
            )
            if self._running < self._threads:
                self._running += 1
                threading.Thread(target=self._work, name="passwords", daemon=True).start()
        return future

    def _work(self) -> None:
        while (job := self._next()) is not None:
            _, work, future = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # whatever it is: its caller gets it
                future.set_exception(error)

    def _next(self) -> _Job | None:
        """Return the next job of the queue whose turn it is, or None, upon which the thread has to end."""
        with self._lock:
            for lane in self._lanes:
                if lane:
                    key = next(iter(lane))
                    queue = lane.pop(key)
                    job = queue.popleft()
                    if queue:
                        lane[key] = queue  # behind all others
                    self._of[job[0]] -= 1
                    if not self._of[job[0]]:
                        del self._of[job[0]]
                    return job
            self._running -= 1
            return None
