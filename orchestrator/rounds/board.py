"""Who has to do what now, and waiting for it: the work items behind ``GET /work``, in memory.

:class:`Board` holds each party's open items, derived from the journaled state. :class:`Waiting` and :class:`Bell` wake
whoever waits when something arrives; a study can say for whom it waits, and since when.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from datasites.language import mark
from datasites.study.messages import WorkItem
from datasites.study.signing import dump
from privacy.canonical import plain_json, sha256_hex

WAITS = (
    mark("waiting since {since} UTC for {what}"),
    mark("approval by {names}"),
    mark("the scientist to accept the conditions of {names} (tessera study answer --accept-conditions)"),
    mark("round {number}: updates of {names}"),
    mark("round {number}: a key of {names}"),
    mark("round {number}: signatures under the list of {names}"),
    mark("round {number}: {names}, who have to sign the list once more"),
    mark("round {number}: what {names} know of {site}, started anew"),
    mark("round {number}: {who} (helpers), {what}"),
    mark("round {number}: {who} (keyholder), {what}"),
    *(mark("its key"), mark("to decrypt the sum"), mark("pad sums"), mark("pad sums under signatures for good")),
    *(mark("a list's pad sums"), mark("the other pad sums"), mark("declaring a list void")),
)
"""What a study waits for, as runner, attendance and helping say it; the dashboard says it in its reader's language."""


class Waiting:
    """One study's waiting; everything runs on the event loop.

    >>> waiting = Waiting()
    >>> await waiting.until(lambda: "north" in arrived, 60.0, lambda: "the update of north")
    """

    def __init__(self) -> None:
        self._arrived = asyncio.Event()
        self._now: list[tuple[Callable[[], str], str]] = []  # several at a time: a round's key, and the helpers' keys

    @property
    def text(self) -> str:
        """Return what is waited for, and since when; empty while nothing is."""
        if not self._now:
            return ""
        what, since = self._now[-1]
        return f"waiting since {since} UTC for {what()}"

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
        now = what, f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S}"
        self._now.append(now)
        try:
            while not condition():
                remaining = None if deadline is None else deadline - loop.time()
                if remaining is not None and remaining <= 0:
                    return
                with suppress(TimeoutError):  # not wait_for: it loses a cancellation that comes with the event
                    async with asyncio.timeout(remaining):
                        await self._arrived.wait()
        finally:
            self._now.remove(now)


def names(parties: Collection[str]) -> str:
    """Return a list of names for people."""
    return ", ".join(sorted(parties)) or "nobody"


_ONCE = frozenset({"finished", "forget"})
"""What a party does once, after its study: no runner is left to withdraw it when it is done."""


@dataclass(eq=False)
class _Posted:
    """One item as it lies on the board; those who are asked for the same share its bytes."""

    item: WorkItem

    @cached_property
    def text(self) -> bytes:
        return plain_json(dump(self.item), checked=True)

    @cached_property
    def alone(self) -> tuple[bytes, str]:
        """The answer to a party that has nothing else to do, and its hash: one for all hospitals of a round."""
        text = b"[" + self.text + b"]"
        return text, sha256_hex(text)


