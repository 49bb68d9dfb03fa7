"""Parameters that a site trains and never sends: heads of one modality combination, blocks that too few sites hold.

They carry the noise of the site's own training and stay in its round folders. Each round the worker gets the global
model with the site's newest own parameters in it; a round that is run again gets the same ones again. Under shared
noise nothing is trained at a site, so there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from datasites.node.files import write_atomically
from datasites.study.proposal import Proposal

PREFIX = "own/"
"""Stands before an own parameter's name in a worker's result, where blocks have their plain names."""

KEPT = "own.safetensors"
Arrays = Mapping[str, NDArray[np.float32]]


def own_names(proposal: Proposal, names: Iterable[str]) -> list[str]:
    """Return which parameters are in no exchanged block and are no public centres; none under shared noise."""
    if not proposal.noise_mode.sites_train:
        return []
    sent = {name for block in proposal.exchanged_blocks() for name in block.parameters}
    return [name for name in names if name not in sent and not proposal.model.is_centre(name)]


def shapes(proposal: Proposal, model: bytes) -> dict[str, tuple[int, ...]]:
    """Return the shape of every own parameter of a model (safetensors), by its name in a worker's result."""
    arrays = load(model)
    return {PREFIX + name: arrays[name].shape for name in own_names(proposal, sorted(arrays))}


def with_own(proposal: Proposal, model: bytes, own: Arrays) -> bytes:
    """Return the global model with a site's own parameters in place of the initial ones."""
    if not own:
        return model
    arrays = load(model)
    for name in own_names(proposal, sorted(arrays)):
        if name in own and own[name].shape == arrays[name].shape:
            arrays[name] = own[name]
    return bytes(save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def keep(folder: Path, own: Arrays) -> None:
    """Keep a round's own parameters in its folder; what is not finite becomes 0."""
    if own:
        finite = {n: np.nan_to_num(v, nan=0.0, posinf=0.0, neginf=0.0) for n, v in sorted(own.items())}
        write_atomically(folder / KEPT, bytes(save(finite)))


def newest(folders: Iterable[Path]) -> dict[str, NDArray[np.float32]]:
    """Return the own parameters of the first folder that has some (give the newest round first)."""
    for folder in folders:
        if (folder / KEPT).exists():
            return dict(load((folder / KEPT).read_bytes()))
    return {}
