"""An audit of the whole path of a round: dataset, worker, sampling, clipping, noise, share, rounding, sum, releases.

Made-up patients ("canaries") each push one coordinate of the linear model; a coin decides which are in the dataset. The
dataset is written and read as a hospital's is, the worker's code trains on it, the daemon's code encodes the update,
and the integers are added and decoded as the orchestrator does. Three tests then try to refute what is charged:

* scores of present and absent canaries against the claimed trade-off curve (:func:`privacy.dp.audit.against_curve`);
* the noise of a hospital without patients, by chi-square, in the update, the losses and the histograms;
* how far one patient moves losses and histograms without noise, against the sensitivity that is charged.

The three share ``failure``. :data:`FAULTS` are ways in which a path has been, or could be, broken.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
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
from datasites.worker.child import records_of, run
from datasites.worker.job import WorkerJob
from models.build import build_model, record_loss
from models.parameters import from_bytes
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.canonical import sha256_hex
from privacy.dp.accounting import PrivacyLoss
from privacy.dp.audit import CurveResult, against_curve, too_quiet
from privacy.dp.mechanism import HistogramRelease, LossRelease, Mechanism
from privacy.errors import InvalidInput
from privacy.identity import Identity

Noise = Literal["local", "shared"]
NOISES: tuple[Noise, ...] = ("local", "shared")
Floats = NDArray[np.float64]
Work = Callable[[WorkerJob], tuple[dict[str, np.ndarray], dict[str, Any]]]
_EPSILONS = tuple(np.linspace(0.0, 6.0, 61))
_LOUDNESS = 3000.0
_RATE = 1e-6
_QUIET_ROUNDS = 40
_PARTS = 5  # of ``failure``: the curve has one, four chi-squares the others


def claim_of(noise: Noise) -> Mechanism:
    """Return the mechanism that is audited where no study is named; each fault passes its claim by a factor of two."""
    return Mechanism(
        max_grad_norm=1.0, noise_multiplier=1.5, sampling_rate=0.5, steps_per_round=1, rounds=4, target_delta=1e-5,
        noise=noise,
        losses=LossRelease(every_rounds=1, bound=1.5, noise_multiplier=10.0),
        evaluation=HistogramRelease(every_rounds=1, noise_multiplier=10.0, scored_apart=True),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fault:
    """How what runs differs from what is claimed: another mechanism, or a worker that reads every record twice."""

    runs: Callable[[Mechanism], Mechanism] = lambda claimed: claimed
    doubled: bool = False


def _with_noise(factor: float) -> Callable[[Mechanism], Mechanism]:
    def changed(m: Mechanism) -> Mechanism:
        losses = m.losses and replace(m.losses, noise_multiplier=factor * m.losses.noise_multiplier)
        evaluation = m.evaluation and replace(m.evaluation, noise_multiplier=factor * m.evaluation.noise_multiplier)
        return replace(m, noise_multiplier=factor * m.noise_multiplier, losses=losses, evaluation=evaluation)

    return changed


def _four_times(m: Mechanism) -> Mechanism:
    return replace(m, rounds=4 * m.rounds)


def _wide_clip(m: Mechanism) -> Mechanism:
    return replace(m, max_grad_norm=2 * m.max_grad_norm, noise_multiplier=m.noise_multiplier / 2)


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "half-noise": Fault(runs=_with_noise(0.5)),
        "noise-over-sqrt-8": Fault(runs=_with_noise(8**-0.5)),
        "every-record": Fault(runs=lambda m: replace(m, sampling_rate=1.0)),
        "doubled-records": Fault(doubled=True),
        "clip-2c": Fault(runs=_wide_clip),
        "four-times-the-steps": Fault(runs=_four_times),
    }
)


@dataclass(frozen=True, kw_only=True)
class PathResult:
    """What the audit of one path found; ``quiet`` are the probabilities of so little noise, by what carries it.

    ``moved`` are how far one patient moved a release over what is charged; above 1 the charge is refuted.
    """

    noise: str
    curve: CurveResult
    quiet: Mapping[str, float]
    moved: Mapping[str, float]
    failure: float

    @property
    def flagged(self) -> bool:
        """Whether any test refutes the claim."""
        return (
            self.curve.flagged
            or any(p < self.failure / _PARTS for p in self.quiet.values())
            or any(distance > 1 + 2.0**-13 for distance in self.moved.values())
        )


def audit_path(
    noise: Noise, *, canaries: int = 2400, seed: int = 0, failure: float = 0.02, fault: Fault | None = None,
    claimed: Mechanism | None = None,
) -> PathResult:  # fmt: skip
    """Run the whole path on made-up patients and test it against what is charged.

    Args:
        noise: which of the two.
        canaries: coin tosses, at least 50.
        seed: public seed of coins, records and noise.
        failure: probability of accusing a path that does what is charged.
        fault: what to break on purpose.
        claimed: the mechanism that is charged; None means :func:`claim_of`.

    Raises:
        InvalidInput: too few canaries, or a mechanism without noise.
    """
    if canaries < 50:
        raise InvalidInput(f"expected at least 50 canaries, got {canaries}")
    claim, broken = claimed or claim_of(noise), fault or Fault()
    if not claim.private:
        raise InvalidInput("expected a mechanism with noise: one without has nothing to audit")
    bare = replace(claim, losses=None, count=None, evaluation=None)
    coins = np.random.default_rng([seed, 1]).random(canaries) < 0.5
    path = _Path.of(broken.runs(bare), width=canaries, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        scores = path.scores(path.dataset(Path(folder) / "canaries", coins), _doubled if broken.doubled else run)
    deltas = PrivacyLoss(bare.event()).deltas(_EPSILONS, slack=bare.total_variation())
    profile = tuple(zip(_EPSILONS, deltas, strict=True))
    curve = against_curve(scores[coins], scores[~coins], profile, failure=failure / _PARTS)
    quiet = {"update": too_quiet(path.empty(), bare.noise_multiplier * bare.max_grad_norm)}
    return PathResult(
        noise=noise,
        curve=curve,
        quiet=quiet | _quiet_releases(claim, broken, seed),
        moved=_moved(broken.runs(claim), seed),
        failure=failure,
    )


@dataclass(frozen=True, kw_only=True)
class _Path:
    """One study of made-up hospitals: the first has the canaries, the others nobody, and add their noise only."""

    proposal: Proposal
    model: bytes
    seed: int

    @classmethod
    def of(cls, mechanism: Mechanism, *, width: int, seed: int, patients: int = 400) -> _Path:
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
        m = self.proposal.mechanism
        count = m.min_sites - m.colluders if m.noise == "shared" else 1
        return [p.name for p in self.proposal.participants[:count]]

    def plan(self, number: int) -> RoundPlan:
        proposal = self.proposal
        names = [p.name for p in proposal.participants]
        return RoundPlan(
            study=proposal.study, proposal_hash=proposal.proposal_hash, round=number, model_hash=sha256_hex(self.model),
            key_hash="0" * 64, weights={b.name: dict.fromkeys(names, 1.0) for b in proposal.exchanged_blocks()},
            scales={}, deadline_seconds=60, canonical=proposal.canonical,
        )  # fmt: skip

    def dataset(self, folder: Path, coins: NDArray[np.bool_]) -> Path:
        """Write the canaries that are in, as a hospital's dataset, and return the folder."""
        config = self.proposal.model
        width = config.features["mrna"]
        chosen = np.flatnonzero(coins)
        values = np.zeros((len(chosen), width), np.float32)
        values[np.arange(len(chosen)), chosen] = _LOUDNESS * math.sqrt(width)
        names = tuple(f"C{index:06d}" for index in chosen)
        schema = Schema(
            name="site-0", version=1, institution="Hospital 0", cohort="A", cohorts=("A",), task="early-late",
            classes=2,
            modalities=("mrna",), features={"mrna": tuple(f"g{i}" for i in range(width))},
            preprocessing={"mrna": "none"}, source="made up",
        )  # fmt: skip
        part = Part(
            cases=names, cohorts=("A",) * len(names), labels=(1,) * len(names), inputs={"mrna": (names, values)}
        )
        write_dataset(folder, schema, part)
        return folder

    def scores(self, dataset: Path, work: Work) -> Floats:
        """Return the noised gradient sum of all rounds, by canary, in the direction in which a canary pushes."""
        total = np.zeros(self.proposal.model.features["mrna"])
        for number in range(1, self.proposal.rounds + 1):
            first, *others = self.honest
            updates = {first: self._worked(number, first, dataset, work)}
            updates |= {site: self._trained(number, site)[0] for site in others}
            total += self._decoded(number, updates)
        return total

    def empty(self) -> Floats:
        """Return the noise of rounds in which no hospital has a patient, in units of the gradient."""
        rounds = range(1, min(4, self.proposal.rounds) + 1)
        return np.concatenate(
            [self._decoded(n, {site: self._trained(n, site)[0] for site in self.honest}) for n in rounds]
        )

    def released(self, number: int, records: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Return what the first hospital releases beside its update; ``records`` train and validate."""
        return self._trained(number, self.honest[0], records)[1]

    def _worked(self, number: int, site: str, dataset: Path, work: Work) -> Mapping[str, np.ndarray]:
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

    def _trained(
        self, number: int, site: str, records: Mapping[str, Tensor] | None = None
    ) -> tuple[Mapping[str, np.ndarray], dict[str, float]]:
        plan = self.plan(number)
        model = build_model(self.proposal.model, seed=0)
        from_bytes(model, self.model)
        held = _nobody(self.proposal.model.features["mrna"]) if records is None else records
        seed = worker_seed(self.proposal, plan, site, public_secret(self.seed, site))
        stream = worker_stream(self.proposal, plan, site, seed)
        return train_round(self.proposal, plan, site, model, record_loss, held, held, stream)

    def _decoded(self, number: int, updates: Mapping[str, Mapping[str, np.ndarray]]) -> Floats:
        """Encode, add and decode as sites and orchestrator do; return the noised sum of the canaries' gradients."""
        proposal, plan = self.proposal, self.plan(number)
        block = next(b for b in proposal.exchanged_blocks() if b.modality == "mrna")
        total = np.zeros(block.length, np.int64)
        for site, vectors in updates.items():
            stream = daemon_stream(proposal, plan, site, public_secret(self.seed, site))
            total += encode_update(proposal, plan, site, vectors, stream)[block.name]
        records = float(proposal.participants[0].dataset.patients)
        before = np.concatenate([model_from_bytes(self.model)[name].ravel() for name in block.parameters])
        mean = proposal.noise_mode.mean_update(proposal, plan, block, total, before, sorted(updates), records)
        return np.asarray(mean, np.float64) * proposal.mechanism.sampling_rate * records / _RATE


@lru_cache(maxsize=16)
def _template(
    noise: Noise, min_sites: int, colluders: int, sites: int, width: int, patients: int
) -> tuple[Proposal, bytes]:
    """Return a study of made-up hospitals and its model; noise, rounds and seed are put in afterwards."""
    settings = StudySettings(
        study="audit", purpose="Audit.", legal_basis="Made-up records.", task="early-late", rounds=1,
        epsilon=8.0, sampling_rate=1.0, noise=noise, steps_per_round=1, learning_rate=_RATE, weight_decay=0.0, seed=0,
        min_sites=min_sites, colluders=colluders,
    )  # fmt: skip
    offers = [_offer(index, width, patients) for index in range(sites)]
    return build_proposal(settings, offers, orchestrator=_party(98), keyholder=_party(99), code={})


def _doubled(job: WorkerJob) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Do what the worker does, on a table in which every patient stands twice."""
    training, validation = records_of(job)
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in training.items()}
    model = build_model(job.proposal.model, seed=0)
    if job.model is not None:
        from_bytes(model, job.model.read_bytes())
    stream = worker_stream(job.proposal, job.plan, job.site, job.seed)
    vectors, releases = train_round(job.proposal, job.plan, job.site, model, record_loss, twice, validation, stream)
    return vectors, {"releases": releases}


def _quiet_releases(claim: Mechanism, fault: Fault, seed: int) -> dict[str, float]:
    """Return how probable so little noise is, in the losses and histograms of a hospital without patients."""
    found = {}
    rounds = replace(claim, rounds=_QUIET_ROUNDS, sampling_rate=1.0)
    for name, release in (("losses", claim.losses), ("histograms", claim.evaluation)):
        if release is None:
            continue
        only = replace(rounds, losses=None, count=None, evaluation=None)
        every = replace(release, every_rounds=1)
        part = replace(only, losses=every) if isinstance(every, LossRelease) else replace(only, evaluation=every)
        path = _Path.of(fault.runs(part), width=4, seed=seed)
        numbers = [v for n in range(1, _QUIET_ROUNDS + 1) for v in path.released(n).values()]
        found[name] = too_quiet(np.array(numbers), release.noise_multiplier * release.sensitivity)
    return found


def _moved(runs: Mechanism, seed: int) -> dict[str, float]:
    """Return how far one patient moves losses and histograms without noise, over their charged sensitivity."""
    found = {}
    for name, release in (("losses", runs.losses), ("histograms", runs.evaluation)):
        if release is None:
            continue
        silent = replace(release, every_rounds=1, noise_multiplier=0.0)
        one = replace(runs, rounds=1, losses=None, count=None, evaluation=None)
        part = replace(one, losses=silent) if isinstance(silent, LossRelease) else replace(one, evaluation=silent)
        path = _Path.of(part, width=40, seed=seed)
        crowd = _crowd(200, 40, seed)
        fewer = {key: tensor[1:] for key, tensor in crowd.items()}
        with_it, without = path.released(1, crowd), path.released(1, fewer)
        # the crowd trains and validates here, so each patient counts on both sides; a study never does that
        sides = math.sqrt(2) if name == "losses" else 1.0
        distance = math.sqrt(sum((with_it[key] - without[key]) ** 2 for key in with_it))
        found[name] = distance / (release.sensitivity * sides)
    return found


def _crowd(count: int, width: int, seed: int) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    records = _nobody(width, count)
    records["mrna"] = 50 * torch.randn(count, width, generator=stream)
    records["presence"][:] = 1.0
    records["label"] = torch.randint(0, 2, (count,), generator=stream)
    return records


def _nobody(width: int, count: int = 0) -> dict[str, Tensor]:
    return {
        "mrna": torch.zeros(count, width),
        "presence": torch.zeros(count, 1),
        "cohort": torch.zeros(count, dtype=torch.int64),
        "label": torch.zeros(count, dtype=torch.int64),
    }


def _party(number: int) -> Party:
    key = Identity.from_seed(bytes([number]) * 32).public_key
    return Party(name=f"party-{number}", institution=f"Party {number}", public_key=key)


def _offer(index: int, width: int, patients: int) -> Offer:
    key = Identity.from_seed(bytes([index + 1]) * 32).public_key
    name = f"site-{index}"
    return Offer(
        party=Party(name=name, institution=f"Hospital {index}", public_key=key), cohort="A", modalities=("mrna",),
        dataset=DatasetReference(name=name, version=1, fingerprint="0" * 64, schema_hash="5" * 64, patients=patients),
        features={"mrna": width}, cohorts=("A",), task="early-late",
    )  # fmt: skip
