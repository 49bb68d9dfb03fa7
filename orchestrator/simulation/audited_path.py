"""One made-up study of hospitals whose whole path is audited: worker, daemon, and the decoding of the sum.

The first hospital has the canaries, or a crowd of loud records; the others have nobody and add their noise only.
Streams hang on a public seed, so that a round without and with some records draws the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasites.data.dataset import Part, Schema, write_dataset
from datasites.strategy.registry import noise_named
from datasites.study.messages import RoundPlan
from datasites.study.proposal import DatasetReference, Party, Proposal
from datasites.study.recomputed.next_model import model_from_bytes
from datasites.study.streams import daemon_stream, membership_secret, public_secret, worker_seed, worker_stream
from datasites.training.encoding import encode_update
from datasites.training.site import train_round
from datasites.worker.job import WorkerJob
from models.build import build_model, record_loss
from models.parameters import from_bytes
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.canonical import sha256_hex
from privacy.dp.mechanism import Mechanism
from privacy.identity import Identity

Floats = NDArray[np.float64]
Records = Mapping[str, Tensor]
Vectors = Mapping[str, np.ndarray]
Work = Callable[[WorkerJob], tuple[dict[str, np.ndarray], dict[str, Any]]]
CANARIES, BESIDE = "mrna", "image"
"""The modality of the canaries, and another, whose noise is looked at as well."""
WIDTH_BESIDE = 64
LOUDNESS = 3000.0
"""A loud record's scaled inputs are so many times the clipping norm."""
_RATE = 1e-6


@dataclass(frozen=True, kw_only=True)
class AuditedPath:
    """One study of made-up hospitals: the first has the records, the others nobody, and add their noise only."""

    proposal: Proposal
    model: bytes
    seed: int

    @classmethod
    def of(cls, mechanism: Mechanism, *, width: int, seed: int, patients: int = 400) -> AuditedPath:
        """Return the study of a mechanism with ``width`` canary coordinates."""
        sites = max(3, mechanism.min_sites)
        made, model = _template(mechanism.noise, mechanism.min_sites, mechanism.colluders, sites, width, patients)
        runs = replace(mechanism, max_sites=max(mechanism.max_sites, sites), max_parameters=50_000)
        bound = noise_named(mechanism.noise).update_bound(
            runs, learning_rate=_RATE, patients=[patients] * sites, training_share=1.0
        )
        training = replace(made.training, update_bound=bound)
        proposal = replace(made, mechanism=runs, rounds=runs.rounds, training=training, seed=seed)
        return cls(proposal=proposal, model=model, seed=seed)

    @property
    def honest(self) -> list[str]:
        """The sites whose noise the adversary does not know."""
        count = self.proposal.noise_mode.honest_sites(self.proposal.mechanism)
        return [p.name for p in self.proposal.participants[:count]]

    @property
    def features(self) -> Mapping[str, int]:
        """The number of inputs of each modality."""
        return self.proposal.model.features

    def plan(self, number: int) -> RoundPlan:
        """Return the plan of a round, with equal weights."""
        proposal = self.proposal
        names = [p.name for p in proposal.participants]
        return RoundPlan(
            study=proposal.study, proposal_hash=proposal.proposal_hash, round=number, model_hash=sha256_hex(self.model),
            key_hash="0" * 64, weights={b.name: dict.fromkeys(names, 1.0) for b in proposal.exchanged_blocks()},
            scales={}, deadline_seconds=60, canonical=proposal.canonical,
        )  # fmt: skip

    def dataset(self, folder: Path, coins: NDArray[np.bool_]) -> Path:
        """Write the canaries that are in, as a hospital's dataset, and return the folder."""
        width = self.features[CANARIES]
        chosen = np.flatnonzero(coins)
        values = np.zeros((len(chosen), width), np.float32)
        values[np.arange(len(chosen)), chosen] = LOUDNESS * math.sqrt(width)
        names = tuple(f"C{index:06d}" for index in chosen)
        schema = Schema(
            name="site-0", version=1, institution="Hospital 0", cohort="A", cohorts=("A",), task="early-late",
            classes=2, modalities=tuple(sorted(self.features)),
            features={m: tuple(f"{m[0]}{i}" for i in range(n)) for m, n in self.features.items()},
            preprocessing=dict.fromkeys(self.features, "none"), source="made up",
        )  # fmt: skip
        beside = np.zeros((len(chosen), WIDTH_BESIDE), np.float32)
        inputs = {CANARIES: (names, values), BESIDE: (names, beside)}
        part = Part(cases=names, cohorts=("A",) * len(names), labels=(1,) * len(names), inputs=inputs)
        write_dataset(folder, schema, part)
        return folder

    def scores(self, dataset: Path, work: Work) -> Floats:
        """Return each round's noised gradient sum by canary, in the direction in which a canary pushes [rounds, n]."""
        rows = []
        for number in range(1, self.proposal.rounds + 1):
            first, *others = self.honest
            updates = {first: self._worked(number, first, dataset, work)}
            updates |= {site: self.trained(number, site)[0] for site in others}
            rows.append(self.decoded(number, updates)[CANARIES])
        return np.stack(rows)

    def sums(self, number: int, records: Records | None = None) -> dict[str, Floats]:
        """Return a round's noised gradient sum by modality; ``records`` are the first hospital's."""
        first, *others = self.honest
        updates = {first: self.trained(number, first, records)[0]}
        return self.decoded(number, updates | {site: self.trained(number, site)[0] for site in others})

    def released(self, number: int, records: Records | None = None, *, weight: float = 0.0) -> dict[str, float]:
        """Return what the first hospital releases beside its update; ``records`` train and validate."""
        return self.trained(number, self.honest[0], records, weight=weight)[1]

    def trained(
        self, number: int, site: str, records: Records | None = None, *, weight: float = 0.0
    ) -> tuple[Vectors, dict[str, float]]:
        """Return what a site's round gives, on records in memory, none without; of a model of this ``weight``."""
        plan = self.plan(number)
        model = build_model(self.proposal.model, seed=0)
        from_bytes(model, self.model)
        if weight:
            for parameter in model.parameters():
                torch.nn.init.constant_(parameter, weight)
        held = nobody(self.features) if records is None else records
        seed = worker_seed(self.proposal, plan, site, public_secret(self.seed, site))
        stream = worker_stream(self.proposal, plan, site, seed)
        return train_round(self.proposal, plan, site, model, record_loss, held, held, stream)

    def decoded(self, number: int, updates: Mapping[str, Vectors]) -> dict[str, Floats]:
        """Encode, add and decode as sites and orchestrator do; return the noised gradient sum of each modality."""
        proposal, plan, found = self.proposal, self.plan(number), {}
        blocks = [block for block in proposal.exchanged_blocks() if block.modality is not None]
        totals = {block.name: np.zeros(block.length, np.int64) for block in blocks}
        for site, vectors in updates.items():
            stream = daemon_stream(proposal, plan, site, public_secret(self.seed, site))
            encoded = encode_update(proposal, plan, site, vectors, stream)
            totals = {name: total + encoded[name] for name, total in totals.items()}
        records, arrays = float(proposal.participants[0].dataset.patients), model_from_bytes(self.model)
        for block in blocks:
            before = np.concatenate([arrays[name].ravel() for name in block.parameters])
            total = totals[block.name]
            mean = proposal.noise_mode.mean_update(proposal, plan, block, total, before, sorted(updates), records)
            scale = proposal.mechanism.sampling_rate * records / _RATE
            found[str(block.modality)] = np.asarray(mean, np.float64) * scale
        return found

    def _worked(self, number: int, site: str, dataset: Path, work: Work) -> Vectors:
        plan, secret = self.plan(number), public_secret(self.seed, site)
        model = dataset.parent / "model.safetensors"
        model.write_bytes(self.model)
        job = WorkerJob(
            proposal=self.proposal, plan=plan, site=site, schema=dataset / "schema.json", part=dataset / "private",
            model=model, code=None, output=dataset, seed=worker_seed(self.proposal, plan, site, secret),
            membership=membership_secret(secret, site), checks=False,
        )  # fmt: skip
        vectors, _ = work(job)
        return {b.name: vectors[b.name] for b in self.proposal.blocks_of(site)}


