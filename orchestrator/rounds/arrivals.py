"""Hospitals that were started anew: keyholder and helpers are asked about them, and the training item comes once more.

A hospital that is asked to train says that it was started anew (:meth:`Arrivals.came`). Then keyholder and helpers are
asked for their clearances, and the hospital is shown its item again with what they said. Nothing is kept: a hospital
asks again, also after a start of the orchestrator (:mod:`datasites.hospital.rounds.beginnings`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from datasites.study.messages import Arrival, Clearance, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed
from orchestrator.rounds import helping
from orchestrator.rounds.board import Board, Waiting, names
from privacy.errors import Refused

_MOST_STARTS = 50
"""So many starts of one hospital in one round are answered."""


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
