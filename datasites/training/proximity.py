"""How far a site's own update points where the others' went: what proximity weighting asks of a site.

The site computes it from its own update of the last round, which carries its full noise and was sent, and from the two
public models around that round: post-processing, at no cost in privacy under local noise. Under shared noise an update
carries a share of the noise only, and such a study is refused. Only the angle leaves, so an inflated norm gains
nothing. It travels with the next update, as ``proximity.cosine``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from datasites.node.files import write_atomically
from datasites.strategy.proximity import cosine, without
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.recomputed.next_model import flatten, restoring_gain
from datasites.study.recomputed.released_numbers import PROXIMITY, compares, releases_proximity

_DECIMALS = 2
"""Coarse: a made-up model must not turn the angle into a precise question about one update."""

_KEPT = "sent.safetensors"
_MODEL = "model.safetensors"
_SITES = "sites.txt"


def proximity_to_others(
    proposal: Proposal,
    plan: RoundPlan,
    site: str,
    sites: Sequence[str],
    sent: Mapping[str, NDArray[np.integer]],
    before: bytes,
    after: bytes,
) -> float:
    """Return the cosine between a site's update and the mean of the others', over its modality blocks.

    Args:
        proposal: with local noise and a plain server step.
        plan: of the round that is compared.
        site: whose update.
        sites: who is in that round's sum; 0 is returned when ``site`` is not.
        sent: the integers of the site's update, by block.
        before: the model that round began with, safetensors.
        after: the model it ended with.
    """
    own, others = [], []
    start, end = load(before), load(after)
    for block in proposal.blocks_of(site):
        weights = plan.weights[block.name]
        total = sum(weights[s] for s in sorted(sites) if s in weights)
        if block.modality is None or site not in sites or weights[site] >= total:
            continue
        step = proposal.training.server_learning_rate * restoring_gain(proposal, plan)
        mean = (flatten(end, block).astype(np.float64) - flatten(start, block)) / step
        size = proposal.training.update_bound / (proposal.encryption.levels * weights[site])
        update = sent[block.name].astype(np.float64) * size
        own.append(update)
        others.append(without(update, mean, weights[site] / total))
    return round(cosine(np.concatenate(own), np.concatenate(others)), _DECIMALS) if own else 0.0


def keep_sent(
    proposal: Proposal, plan: RoundPlan, folder: Path, sent: Mapping[str, NDArray[np.int64]], model: bytes
) -> None:
    """Keep what the next round's comparison needs in this round's folder."""
    if compares(proposal, plan.round):
        write_atomically(folder / _MODEL, model)
        write_atomically(folder / _KEPT, save({name: values.astype(np.int32) for name, values in sent.items()}))


def keep_sites(proposal: Proposal, plan: RoundPlan, folder: Path, sites: Sequence[str]) -> None:
    """Keep who is in the round's sum, as far as this site knows: the newest list it attested."""
    if compares(proposal, plan.round):
        write_atomically(folder / _SITES, "\n".join(sorted(sites)).encode())


def own_numbers(
    proposal: Proposal, number: int, site: str, last: Path, plan: RoundPlan | None, model: bytes
) -> dict[str, float]:
    """Return what the daemon itself adds to the released numbers of round ``number``; 0 where nothing was kept.

    Args:
        proposal: the study's.
        number: the round that begins.
        site: this site.
        last: folder of the round before.
        plan: of the round before, as it was kept there.
        model: the model this round begins with.
    """
    if not releases_proximity(proposal, number):
        return {}
    if plan is None or not all((last / name).exists() for name in (_KEPT, _MODEL, _SITES)):
        return {PROXIMITY: 0.0}
    sites = (last / _SITES).read_text().split("\n")
    sent = load((last / _KEPT).read_bytes())
    return {PROXIMITY: proximity_to_others(proposal, plan, site, sites, sent, (last / _MODEL).read_bytes(), model)}