class Board:
    """Work items by party, with a long poll.

    All methods run on one event loop. Items are replaced and withdrawn by the study runner; a party that asks gets
    whatever is open for it, so asking twice or after a restart does no harm. An item that many parties get is written
    as JSON once: the list of a round has a header of every hospital, and every hospital gets it.

    ``done`` is told of a party, and of an item that it has dealt with once and for all.
    """

    def __init__(self, done: Callable[[str, WorkItem], object] = lambda _party, _item: None) -> None:
        self.done = done
        self._items: dict[str, list[_Posted]] = {}
        self._shown: dict[str, tuple[bytes, str]] = {}
        self._published: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._heard: dict[str, float] = {}
        self._closed = False

    def publish(self, party: str | Collection[str], item: WorkItem) -> None:
        """Ask a party, or several, to do ``item``; the same item twice is one."""
        posted = _Posted(item)
        for name in [party] if isinstance(party, str) else party:
            items = self._items.setdefault(name, [])
            if all(known.item != item for known in items):
                items.append(posted)
                self._shown.pop(name, None)
                self._published[name] = self._published.get(name, 0) + 1
                self._wake(name)

    def withdraw(self, study: str, *, party: str | None = None, when: Callable[[WorkItem], bool] | None = None) -> None:
        """Take back the items of ``study`` (of one party, or of all; those that fit ``when``, or all)."""
        for name in [party] if party else list(self._items):
            items = self._items.get(name, [])
            kept = [p for p in items if p.item.study != study or (when is not None and not when(p.item))]
            if len(kept) < len(items):
                self._items[name] = kept
                self._shown.pop(name, None)

    async def wait(self, party: str, seconds: float, known: str = "") -> bytes:
        """Return the party's open items as a plain JSON list, waiting up to ``seconds`` for any that are new.

        An item that was withdrawn and published again is new, although it looks like the one before. Items that are
        done once, such as the end of a study, are gone when the party says that it has dealt with them.

        Args:
            party: who asks.
            seconds: the longest wait.
            known: SHA-256 of the plain JSON of the answer that the party has dealt with already, or nothing.
        """
        self._heard[party] = asyncio.get_running_loop().time()
        known = self._dealt_with(party, known)
        deadline, told = asyncio.get_running_loop().time() + seconds, self._told.get(party, 0)
        while not self._closed and not self._has_news(party, told, known):
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                break
            changed = self._changed.setdefault(party, asyncio.Event())
            try:
                async with asyncio.timeout(remaining):
                    await changed.wait()
            except TimeoutError:
                break
        self._told[party] = self._published.get(party, 0)
        return self._show(party)[0]

    def heard_from(self, party: str, seconds: float) -> bool:
        """Say whether a party has asked for work within the last ``seconds``."""
        return asyncio.get_running_loop().time() - self._heard.get(party, float("-inf")) <= seconds

    def _dealt_with(self, party: str, known: str) -> str:
        """Forget what ``party`` has done once and for all; return the hash of what it knows of the rest."""
        items = self._items.get(party, [])
        left = [posted for posted in items if posted.item.kind not in _ONCE]
        if len(left) == len(items) or self._show(party)[1] != known:
            return known
        for posted in items:
            if posted.item.kind in _ONCE:
                self.done(party, posted.item)
        self._items[party] = left
        self._shown.pop(party, None)
        return self._show(party)[1]

    def _has_news(self, party: str, told: int, known: str) -> bool:
        """Say whether ``party`` has open items that differ from what it knows, or were published since it was told."""
        published = self._published.get(party, 0)
        return bool(self._items.get(party)) and (published > told or self._show(party)[1] != known)

    def _show(self, party: str) -> tuple[bytes, str]:
        items = self._items.get(party, [])
        if len(items) == 1:
            return items[0].alone
        if party not in self._shown:
            text = b"[" + b",".join(posted.text for posted in items) + b"]"
            self._shown[party] = text, sha256_hex(text)
        return self._shown[party]

    def close(self) -> None:
        """End all waiting; from now on :meth:`wait` answers at once."""
        self._closed = True
        for name in list(self._changed):
            self._wake(name)

    def _wake(self, party: str) -> None:
        changed = self._changed.pop(party, None)
        if changed is not None:
            changed.set()


class Bell:
    """Wakes the long polls of one event loop when something changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """End all waiting, now and from now on."""
        self.closed = True
        self.ring()

    def ring(self) -> None:
        """Wake all who wait."""
        self._event.set()
        self._event = asyncio.Event()

    def next_ring(self) -> asyncio.Event:
        """Return the event of the next ring; take it before looking for news, so that none is missed."""
        return self._event
