"""Who has to do what now: the work items behind ``GET /work``, in memory, derived from the journaled state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from datasites.contract import WorkItem


class Board:
    """Work items by party, with a long poll.

    All methods run on one event loop. Items are replaced and withdrawn by the study runner; a party that asks gets
    whatever is open for it, so asking twice or after a restart does no harm.
    """

    def __init__(self) -> None:
        self._items: dict[str, list[WorkItem]] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def publish(self, party: str, item: WorkItem) -> None:
        """Ask ``party`` to do ``item``; the same item twice is one."""
        items = self._items.setdefault(party, [])
        if item not in items:
            items.append(item)
            self._wake()

    def withdraw(self, study: str, *, party: str | None = None, when: Callable[[WorkItem], bool] | None = None) -> None:
        """Take back the items of ``study`` (of one party, or of all; those that fit ``when``, or all)."""
        for name in [party] if party else list(self._items):
            kept = [i for i in self._items.get(name, []) if i.study != study or (when is not None and not when(i))]
            self._items[name] = kept

    async def wait(self, party: str, seconds: float) -> list[WorkItem]:
        """Return the party's open items, waiting up to ``seconds`` for the first."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._items.get(party) and not self._closed:
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                break
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), remaining)
            except TimeoutError:
                break
        return list(self._items.get(party, []))

    def close(self) -> None:
        """End all waiting; from now on :meth:`wait` answers at once."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
