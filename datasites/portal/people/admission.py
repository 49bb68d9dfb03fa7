"""Whose password is checked next, so that a flood of sign-ins keeps nobody from reading and signing.

A check takes a tenth of a second and 64 MiB. It waits here and runs in a thread of its own, never in one that answers
pages. Addresses are served in turn, and the names of one address in turn, however many wait there. What an IPv6
provider gives one customer (the first 64 bits) counts as one address.

The people of a hospital often share one address, with each other and with whoever guesses there. So people who are
known there go first, and a name that has just failed there gives way to one that has not (:data:`Standing`). Standing
says who is served next and who is turned away. How often a password may be tried is counted elsewhere, for all alike.
"""

from __future__ import annotations

import asyncio
import contextvars
import ipaddress
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from datasites.review.people.attempts import Standing
from privacy.sentences import say

T = TypeVar("T")
_RETRY_SECONDS = 5
_CUSTOMER_BITS = 64


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A check that waits."""

    place: str
    work: Callable[[], Any]
    future: Future[Any]


class _Names:
    """Waiting jobs by name. The name that came last and the one whose turn it is are served alternately."""

    def __init__(self) -> None:
        self._names: dict[str, deque[_Job]] = {}
        self._latest = False

    def __bool__(self) -> bool:
        return bool(self._names)

    def add(self, name: str, job: _Job) -> None:
        self._names.setdefault(name, deque()).append(job)

    def take(self) -> _Job:
        """Return the next job; its name is behind all others then."""
        self._latest = not self._latest
        name = next(reversed(self._names) if self._latest else iter(self._names))
        queue = self._names.pop(name)
        job = queue.popleft()
        if queue:
            self._names[name] = queue
        return job

    def drop(self) -> _Job:
        """Take out the job that came last under the longest queue of a name."""
        name = max(self._names, key=lambda name: len(self._names[name]))
        job = self._names[name].pop()
        if not self._names[name]:
            del self._names[name]
        return job


class _Place:
    """Waiting jobs of one address: names that have not failed there and those that have, alternately."""

    def __init__(self) -> None:
        self.of: dict[Standing, _Names] = {"new": _Names(), "failed": _Names()}

    def __bool__(self) -> bool:
        return any(self.of.values())

    def take(self) -> _Job:
        """Return the next job; the other sort goes first then."""
        standing = next(standing for standing, names in self.of.items() if names)
        names = self.of.pop(standing)
        self.of[standing] = names
        return names.take()


class _Line:
    """Waiting jobs by address; the addresses are served in turn.

    Args:
        most: jobs that may wait in all; one of an address where nobody waits is let in beyond it, up to twice as many,
            so that floods from some addresses turn away no others.
        most_of_one: jobs of one address that may wait.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._places: dict[str, _Place] = {}
        self._of: Counter[str] = Counter()

    def add(self, name: str, standing: Standing, job: _Job) -> _Job | None:
        """Add a job; return the one that had to give way to it, if any.

        Raises:
            HTTPException: 429, there is no room.
        """
        dropped = None
        waiting, here = self._of.total(), self._of[job.place]
        if here >= self._most_of_one or waiting >= (self._most if here else 2 * self._most):
            failed = self._places[job.place].of["failed"] if here else None
            if standing == "failed" or not failed:
                raise _come_back()
            dropped = failed.drop()
            self._of[job.place] -= 1
        self._of[job.place] += 1
        self._places.setdefault(job.place, _Place()).of[standing].add(name, job)
        return dropped

    def take(self) -> _Job | None:
        """Return the next job, if any; its address is behind all others then."""
        if not self._places:
            return None
        address = next(iter(self._places))
        place = self._places.pop(address)
        job = place.take()
        if place:
            self._places[address] = place
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]
        return job


class Admission:
    """Runs work of many callers in a few threads, in turn.

    Those who are known wait in a line of their own, which is served first.

    Args:
        threads: that work at once.
        waiting: callers that may wait in each line; one of an address where nobody waits is let in beyond it, up to
            twice as many.
        waiting_of_one: callers of one address that may wait in each line. Beyond that a name that has not failed takes
            the place of one that has, whose caller is told to come back.
    """

    def __init__(self, *, threads: int, waiting: int, waiting_of_one: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._known, self._strangers = (_Line(waiting, waiting_of_one) for _ in range(2))
        self._running = 0

    async def run(self, address: str, name: str, work: Callable[[], T], *, standing: Standing = "new") -> T:
        """Wait for a turn and return what ``work`` returns.

        Args:
            address: of the caller.
            name: under which the caller signs in; each name of an address waits in a queue of its own.
            work: is run in another thread.
            standing: what is known of the name here.

        Raises:
            HTTPException: 429, too many wait already.
        """
        return await asyncio.wrap_future(self.submit(address, name, work, standing=standing))

    def submit(self, address: str, name: str, work: Callable[[], T], *, standing: Standing = "new") -> Future[T]:
        """Queue ``work``; as :meth:`run`, for callers that wait themselves."""
        future: Future[T] = Future()
        context = contextvars.copy_context()  # the language of who asks, among other things
        job = _Job(place=one_of(address), work=partial(context.run, work), future=future)
        with self._lock:
            if standing == "known":
                dropped = self._known.add(name[:64], "new", job)
            else:
                dropped = self._strangers.add(name[:64], standing, job)
            if self._running < self._threads:
                self._running += 1
                threading.Thread(target=self._work, name="passwords", daemon=True).start()
        if dropped is not None and dropped.future.set_running_or_notify_cancel():
            dropped.future.set_exception(_come_back())
        return future

    def _work(self) -> None:
        while (job := self._next()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(job.work())
            except BaseException as error:  # whatever it is: its caller gets it
                job.future.set_exception(error)

    def _next(self) -> _Job | None:
        """Return the next job of the line whose turn it is, or None, upon which the thread has to end."""
        with self._lock:
            job = self._known.take() or self._strangers.take()
            if job is None:
                self._running -= 1
            return job


def _come_back() -> HTTPException:
    return HTTPException(
        429,
        say("too many people sign in at this moment; try again in a few seconds"),
        headers={"retry-after": str(_RETRY_SECONDS)},
    )


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
