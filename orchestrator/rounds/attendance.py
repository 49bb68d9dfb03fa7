"""Whom a round asks: everybody who has approved, but not a hospital that stays away round after round.

A hospital that was passed over is asked again in the first round that begins after it has asked for work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from datasites.study.patience import passed_over
from datasites.study.proposal import Proposal
from datasites.study.recomputed.checks import enough
from orchestrator.rounds.board import Board, Waiting, names
from orchestrator.rounds.checkpoints import missing_approvals
from orchestrator.rounds.store import Store
from orchestrator.rounds.thread import unaccepted

_HEARD_SECONDS = 60.0
"""A hospital that waits for work asks at least every 25 s."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Whom one round asks and waits for, and who is left alone in it."""

    asked: frozenset[str]
    passed_over: frozenset[str] = frozenset()
    not_joined: frozenset[str] = frozenset()

    @property
    def noted(self) -> dict[str, Any]:
        """What the checkpoint of the round says of them; nothing where everybody is asked."""
        found = {"passed_over": sorted(self.passed_over), "not_joined": sorted(self.not_joined)}
        return {name: sites for name, sites in found.items() if sites}


@dataclass(frozen=True, kw_only=True)
class Attendance:
    """Who takes part in the rounds of one study now."""

    proposal: Proposal
    store: Store
    board: Board

    def joined(self) -> frozenset[str]:
        """Return the hospitals that have approved, and whose conditions were accepted."""
        study = self.proposal.study
        return frozenset(self.store.documents(study, 0, "approval")) - unaccepted(self.store, study)

    def missing(self) -> str:
        """Return what keeps the study from its first round, or nothing."""
        starts_with = self.proposal.waits.starts_with
        if starts_with:
            joined = self.joined()
            if len(joined) >= starts_with and enough(self.proposal, {}, joined):
                return ""
        return missing_approvals(self.store, self.proposal)

    def expected(self, number: int, excluded: frozenset[str]) -> Expected:
        """Return whom round ``number`` asks."""
        able = frozenset(p.name for p in self.proposal.participants if self.proposal.blocks_of(p.name)) - excluded
        there = able & self.joined() if self.proposal.waits.starts_with else able
        away = self._away(number, there)
        return Expected(asked=there - away, passed_over=away, not_joined=able - there)

    async def arrived(
        self,
        waits: Waiting,
        number: int,
        *,
        missing: Callable[[], Collection[str]],
        enough_came: Callable[[], bool],
    ) -> None:
        """Return once nobody is missing, the deadline passed, or enough came and the grace is over.

        Args:
            waits: the study's waiting.
            number: the round.
            missing: says whose update is neither here nor refused.
            enough_came: says whether the keyholder would decrypt a sum of those that are here.
        """
        grace, loop = self.proposal.waits.grace_seconds, asyncio.get_running_loop()
        ends = loop.time() + self.proposal.deadline_seconds

        def what() -> str:
            return f"round {number}: updates of {names(missing())}"

        def enough_here() -> bool:
            return not missing() or (grace is not None and enough_came())

        await waits.until(enough_here, self.proposal.deadline_seconds, what)
        if grace is not None and missing() and enough_here():
            await waits.until(lambda: not missing(), max(0.0, min(grace, ends - loop.time())), what)

    def _away(self, number: int, there: frozenset[str]) -> frozenset[str]:
        after = self.proposal.waits.pass_over_after
        if not after:
            return frozenset()
        rounds = range(max(1, number - 3 * after - 10), number)
        past = [c for n in rounds if (c := self.store.document(self.proposal.study, n, "checkpoint")) is not None]
        away = passed_over(past, there, after)
        already = frozenset(past[-1].get("passed_over", ())) if past else frozenset()
        away -= {site for site in away & already if self.board.heard_from(site, _HEARD_SECONDS)}
        return away if enough(self.proposal, {}, there - away) else frozenset()
