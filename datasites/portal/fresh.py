"""A value that costs something to find out, shared by everybody who asks within a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """Remembers what a function returned for a moment, so that a hundred readers cost as much as one.

    While one reader finds out the next value, the others get the last one and do not wait.
    """

    def __init__(self, function: Callable[[], T], *, seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: tuple[T, float] | None = None

    def __call__(self) -> T:
        """Return the value, ``seconds`` old at most, or a little more while the next one is on its way."""
        kept = self._kept
        if kept is not None and (time.monotonic() < kept[1] or self._lock.locked()):
            return kept[0]
        with self._lock:
            kept = self._kept
            if kept is None or time.monotonic() >= kept[1]:
                kept = (self._function(), time.monotonic() + self._seconds)
                self._kept = kept
            return kept[0]
