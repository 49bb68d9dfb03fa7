"""What a study looks like from outside: for the command line, the dashboard, the reports and the participants."""

from __future__ import annotations

from typing import Any

from orchestrator.store import Store
from privacy.errors import Refused


def study_status(store: Store, study: str, caller: str) -> dict[str, Any]:
    """Return proposal, approvals, state and checkpoints of one study.

    Raises:
        InvalidInput: no such study.
        Refused: ``caller`` takes no part in it.
    """
    proposal, state, reason = store.study(study)
    payload = proposal.payload
    parties = {p["name"] for p in payload["participants"]}
    if caller not in parties | {payload["keyholder"]["name"], payload["orchestrator"]["name"]}:
        raise Refused(f"{caller!r} takes no part in study {study!r}")
    rounds = store.last_round(study, "checkpoint")
    checkpoints = [store.document(study, n, "checkpoint") for n in range(1, rounds + 1)]
    return {
        "study": study,
        "state": state,
        "reason": reason,
        "rounds": payload["rounds"],
        "rounds_completed": rounds,
        "proposal": {
            "kind": proposal.kind,
            "payload": dict(payload),
            "public_key": proposal.public_key,
            "signature": proposal.signature,
        },
        "approvals": store.documents(study, 0, "approval"),
        "initial": store.document(study, 0, "initial"),
        "checkpoints": checkpoints,
        "updates_now": sorted(store.documents(study, rounds + 1, "update")),
        "refusals": {str(n): store.documents(study, n, "refusal") for n in range(1, rounds + 2)},
    }
