"""An audit of the whole path of a round: dataset, worker, sampling, clipping, noise, share, rounding, sum, releases.

Made-up patients ("canaries") each push one coordinate of the linear model; a coin decides which are in the dataset. The
dataset is written and read as a hospital's is, the worker's code trains on it, the daemon's code encodes the update,
and the integers are added and decoded as the orchestrator does (:mod:`orchestrator.simulation.audited_path`). These
tests then try to refute what is charged:

* scores of present and absent canaries against the claimed trade-off curve (:func:`privacy.dp.audit.against_curve`);
* the size of the noise in every part of the update, with and without patients, and in losses and histograms;
* whether it is fresh noise: the same in no two rounds, hospitals or releases, at every value, of a normal shape
  (:mod:`orchestrator.simulation.noise_patterns`);
* how many records are in the batches, and whether the number differs between them as it should;
* how far one patient moves the update, the losses and the histograms, against what is charged.

They share ``failure``. :data:`FAULTS` are ways in which a path has been, or could be, broken.
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

from datasites.study.streams import worker_stream
from datasites.training.site import train_round
from datasites.worker.child import records_of, run
from datasites.worker.job import WorkerJob
from models.build import build_model, record_loss
from models.parameters import from_bytes
from orchestrator.simulation.audited_path import CANARIES, WIDTH_BESIDE, AuditedPath, Floats, crowd, loud
from orchestrator.simulation.noise_patterns import most_alike, odd_batches, odd_shape, silent
from privacy.dp.accounting import PrivacyLoss
from privacy.dp.audit import CurveResult, against_curve, too_quiet
from privacy.dp.mechanism import HistogramRelease, LossRelease, Mechanism
from privacy.errors import InvalidInput

Noise = Literal["local", "shared"]
NOISES: tuple[Noise, ...] = ("local", "shared")
_EPSILONS = tuple(np.linspace(0.0, 6.0, 61))
_ROUNDS = 8
_RELEASE_ROUNDS = 40
_LOUD = 200
_POOL, _POOL_WIDTH = 1000, 1600  # so wide that their sum stays inside the public box
_LEFT_OUT = 8
_PARTS = 12  # of ``failure``: the curve has one, chi-squares and patterns the others


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How ``tessera audit-privacy`` shares its chance of accusing honest code: ``step`` and, for each noise, ``path``.

    By the union bound the chance is at most ``step + paths * path``, which is one minus the confidence.
    """

    step: float
    path: float

    @classmethod
    def of(cls, confidence: float, *, paths: int) -> Levels:
        """Return the levels: three quarters to the bound of the step, the rest to the paths alike."""
        return cls(step=0.75 * (1 - confidence), path=(1 - confidence) / (4 * paths))


