"""Several studies at once: what one study asks of a hospital holds up no other.

Every study has a lane of its own, a thread that does its items one after another; only training is counted. How many
studies train at a time is the owner's choice, within what the machine has (``workers`` of the policy).

    >>> lanes = Lanes(handle, places=lambda: 2)
    >>> lanes.show(items)        # everything that is to be done now; returns at once
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from datasites.study.messages import WorkItem
from privacy.errors import TesseraError

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 10.0


class Places:
    """So many studies may train at once; ``number`` is asked again whenever somebody waits."""

    def __init__(self, number: Callable[[], int]) -> None:
        self._number, self._taken = number, 0
        self._free = threading.Condition()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place, waiting for it if need be."""
        with self._free:
            while self._taken >= max(1, self._number()):
                self._free.wait(1.0)  # the policy may have changed meanwhile
            self._taken += 1
        try:
            yield
        finally:
            with self._free:
                self._taken -= 1
                self._free.notify()

    def when_idle(self, act: Callable[[], object]) -> None:
        """Do something that no training may see: now, if nobody trains, and otherwise not at all."""
        with self._free:
            if not self._taken:
                act()


class Lanes:
    """The work of one hospital, study by study.

    Args:
        handle: does one item; may be called from several threads, for different studies.
        places: how many studies may train at once.
    """

    def __init__(self, handle: Callable[[WorkItem], None], places: Callable[[], int]) -> None:
        self._handle = handle
        self.places = Places(places)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._open: dict[str, list[WorkItem]] = {}
        self._done: dict[str, list[WorkItem]] = {}
        self._lanes: dict[str, threading.Thread] = {}
        self._shown: list[WorkItem] = []

    def show(self, items: Sequence[WorkItem]) -> None:
        """Take note of everything that is to be done now, and have it done.

        What was done is not done again while it stays among other items that change. When the very same items are shown
        a second time, all of them are: the orchestrator asks once more.
        """
        with self._lock:
            again, self._shown = list(items) == self._shown, list(items)
            self._open = {item.study: [] for item in items}
            for item in items:
                self._open[item.study].append(item)
            kept = {} if again else self._done
            self._done = {study: [i for i in kept.get(study, []) if i in left] for study, left in self._open.items()}
            for study in self._open:
                if study not in self._lanes and self._next(study) is not None:
                    lane = threading.Thread(target=self._run, args=(study,), daemon=True, name=f"study-{study[:40]}")
                    self._lanes[study] = lane
                    lane.start()

    def close(self, seconds: float = 1.5) -> None:
        """Begin nothing more, and wait a moment for what is nearly done."""
        self._ended.set()
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.join(seconds / max(1, len(lanes)))

    def _next(self, study: str) -> WorkItem | None:
        done = self._done.get(study, [])
        return next((item for item in self._open.get(study, []) if item not in done), None)

    def _run(self, study: str) -> None:
        failures = 0
        while True:
            with self._lock:
                item = None if self._ended.is_set() else self._next(study)
                if item is None:
                    del self._lanes[study]
                    return
            if self._did(study, item):
                failures = 0
                with self._lock:
                    self._done.setdefault(study, []).append(item)
            else:
                failures += 1
                self._ended.wait(min(_LONGEST_PAUSE_SECONDS, 0.2 * 2**failures))

    def _did(self, study: str, item: WorkItem) -> bool:
        """Do one item; False where it has to be tried again, unless the orchestrator takes it back meanwhile."""
        try:
            if item.kind == "train":
                with self.places.one():
                    self._handle(item)
            else:
                self._handle(item)
        except TesseraError as error:
            if not self._ended.is_set():  # else what it needed is being closed
                _log.warning("%s: %s", study, error)
            return False
        except Exception:  # one bad message must not end a study's work
            if not self._ended.is_set():
                _log.exception("%s failed", study)
            return False
        return True
