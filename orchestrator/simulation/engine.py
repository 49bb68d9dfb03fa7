"""A whole study without network, sandbox and encryption: the code of live rounds around one seam.

Live and simulated rounds plan (:mod:`datasites.study.recomputed.planning`), train (:mod:`datasites.training.site`),
round to integers (:mod:`datasites.training.encoding`) and step (:mod:`datasites.study.recomputed.next_model`) with the
same functions. The seam is :class:`Engine`: live, the integers travel encrypted and come back as their sum; here they
are added. Integer sums do not depend on who adds them where, so every engine gives the same model, bit for bit, as a
live consortium with the same proposal and its public seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasites.strategy.own_step import InThisProcess
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.recomputed.checks import check_weights
from datasites.study.recomputed.next_model import ServerOptimizer, model_from_bytes, model_to_bytes, next_model
from datasites.study.recomputed.planning import FinishedRound, Planner
from datasites.study.recomputed.released_numbers import PROXIMITY, checked_header_numbers, compares, releases_proximity
from datasites.study.streams import daemon_stream, public_secret, worker_seed, worker_stream
from datasites.training.encoding import Integers, encode_update
from datasites.training.local_parameters import PREFIX, with_own
from datasites.training.proximity import proximity_to_others
from datasites.training.site import own_parameters, split_records, train_round
from datasites.worker.child import load_plan
from models.batch import RecordLoss, restricted
from models.build import build_model, record_loss
from models.devices import chosen_device, on_device
from models.parameters import from_bytes
from orchestrator.simulation.sites import SimulatedSite
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

_NO_KEY = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Sum:
    """What some sites sent in one round, added: int64 [block.length] by block, and each site's released numbers."""

    totals: Mapping[str, NDArray[np.int64]]
    releases: Mapping[str, Mapping[str, float]]


def added(parts: Iterable[Sum]) -> Sum:
    """Return the sum of several sums; their order makes no difference."""
    totals: dict[str, NDArray[np.int64]] = {}
    releases: dict[str, Mapping[str, float]] = {}
    for part in parts:
        releases |= part.releases
        for block, values in part.totals.items():
            totals[block] = totals[block] + values if block in totals else values
    return Sum(totals=totals, releases=releases)


class Engine(Protocol):
    """Has every site do its part of a round and returns the sum: the place of transport and encryption."""

    def round(self, plan: RoundPlan, model: bytes) -> Sum:
        """Return the sum over all sites of one round."""


@dataclass(frozen=True, kw_only=True)
class SimulatedRound:
    """One finished round: its plan, the model after it (safetensors), and what was released."""

    plan: RoundPlan
    model: bytes
    finished: FinishedRound


