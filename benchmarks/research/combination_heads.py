"""The paper's heads, one per modality combination, averaged over the sites that train them: for comparison only.

On the paper's own federation most combinations belong to one institution, whose "sum" would be its update. Live
studies keep such heads at their site (:mod:`datasites.training.local_parameters`); the simulator averages them all the
same, so that the paper's network can be measured as it was published.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from datasites.study.proposal import Block
from models.batch import modalities_of
from orchestrator.simulation.sites import SimulatedSite

_HEADS = "heads."


def head_blocks(model: nn.Module, sites: Sequence[SimulatedSite]) -> list[tuple[Block, tuple[str, ...]]]:
    """Return a block for every head that somebody trains, with the sites that have records of just its combination.

    Args:
        model: with one head per combination.
        sites: the institutions; a record counts with the modalities that its site contributes.
    """
    found = []
    for name, parameter in model.named_parameters():
        if not name.startswith(_HEADS):
            continue
        combination = name.split(".")[1]
        wanted = torch.tensor([float(m in combination.split("+")) for m in modalities_of(sites[0].records)])
        holders = tuple(s.name for s in sites if bool((s.records["presence"] == wanted).all(dim=1).any()))
        if holders:
            block = Block(name=f"head {combination}", modality=None, length=parameter.numel(), parameters=(name,))
            found.append((block, holders))
    return found
