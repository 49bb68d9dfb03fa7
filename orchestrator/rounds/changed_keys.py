"""What becomes of running studies when a party's key becomes another one: a proposal binds the keys of its parties.

A hospital that signs with a new key is dropped from the studies that name its old one. Without enough others, or where
the orchestrator, the keyholder or a helper has a new key, the study ends. Everybody reads the reason in the thread.
"""

from __future__ import annotations

import logging
from typing import Literal

from datasites.study.proposal import Participant, Party, Proposal
from datasites.study.thread import OVER_FOR_GOOD
from orchestrator.rounds.service import Service
from orchestrator.rounds.thread import withdrawn_sites
from privacy.errors import Refused

_log = logging.getLogger(__name__)
_Kind = Literal["dropped", "cancelled", "withdrawn"]


async def settle(service: Service) -> None:
    """Go through the studies that are not over, after a change of the roster or a start."""
    if service.standing.trouble:
        return
    for study, _, state, _ in service.store.studies():
        if state not in OVER_FOR_GOOD:
            await _settle(service, service.proposal(study), state)


async def _settle(service: Service, proposal: Proposal, state: str) -> None:
    keys = {party.name: party.public_key for party in service.roster.known}

    def changed(party: Party | Participant) -> bool:
        return keys.get(party.name, party.public_key) != party.public_key

    central = [p.name for p in (proposal.orchestrator, proposal.keyholder, *proposal.helpers) if changed(p)]
    there = withdrawn_sites(service.store, proposal.study)
    sites = [p.name for p in proposal.participants if changed(p)]
    gone = [name for name in sites if name not in there]
    if not central and not gone:
        return
    why = f"{', '.join(central or gone)} has another key now than the proposal names; propose the study again"
    if not central and state in ("running", "paused", "failed"):
        try:
            for name in gone:
                await _say(service, proposal, "dropped", why, to=name)
        except Refused as error:
            why = f"{why}: {error}"
        else:
            return
    started = service.store.last_round(proposal.study, "plan") > 0
    await _say(service, proposal, "cancelled" if started else "withdrawn", why)
    _log.error("study %s ended: %s", proposal.study, why)


async def _say(service: Service, proposal: Proposal, kind: _Kind, text: str, *, to: str = "") -> None:
    if proposal.orchestrator.public_key != service.identity.public_key and kind != "dropped":
        await service.threads.end(proposal.study, kind, text)  # nobody takes our word for it under another key
        return
    await service.threads.say_for(proposal, proposal.orchestrator.name, kind=kind, text=text, to=to, answers="")
