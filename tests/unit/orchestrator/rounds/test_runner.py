"""How long a round waits for signatures: as long as its study says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from orchestrator.rounds.runner import StudyRunner


def test_signatures_are_waited_for_as_long_as_the_deadline_says() -> None:
    waited: list[float] = []

    async def until(_: Any, seconds: float, __: Any) -> None:
        waited.append(seconds)

    runner: Any = object.__new__(StudyRunner)
    runner.proposal, runner.waits = SimpleNamespace(deadline_seconds=900), SimpleNamespace(until=until)
    asyncio.run(runner._attested(1, 1, {"site-0"}))
    assert waited == [900]
