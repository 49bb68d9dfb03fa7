"""How much each site counts, inside the bounds that sites and keyholder enforce.

Per block, weights are relative to the largest, lie in [1/4, 1], and their effective number (sum w)^2 / sum w^2 is
at least ``min_sites``: otherwise a "sum" could be one hospital's update in disguise (docs/threat-model.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from datasites.study.checks import SMALLEST_WEIGHT, effective_sites, too_few_effective
from datasites.study.proposal import Proposal

_DECIMALS = 6


def bounded(weights: Mapping[str, float], *, min_sites: int) -> dict[str, float]:
    """Bring raw weights inside the bounds by mixing in as little of the uniform weight as needed.

    Args:
        weights: non-negative raw weights by site, at least ``min_sites`` of them, not all zero.
        min_sites: the smallest allowed effective number of sites.

    Returns:
        Weights in [1/4, 1], the largest exactly 1.
    """
    largest = max(weights.values())
    relative = {site: max(SMALLEST_WEIGHT, w / largest) if largest > 0 else 1.0 for site, w in weights.items()}
    for percent in range(101):
        mixed = {s: round(w + (1 - w) * percent / 100, _DECIMALS) for s, w in relative.items()}
        if effective_sites(mixed) >= min_sites:
            return mixed
    return dict.fromkeys(weights, 1.0)


def enough(proposal: Proposal, weights: Mapping[str, Mapping[str, float]], sites: Collection[str]) -> bool:
    """Return whether the keyholder would decrypt a sum of ``sites``: enough institutions per block, none too heavy.

    Args:
        proposal: the study's.
        weights: the plan's, by block and site; what is missing counts 1.
        sites: whose updates came.
    """
    for block in proposal.exchanged_blocks():
        there = {s: weights.get(block.name, {}).get(s, 1.0) for s in proposal.contributors(block) if s in sites}
        if len(proposal.institutions(set(there))) < proposal.min_sites or too_few_effective(there, proposal.min_sites):
            return False
    return True


def fedavg_weights(proposal: Proposal) -> dict[str, dict[str, float]]:
    """Return weights by block and site, proportional to the released patient counts (all 1 under shared noise)."""
    result: dict[str, dict[str, float]] = {}
    for block in proposal.exchanged_blocks():
        sites = proposal.contributors(block)
        if proposal.noise == "shared":
            result[block.name] = dict.fromkeys(sites, 1.0)
            continue
        counts = {s: float(max(1, proposal.participant(s).dataset.patients)) for s in sites}
        result[block.name] = bounded(counts, min_sites=proposal.min_sites)
    return result
