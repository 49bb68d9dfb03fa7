"""The orchestrator's time, for tests that have a ``played`` consortium: waits end without anybody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.played import Played

from orchestrator.rounds.board import Waiting
from orchestrator.studies.status import OVER

Until = Callable[[dict[str, Any]], bool]
_FOR_HELPERS = ("(helpers)", "started anew")  # what the status says while a round waits for them


@pytest.fixture
def let_pass(played: Played) -> Iterator[Callable[[float], None]]:
    """Call it to have so many seconds pass by the orchestrator's event loop, whatever this machine needed."""
    with pytest.MonkeyPatch.context() as patch:

        def pass_by(seconds: float) -> None:
            async def jump() -> None:
                loop = asyncio.get_running_loop()
                real = loop.time
                patch.setattr(loop, "time", lambda: real() + seconds)
                for _ in range(20):  # until those whose time is over have noticed
                    await asyncio.sleep(0)

            portal = played.wire.app.portal if played.wire.app is not None else None
            assert portal is not None
            portal.call(jump)

        yield pass_by


@pytest.fixture
def without_the_gone(let_pass: Callable[[float], None]) -> Iterator[Callable[..., Until]]:
    """Wrap an ``until`` of :meth:`Played.play`: nobody waits for a helper that is gone.

    Time passes when a wait for helpers is the same one after a whole turn of everybody who is there, who have then done
    what they were asked to.
    """
    begun = [0]
    real = Waiting.until

    async def until(waiting: Waiting, *arguments: Any) -> None:
        begun[0] += 1
        await real(waiting, *arguments)

    def wrap(holds: Until = lambda status: status["state"] in OVER) -> Until:
        seen: list[Any] = [None]

        def over(status: dict[str, Any]) -> bool:
            if holds(status):
                return True
            last, seen[0] = seen[0], (begun[0], status["waiting"])
            if any(word in status["waiting"] for word in _FOR_HELPERS) and seen[0] == last:
                let_pass(61.0)
            return False

        return over

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Waiting, "until", until)
        yield wrap