def loud(
    features: Mapping[str, int], count: int, seed: int, *, only: Collection[str] = (CANARIES, BESIDE)
) -> dict[str, Tensor]:
    """Return records whose gradients all have one direction, spread over every input of the modalities ``only``."""
    signs = np.random.default_rng([seed, 2])
    records = nobody(features, count)
    for modality, width in features.items():
        one = torch.from_numpy(np.where(signs.random(width) < 0.5, -1.0, 1.0)).float()
        if modality in only:
            records[modality] = (LOUDNESS * one).expand(count, width).contiguous()
    records["presence"][:] = 1.0
    records["label"][:] = 1
    return records


def crowd(features: Mapping[str, int], count: int, seed: int) -> dict[str, Tensor]:
    """Return ordinary records of both classes, with scores all over."""
    stream = torch.Generator().manual_seed(seed)
    records = nobody(features, count)
    records[CANARIES] = 50 * torch.randn(count, features[CANARIES], generator=stream)
    records["presence"][:] = 1.0
    records["label"] = torch.randint(0, 2, (count,), generator=stream)
    return records


def nobody(features: Mapping[str, int], count: int = 0) -> dict[str, Tensor]:
    """Return ``count`` records of zeros, without any modality."""
    return {
        **{modality: torch.zeros(count, width) for modality, width in features.items()},
        "presence": torch.zeros(count, len(features)),
        "cohort": torch.zeros(count, dtype=torch.int64),
        "label": torch.zeros(count, dtype=torch.int64),
    }


@lru_cache(maxsize=16)
def _template(
    noise: Literal["local", "shared"], min_sites: int, colluders: int, sites: int, width: int, patients: int
) -> tuple[Proposal, bytes]:
    """Return a study of made-up hospitals and its model; noise, rounds and seed are put in afterwards."""
    settings = StudySettings(
        study="audit", purpose="Audit.", legal_basis="Made-up records.", task="early-late", rounds=1,
        epsilon=8.0, sampling_rate=1.0, noise=noise, steps_per_round=1, learning_rate=_RATE, weight_decay=0.0, seed=0,
        min_sites=min_sites, colluders=colluders,
    )  # fmt: skip
    offers = [_offer(index, width, patients) for index in range(sites)]
    return build_proposal(settings, offers, orchestrator=_party(98), keyholder=_party(99), code={})


def _party(number: int) -> Party:
    key = Identity.from_seed(bytes([number]) * 32).public_key
    return Party(name=f"party-{number}", institution=f"Party {number}", public_key=key)


def _offer(index: int, width: int, patients: int) -> Offer:
    key = Identity.from_seed(bytes([index + 1]) * 32).public_key
    name = f"site-{index}"
    return Offer(
        party=Party(name=name, institution=f"Hospital {index}", public_key=key), cohort="A",
        modalities=(BESIDE, CANARIES),
        dataset=DatasetReference(name=name, version=1, fingerprint="0" * 64, schema_hash="5" * 64, patients=patients),
        features={BESIDE: WIDTH_BESIDE, CANARIES: width}, cohorts=("A",), task="early-late",
    )  # fmt: skip
