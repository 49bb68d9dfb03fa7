"""Whom a round asks: everybody who has approved, but not a hospital that stays away round after round.

A hospital that was passed over is asked again in the first round that begins after it has asked for work. One that is
asked to train may say that it was started anew (:meth:`Arrivals.came`). Then keyholder and helpers are asked for their
clearances, and it is shown its item again with what they said. Nothing of this is kept: the hospital asks again, also
after a start of the orchestrator (:mod:`datasites.hospital.rounds.beginnings`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from datasites.study.messages import Arrival, Clearance, WorkItem
from datasites.study.patience import passed_over
from datasites.study.proposal import Proposal
from datasites.study.recomputed.checks import enough
from datasites.study.signing import Signed
from orchestrator.rounds import helping
from orchestrator.rounds.board import Board, Waiting, names
from orchestrator.rounds.checkpoints import missing_approvals
from orchestrator.rounds.store import Store
from orchestrator.rounds.thread import unaccepted
from privacy.errors import Refused

_HEARD_SECONDS = 60.0
"""A hospital that waits for work asks at least every 25 s."""
_MOST_STARTS = 50
"""So many starts of one hospital in one round are answered."""


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


class Arrivals:
    """The hospitals of one study that were started anew.

    Args:
        proposal: the study.
        board: where everybody is asked.
        waits: the study's waiting.
    """

    def __init__(self, proposal: Proposal, board: Board, waits: Waiting) -> None:
        self._proposal, self._board, self._waits = proposal, board, waits
        self._asked: WorkItem | None = None
        self._said: dict[tuple[str, str], dict[str, Signed]] = {}
        self._starts: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def _holders(self, item: WorkItem) -> set[str]:
        """Return who is there to be asked: the keyholder, and the helpers that gave a key for the round."""
        helpers = {helper.name for helper in self._proposal.helpers if f"key/{helper.name}" in item.documents}
        return {self._proposal.keyholder.name, *helpers}

    def ask(self, item: WorkItem) -> WorkItem:
        """Take note of the training item that hospitals are asked to do now, and return it."""
        self._said.clear()
        self._starts.clear()
        self._asked = item
        return item

    def ended(self) -> None:
        """Take note that no hospital is asked to train now."""
        self._asked = None

    def came(self, arrival: Arrival, signed: Signed) -> None:
        """Have keyholder and helpers say what they know of a hospital that was started anew.

        Raises:
            Refused: no hospital is asked to train now, or this one was started too often.
        """
        item, place = self._asked, (arrival.site, arrival.begun)
        if item is None:
            raise Refused("no hospital is asked to train now; ask for work again")
        if place in self._said:
            return
        if self._starts[arrival.site] >= _MOST_STARTS:
            raise Refused(f"{arrival.site} was started too often in this round")
        self._said[place], self._starts[arrival.site] = {}, self._starts[arrival.site] + 1
        task = asyncio.create_task(self._cleared(arrival, signed, item))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cleared(self, clearance: Clearance, signed: Signed) -> None:
        """Keep what keyholder or helper says, if it was asked."""
        said = self._said.get((clearance.site, clearance.begun))
        if said is not None:
            said[clearance.party] = signed
        self._waits.wake()

    async def _cleared(self, arrival: Arrival, signed: Signed, item: WorkItem) -> None:
        place, site, study = (arrival.site, arrival.begun), arrival.site, self._proposal.study
        said, holders = self._said[place], self._holders(item)
        ask = WorkItem(kind="clear", study=study, round=item.round, closing=0, documents={"arrival": signed})
        self._board.publish(holders, ask)
        await self._waits.until(
            lambda: set(said) >= holders,
            helping.HELPER_SECONDS,
            lambda: f"round {item.round}: what {names(holders - set(said))} know of {site}, started anew",
        )
        for name in holders:
            self._board.withdraw(study, party=name, when=lambda i: i == ask)
        if self._asked == item:
            documents = {
                **item.documents,
                "arrival": signed,
                **{f"clearance/{name}": one for name, one in said.items()},
            }
            self._said.pop(place, None)  # asked again, it is answered again
            self._board.withdraw(study, party=site, when=lambda i: i.kind == "train")
            self._board.publish(site, replace(item, documents=documents))
