"""What is written down when a round is over: the model it left, who was in it, or why it has no sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datasites.study.messages import RoundPlan, UpdateHeader
from datasites.study.next_model import model_to_bytes
from datasites.study.proposal import Proposal
from datasites.study.signing import dump
from orchestrator.rounds.dp_evaluation import dp_evaluation
from orchestrator.rounds.store import Store


def finished_checkpoint(
    store: Store,
    proposal: Proposal,
    plan: RoundPlan,
    headers: Sequence[UpdateHeader],
    model: Mapping[str, np.ndarray],
    moments: Mapping[str, np.ndarray],
    seconds: float,
) -> dict[str, Any]:
    """Keep model and moments as blobs, and return the checkpoint of a round that was answered."""
    releases = {h.site: dict(h.releases) for h in headers}
    evaluation = dp_evaluation(proposal, plan.round, releases)
    return {
        "model_hash": store.put_blob(model_to_bytes(model)),
        "moments_hash": store.put_blob(model_to_bytes(moments)),
        "sites": sorted(h.site for h in headers),
        "uplink_bytes": sum(h.body_bytes for h in headers),
        "releases": releases,
        "evaluation": dump(evaluation) if evaluation else None,
        "weights": {b: dict(w) for b, w in plan.weights.items()},
        "scales": dict(plan.scales),
        "seconds": round(seconds, 3),
    }