def path_canaries(canaries: int) -> int:
    """Return how many coins the command tosses for a path: more than for the step, since the curve needs them."""
    return max(50, 12 * canaries // 5)


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
_NOT_RUN = CurveResult(threshold=0.0, observed=0.0, allowed=1.0, canaries=0, tests=0)


@dataclass(frozen=True, kw_only=True)
class PathResult:
    """What the audit of one path found; ``quiet`` are the probabilities of so little noise, by what carries it.

    ``patterns`` are the probabilities of noise that looks so little like fresh noise, and of so many records in
    batches. ``moved`` are how far one patient moved a release over what is charged; above 1 the charge is refuted.
    """

    noise: str
    curve: CurveResult
    quiet: Mapping[str, float]
    patterns: Mapping[str, float]
    moved: Mapping[str, float]
    failure: float

    @property
    def flagged(self) -> bool:
        """Whether any test refutes the claim."""
        return self.curve.flagged or self.refutes(self.quiet) or self.refutes(self.patterns) or self.moved_too_far

    @property
    def moved_too_far(self) -> bool:
        """Whether one patient moves some release by more than is charged."""
        return any(distance > 1 + 2.0**-13 for distance in self.moved.values())

    def refutes(self, chances: Mapping[str, float]) -> bool:
        """Whether any of these probabilities is too small to be chance."""
        return any(chance < self.failure / _PARTS for chance in chances.values())


def audit_path(
    noise: Noise, *, canaries: int = 2400, seed: int = 0, failure: float = 0.02, fault: Fault | None = None,
    claimed: Mechanism | None = None, until_refuted: bool = False,
) -> PathResult:  # fmt: skip
    """Run the whole path on made-up patients and test it against what is charged.

    Args:
        noise: which of the two.
        canaries: coin tosses, at least 50.
        seed: public seed of coins, records and noise.
        failure: probability of accusing a path that does what is charged.
        fault: what to break on purpose.
        claimed: the mechanism that is charged; None means :func:`claim_of`.
        until_refuted: leave out the curve and the likeness of noises, the dear ones, if another test refutes the claim
            already. Every test has its own share of ``failure``, so the verdict is the same.

    Raises:
        InvalidInput: too few canaries, or a mechanism without noise.
    """
    if canaries < 50:
        raise InvalidInput(f"expected at least 50 canaries, got {canaries}")
    claim, broken = claimed or claim_of(noise), fault or Fault()
    if not claim.private:
        raise InvalidInput("expected a mechanism with noise: one without has nothing to audit")
    bare = replace(claim, losses=None, count=None, evaluation=None)
    quiet, patterns, vectors = _noise_of_updates(bare, broken, width=canaries, seed=seed)
    silence, fresh = _noise_of_releases(claim, broken, seed)
    result = PathResult(
        noise=noise,
        curve=_NOT_RUN,
        quiet=quiet | silence,
        patterns=patterns,
        moved={"update": _update_moved(bare, broken, width=canaries, seed=seed), **_moved(broken.runs(claim), seed)},
        failure=failure,
    )
    if until_refuted and result.flagged:
        return result
    coins = np.random.default_rng([seed, 1]).random(canaries) < 0.5
    path = AuditedPath.of(broken.runs(bare), width=canaries, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        scores = path.scores(path.dataset(Path(folder) / "canaries", coins), _doubled if broken.doubled else run)
    total = scores.sum(axis=0)
    alike = most_alike([*vectors, *fresh, [row[coins] - row[coins].mean() for row in scores]])
    curve = against_curve(total[coins], total[~coins], _profile(bare), failure=failure / _PARTS)
    return replace(result, curve=curve, patterns={"alike": alike, **patterns})


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


@lru_cache(maxsize=16)
def _profile(bare: Mechanism) -> tuple[tuple[float, float], ...]:
    """Return the claimed privacy profile: pairs of epsilon and delta."""
    deltas = PrivacyLoss(bare.event()).deltas(_EPSILONS, slack=bare.total_variation())
    return tuple(zip(_EPSILONS, deltas, strict=True))


def _noise_of_updates(
    claim: Mechanism, fault: Fault, *, width: int, seed: int
) -> tuple[dict[str, float], dict[str, float], list[list[Floats]]]:
    """Return how probable so little noise is in updates, and how probable its patterns are, and the noise itself."""
    runs = replace(fault.runs(claim), rounds=_ROUNDS)
    path, deviation = AuditedPath.of(runs, width=width, seed=seed), _deviation(claim)
    sites = list(dict.fromkeys([*path.honest, *(p.name for p in path.proposal.participants[:2])]))
    alone: list[dict[str, dict[str, Floats]]] = [
        {site: path.decoded(n, {site: path.trained(n, site)[0]}) for site in sites} for n in range(1, _ROUNDS + 1)
    ]
    sums = [
        {m: np.sum([found[site][m] for site in path.honest], axis=0) / deviation for m in path.features}
        for found in alone
    ]
    quiet = {f"update of {m}": too_quiet(np.concatenate([row[m] for row in sums]), 1.0) for m in path.features}
    many = [AuditedPath.of(replace(runs, sampling_rate=1.0), width=width, seed=s) for s in (seed, seed + 1)]
    one, other = (_joined(p.sums(1, loud(p.features, _LOUD, seed))) for p in many)
    quiet["update of many patients"] = too_quiet((one - other) / math.sqrt(2), deviation)
    rows, every = [_joined(row) for row in sums], [_joined(found[site]) for found in alone for site in sites]
    patterns = {
        "silent": silent(rows),
        "shape": odd_shape(np.concatenate(every), jitter=np.random.default_rng([seed, 3])),
        "batches": _records_in_batches(claim, AuditedPath.of(runs, width=_POOL_WIDTH, seed=seed)),
    }
    return quiet, patterns, [every]


def _records_in_batches(claim: Mechanism, path: AuditedPath) -> float:
    """Return how probable so many records in the batches are, or numbers of them that are so alike."""
    records = loud(path.features, _POOL, path.seed, only=(CANARIES,))
    direction = np.sign(records[CANARIES][0].numpy().astype(np.float64))
    whole = replace(path.proposal.mechanism, sampling_rate=1.0, noise_multiplier=claim.noise_multiplier)
    all_in = AuditedPath.of(whole, width=_POOL_WIDTH, seed=path.seed)
    one = float(all_in.sums(1, records)[CANARIES] @ direction) / (_POOL * claim.steps_per_round)
    unit = min(one, math.sqrt(direction.size) * claim.max_grad_norm)  # clipped by modality, a record counts for less
    return odd_batches(
        [float(path.sums(n, records)[CANARIES] @ direction) / unit for n in range(1, _ROUNDS + 1)],
        records=_POOL, rate=claim.sampling_rate, steps=claim.steps_per_round,
        deviation=claim.noise_multiplier * claim.max_grad_norm * math.sqrt(direction.size) / unit,
    )  # fmt: skip


def _update_moved(claim: Mechanism, fault: Fault, *, width: int, seed: int) -> float:
    """Return how far a patient moves the update over what is charged, from many whose gradients are alike.

    With and without them a round draws the same noise, so that it falls out; rounding is left, of six steps at most.
    """
    runs = replace(fault.runs(claim), sampling_rate=1.0)
    differences, step = [], 0.0
    for path in (AuditedPath.of(runs, width=width, seed=s) for s in (seed, seed + 1)):
        before = _joined(path.sums(1))
        differences.append(_joined(path.sums(1, loud(path.features, _LOUD, seed))) - before)
        step = max(step, float(np.diff(np.unique(before)).min()))
    one, other = differences
    distance = float(one @ other / np.linalg.norm(other)) - 6 * step
    return distance / (_LOUD * claim.max_grad_norm * claim.steps_per_round)


def _noise_of_releases(claim: Mechanism, fault: Fault, seed: int) -> tuple[dict[str, float], list[list[Floats]]]:
    """Return how probable so little noise is in losses and histograms, and their noise in groups to be compared."""
    losses, scores = claim.losses, claim.evaluation
    part = replace(
        claim, rounds=_RELEASE_ROUNDS, count=None,
        losses=losses and replace(losses, every_rounds=1, last_round=None),
        evaluation=scores and replace(scores, every_rounds=1),
    )  # fmt: skip
    path = AuditedPath.of(fault.runs(part), width=WIDTH_BESIDE, seed=seed)
    site, quiet, groups = path.honest[0], dict[str, float](), list[list[Floats]]()
    rounds = [path.trained(n, site) for n in range(1, _RELEASE_ROUNDS + 1)]
    updates = [path.decoded(n, {site: vectors})[CANARIES] for n, (vectors, _) in enumerate(rounds, 1)]
    by_kind = {}
    for name, prefix, release in (("losses", "loss.", losses), ("histograms", "score.", scores)):
        if release is None:
            continue
        rows = [np.array([v for k, v in sorted(numbers.items()) if k.startswith(prefix)]) for _, numbers in rounds]
        by_kind[name], whole = rows, np.concatenate(rows)
        quiet[name] = too_quiet(whole, release.noise_multiplier * release.sensitivity)
        groups += [rows, [whole], [whole, np.concatenate([u[: r.size] for u, r in zip(updates, rows, strict=True)])]]
    if len(by_kind) == 2:
        few, many = by_kind["losses"], by_kind["histograms"]
        groups.append([np.concatenate(few), np.concatenate([m[: f.size] for f, m in zip(few, many, strict=True)])])
    return quiet, groups


def _deviation(claim: Mechanism) -> float:
    return claim.noise_multiplier * claim.max_grad_norm * math.sqrt(claim.steps_per_round)


def _joined(by_modality: Mapping[str, Floats]) -> Floats:
    return np.concatenate([by_modality[m] for m in sorted(by_modality)])


def _moved(runs: Mechanism, seed: int) -> dict[str, float]:
    """Return how far a patient moves losses and histograms without noise, over their sensitivity: the worst of some."""
    found = {}
    for name, release in (("losses", runs.losses), ("histograms", runs.evaluation)):
        if release is None:
            continue
        silent = replace(release, every_rounds=1, noise_multiplier=0.0)
        one = replace(runs, rounds=1, losses=None, count=None, evaluation=None)
        part = replace(one, losses=silent) if isinstance(silent, LossRelease) else replace(one, evaluation=silent)
        path = AuditedPath.of(part, width=40, seed=seed)
        many = crowd(path.features, 200, seed)
        with_it, distances = path.released(1, many, weight=1.0), []
        for left_out in range(_LEFT_OUT):
            fewer = {key: torch.cat([t[:left_out], t[left_out + 1 :]]) for key, t in many.items()}
            without = path.released(1, fewer, weight=1.0)
            distances.append(math.sqrt(sum((with_it[key] - without[key]) ** 2 for key in with_it)))
        # the crowd trains and validates here, so each patient counts on both sides; a study never does that
        sides = math.sqrt(2) if name == "losses" else 1.0
        found[name] = max(distances) / (release.sensitivity * sides)
    return found