class Shard:
    """Some sites in one process; as an engine of its own, all of them.

    Args:
        proposal: with a public seed.
        sites: whose ``trains`` was drawn with the seed's membership secret.
        code: the folder of an own network, whose code runs here; None for Tessera's models.
        device: where models and records are; on another one than ``cpu`` the last bits of a model differ.
    """

    def __init__(
        self, proposal: Proposal, sites: Sequence[SimulatedSite], code: Path | None = None, *, device: str = "cpu"
    ) -> None:
        self._proposal, self._seed = proposal, _public_seed(proposal)
        self._model, self._loss = _network(proposal, self._seed, code)
        place = chosen_device(device)
        self._model.to(place)
        self._everybody = [p.name for p in proposal.participants]
        self._own: dict[str, dict[str, NDArray[np.float32]]] = {}
        self._last: dict[str, tuple[RoundPlan, bytes, Integers]] = {}
        self._read: tuple[bytes, list[tuple[Tensor, Tensor]]] | None = None
        wanted = proposal.model.features
        self._records = {s.name: (on_device(restricted(s.records, wanted), place), s.trains) for s in sites}

    def round(self, plan: RoundPlan, model: bytes) -> Sum:
        """Train every site of this shard and add what they would encrypt."""
        return added(self._site(plan, model, site) for site in self._records)

    def _site(self, plan: RoundPlan, model: bytes, site: str) -> Sum:
        proposal, secret = self._proposal, public_secret(self._seed, site)
        self._begin(model, self._own.get(site, {}))
        records, trains = self._records[site]
        training, validation = split_records(proposal, plan.round, records, trains.numpy)
        stream = worker_stream(proposal, plan, site, worker_seed(proposal, plan, site, secret))
        updates, releases = train_round(proposal, plan, site, self._model, self._loss, training, validation, stream)
        self._own[site] = {n.removeprefix(PREFIX): v for n, v in own_parameters(proposal, self._model).items()}
        integers = encode_update(proposal, plan, site, updates, daemon_stream(proposal, plan, site, secret))
        own = self._own_numbers(plan, model, site)
        if compares(proposal, plan.round):
            self._last[site] = (plan, model, integers)
        numbers = checked_header_numbers(proposal, site, plan.round, {**releases, **own})
        return Sum(totals=integers, releases={site: numbers})

    def _begin(self, model: bytes, own: Mapping[str, NDArray[np.float32]]) -> None:
        """Load the global model; for sites that keep nothing of their own it is read once a round."""
        if not own and self._read is not None and self._read[0] is model:
            with torch.no_grad():
                for parameter, value in self._read[1]:
                    parameter.copy_(value)
            return
        from_bytes(self._model, with_own(self._proposal, model, own))
        if not own:
            self._read = (model, [(p, p.detach().clone()) for p in self._model.parameters()])

    def _own_numbers(self, plan: RoundPlan, model: bytes, site: str) -> dict[str, float]:
        if not releases_proximity(self._proposal, plan.round):
            return {}
        last, before, sent = self._last[site]
        return {PROXIMITY: proximity_to_others(self._proposal, last, site, self._everybody, sent, before, model)}


def run_study(proposal: Proposal, model: bytes, engine: Engine, code: Path | None = None) -> Iterator[SimulatedRound]:
    """Run every round of a study and yield each when it is finished.

    Args:
        proposal: with a public seed, as a live study would have it.
        model: the initial model, safetensors.
        engine: does the sites' part.
        code: the study's own code tree, whose server's rule runs in this process.

    Raises:
        InvalidInput: the proposal has no public seed.
        Refused: a plan outside the bounds.
    """
    _public_seed(proposal)
    own = InThisProcess(folder=code) if code is not None and proposal.own_server_rule else None
    planner, optimizer = Planner(proposal), ServerOptimizer(proposal.training, own=own)
    proposal_hash = proposal.proposal_hash
    for number in range(1, proposal.rounds + 1):
        plan = RoundPlan(
            study=proposal.study,
            proposal_hash=proposal_hash,
            round=number,
            model_hash=sha256_hex(model),
            key_hash=_NO_KEY,
            weights=planner.weights(),
            scales=planner.scales(),
            deadline_seconds=proposal.deadline_seconds,
            canonical=proposal.canonical,
        )
        check_weights(proposal, plan)
        arrived = engine.round(plan, model)
        sites = tuple(sorted(arrived.releases))
        model = model_to_bytes(next_model(proposal, plan, optimizer, model_from_bytes(model), arrived.totals, sites))
        finished = FinishedRound(number=number, sites=sites, releases=arrived.releases)
        planner.observe(finished)
        yield SimulatedRound(plan=plan, model=model, finished=finished)


def _public_seed(proposal: Proposal) -> int:
    if proposal.seed is None:
        raise InvalidInput("expected a proposal with a public seed; only such a study repeats")
    return proposal.seed


def _network(proposal: Proposal, seed: int, code: Path | None) -> tuple[nn.Module, RecordLoss]:
    if not proposal.own_network:
        return build_model(proposal.model, seed=seed), record_loss
    if code is None:
        raise InvalidInput("expected the code of the study's own network; this engine has none")
    return load_plan(code, proposal.model, seed=seed)
