"""The orchestrator's time, for tests that have a ``played`` consortium."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.played import Played


@pytest.fixture
def let_pass(played: Played, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Call it to have so many seconds pass by the orchestrator's event loop, whatever this machine needed."""

    def pass_by(seconds: float) -> None:
        async def jump() -> None:
            loop = asyncio.get_running_loop()
            real = loop.time
            monkeypatch.setattr(loop, "time", lambda: real() + seconds)
            for _ in range(20):  # until those whose time is over have noticed
                await asyncio.sleep(0)

        portal = played.wire.app.portal if played.wire.app is not None else None
        assert portal is not None
        portal.call(jump)

    return pass_by
