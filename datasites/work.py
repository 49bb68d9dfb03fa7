"""Asking the orchestrator for work, and hearing only what is new.

What a party is asked to do stays on the orchestrator's board until it is done, so the question says what is known
already and is held until there is something else:

    >>> queue = WorkQueue(client)
    >>> queue.deal(handle)    # what failed on the way is asked for again
"""

from __future__ import annotations

from collections.abc import Callable

from datasites.contract import WorkItem, parse
from datasites.http import Declined, SignedClient
from datasites.witness import Witness
from privacy.canonical import canonical_hash

POLL_SECONDS = 20.0


class WorkQueue:
    """The work of one party, as its orchestrator shows it.

    Args:
        client: signs as the party.
        wait_seconds: for how long the orchestrator may hold a question.
        witness: what this party has seen of the orchestrator; compared before any work is handed out.
    """

    def __init__(
        self, client: SignedClient, *, wait_seconds: float = POLL_SECONDS, witness: Witness | None = None
    ) -> None:
        self._client = client
        self._witness = witness
        self._wait_seconds = wait_seconds
        self._asked = self._known = ""

    def deal(self, handle: Callable[[WorkItem], None]) -> None:
        """Ask, and have every item handled; what the orchestrator declines just now holds up no other item.

        Raises:
            Declined: once all were tried; the item is asked for again, unless it has been withdrawn.
            TesseraError: the orchestrator cannot be reached, or an item failed in another way.
        """
        declined: Declined | None = None
        for item in self.ask():
            try:
                handle(item)
            except Declined as error:
                declined = error
        if declined is not None:
            raise declined
        self.handled()

    def ask(self) -> list[WorkItem]:
        """Return what is to be done, as soon as it differs from what was handled, or after the wait.

        Raises:
            Refused: the orchestrator is older than what it has shown to this party.
        """
        data = self._client.get_json(
            "/work", params={"wait": self._wait_seconds, "known": self._known or None}, wait_seconds=self._wait_seconds
        )
        self._asked, self._known = canonical_hash(data), ""
        items = [parse(WorkItem, item) for item in data]
        if self._witness is not None:
            self._witness.meet(items)
        return items

    def handled(self) -> None:
        """Say that everything of the last answer was dealt with."""
        self._known = self._asked
