"""Whose password is checked next, so that a flood of sign-ins keeps nobody from reading and signing.

A check takes a tenth of a second and 64 MiB. It waits here and runs in a thread of its own, never in one that answers
pages. Addresses are served in turn, and the names of one address in turn, however many wait there; a browser that has
signed in before goes first. What an IPv6 provider gives one customer (the first 64 bits) counts as one address.
"""

from __future__ import annotations

import asyncio
import contextvars
import ipaddress
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
_CUSTOMER_BITS = 64
_Job = tuple[str, Callable[[], Any], Future[Any]]


class _Lane:
    """Waiting jobs: by address, and there by name; both in turn."""

    def __init__(self) -> None:
        self._addresses: dict[str, dict[str, deque[_Job]]] = {}

    def add(self, name: str, job: _Job) -> None:
        self._addresses.setdefault(job[0], {}).setdefault(name, deque()).append(job)

    def take(self) -> _Job | None:
        """Return the next job; its address and its name are behind all others then."""
        if not self._addresses:
            return None
        address = next(iter(self._addresses))
        names = self._addresses.pop(address)
        name = next(iter(names))
        queue = names.pop(name)
        job = queue.popleft()
        if queue:
            names[name] = queue
        if names:
            self._addresses[address] = names
        return job


class Admission:
    """Runs work of many callers in a few threads, in turn.

    Args:
        threads: that work at once.
        waiting: callers that may wait in all; one of an address where nobody waits is let in beyond it, up to twice as
            many, so that floods from some addresses turn away no others.
        waiting_of_one: callers of one address that may wait.
    """

    def __init__(self, *, threads: int, waiting: int, waiting_of_one: int) -> None:
        self._threads, self._waiting, self._waiting_of_one = threads, waiting, waiting_of_one
        self._lock = threading.Lock()
        self._lanes = (_Lane(), _Lane())  # those known here, and all others
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
        place = one_of(address)
        context = contextvars.copy_context()  # the language of who asks, among other things
        with self._lock:
            waiting = self._of.total()
            full = waiting >= self._waiting if self._of[place] else waiting >= 2 * self._waiting
            if full or self._of[place] >= self._waiting_of_one:
                raise HTTPException(
                    429,
                    say("too many people sign in at this moment; try again in a few seconds"),
                    headers={"retry-after": str(_RETRY_SECONDS)},
                )
            self._of[place] += 1
            self._lanes[0 if known else 1].add(name[:64], (place, partial(context.run, work), future))
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
                if (job := lane.take()) is not None:
                    self._of[job[0]] -= 1
                    if not self._of[job[0]]:
                        del self._of[job[0]]
                    return job
            self._running -= 1
            return None


def one_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the part of an IPv6 one that a customer is given."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), _CUSTOMER_BITS), strict=False))
