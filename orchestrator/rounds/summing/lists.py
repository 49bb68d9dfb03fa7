"""The list of a round: whose updates are in its sum, signed and written down before anybody is asked to sign it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasites.study.messages import Commitments, RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, parse, seal
from orchestrator.rounds.restarting.unwritten import closed
from orchestrator.rounds.store import Store
from orchestrator.rounds.summing.intake import Intake
from privacy.identity import Identity
from privacy.ledger.journal import Journal


@dataclass(frozen=True, kw_only=True)
class Records:
    """Where the orchestrator writes what it signs."""

    store: Store
    identity: Identity
    journal: Journal


async def fixed_list(
    proposal: Proposal, records: Records, intake: Intake, plan: Signed, updates: Mapping[str, Any], closing: int
) -> Signed:
    """Return list number ``closing`` of a round: the one that was signed before, or a new one of these updates."""
    about_plan = parse(RoundPlan, dict(plan.payload))
    study, number = proposal.study, about_plan.round
    found = records.store.document(study, number, "commitments", closing=closing)
    if found is not None:
        return parse(Signed, found)
    sum_hash = await intake.sum_of(number, set(updates))
    commitments = Commitments(
        study=study,
        round=number,
        plan_hash=about_plan.plan_hash,
        closing=closing,
        updates=tuple(parse(Signed, update) for update in updates.values()),
        sum_hash=sum_hash,
        canonical=proposal.canonical,
    )
    signed = seal(records.identity, "commitments", commitments)
    records.store.put_document(study, number, "commitments", signed, closing=closing)
    records.journal.append("round-closed", closed(commitments))
    return signed
