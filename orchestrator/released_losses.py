"""What blending observes in a live study: noised loss sums of single sites, added up into means."""

from __future__ import annotations

import math
from collections.abc import Mapping

from datasites.contract import Proposal
from datasites.released_numbers import VALIDATION
from orchestrator.blending import Evaluation
from privacy.errors import InvalidInput


def released_evaluation(proposal: Proposal, releases: Mapping[str, Mapping[str, float]]) -> Evaluation:
    """Return mean losses by combination from the noised sums that the sites released: sums over sums of patients.

    Args:
        proposal: with a loss release; its patient counts are released ones.
        releases: by site, the numbers of one round (see :mod:`datasites.released_numbers`).

    Raises:
        InvalidInput: the study releases no losses.
    """
    if proposal.mechanism.losses is None:
        raise InvalidInput("expected a study that releases losses")
    bound = proposal.mechanism.losses.bound
    sums: dict[str, dict[str, float]] = {"training": {}, "validation": {}}
    patients: dict[str, float] = {}
    for site in sorted(releases):
        for name, value in releases[site].items():
            if name.startswith("loss."):
                _, side, term = name.split(".")
                sums[side][term] = sums[side].get(term, 0.0) + value
                if side == "training":
                    patients[term] = patients.get(term, 0.0) + max(1, proposal.participant(site).dataset.patients)
    shares = {"training": 1.0 - VALIDATION, "validation": VALIDATION}
    means = {
        side: {term: min(bound, max(0.0, total / (shares[side] * patients[term]))) for term, total in by_term.items()}
        for side, by_term in sums.items()
    }
    return Evaluation(
        train=means["training"], validation=means["validation"], noise=_noise(proposal, releases, patients)
    )


def _noise(proposal: Proposal, releases: Mapping[str, Mapping[str, float]], patients: Mapping[str, float]) -> float:
    """Return the largest deviation of the noise in a mean validation loss of one modality; public facts only."""
    losses = proposal.mechanism.losses
    if losses is None:
        return 0.0
    found = [0.0]
    for term, count in patients.items():
        sites = sum(f"loss.validation.{term}" in numbers for numbers in releases.values())
        if "+" not in term:
            found.append(losses.noise_multiplier * losses.sensitivity * math.sqrt(sites) / (VALIDATION * count))
    return max(found)
