"""Many simulated studies: one for every method and seed, in parallel processes, and their mean with its interval."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from datasites.data.federations import Federation, build
from datasites.data.synthetic import DEFAULT_SHAPE, generate
from datasites.data.tcga.tables import Images, Tables, read_tables
from datasites.strategy.registry import NOISE_MODES, STRATEGIES
from datasites.study.proposal import Participant
from datasites.study.signing import dump
from models.batch import restricted
from models.config import Architecture, InvalidModel
from models.devices import chosen_device
from orchestrator.rounds.scoring.dp_evaluation import dp_evaluation
from orchestrator.rounds.scoring.outcome_figures import OutcomeMetrics
from orchestrator.simulation.engine import Engine, Shard, SimulatedRound, run_study
from orchestrator.simulation.schema_patients import schema_patients
from orchestrator.simulation.schema_tables import table_patients
from orchestrator.simulation.sites import (
    Patients,
    SimulatedSite,
    SimulatedStudy,
    corrupted,
    patients,
    pool,
    score,
    simulated_study,
)
from orchestrator.studies.evaluation import Metrics, headline, interval, network_of
from orchestrator.studies.proposing.constants import ConstantsFile, read_constants
from orchestrator.studies.proposing.mechanisms import check_evaluation_by
from orchestrator.studies.proposing.propose import check_fusion, price_of_min_sites
from orchestrator.studies.proposing.schedule import PLAIN_ROUNDS, with_schedule
from orchestrator.studies.proposing.settings import Fusion, StudySettings
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

BASELINES = ("upper-bound", "pooled", "local")
_FIGURES = (
    *("auroc", "balanced_accuracy", "cross_entropy", "calibration_error"),
    *("concordance", "mean_absolute_error", "deviance"),
)
"""What is averaged over seeds, of those that an outcome has; the first of them compares models."""
_SCHEMA_SITES = 4
MakeEngine = Callable[[SimulatedStudy], Engine]
OnRound = Callable[[int, int, float], None]
OnEnd = Callable[[SimulatedStudy, bytes], None]


@dataclass(frozen=True, kw_only=True)
class SimulationRequest:
    """What ``tessera simulate`` is asked for; names are those of ``tessera propose`` and ``tessera demo``."""

    data: Path | None
    federation: str
    sites: int | None
    task: str
    methods: tuple[str, ...]
    architecture: str
    rounds: int | None
    epsilon: float
    delta: float
    noise: str
    fusion: str = "shared"
    alpha: float = 0.5
    split: str = "stratified"
    corrupt: str = ""
    synthetic_patients: int = 1500
    min_sites: int | None = None
    colluders: int = 1
    evaluation_share: float = 0.0
    evaluation_by: tuple[str, ...] = ()
    schema: Path | None = None
    outcome: str | None = None
    plan: Path | None = None
    constants: Path | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        methods = (*STRATEGIES, *BASELINES)
        unknown = [name for name in self.methods if name not in methods]
        if unknown or not self.methods:
            raise InvalidInput(f"expected --method out of {', '.join(methods)}, got {', '.join(unknown) or 'none'}")
        for option, value, allowed in (
            ("noise", self.noise, tuple(NOISE_MODES)),
            ("model", self.architecture, ("linear", "mlp", "mlp-auxiliary", "convolutional")),
            ("task", self.task, ("I-II", "early-late", "ordinal", "I-IV")),
        ):
            if value not in allowed:
                raise InvalidInput(f"expected --{option} out of {', '.join(allowed)}, got {value!r}")
        self._check_schema()
        try:
            chosen_device(self.device)
        except InvalidModel as error:
            raise InvalidInput(str(error)) from error
        check_fusion(self.fusion, self.architecture, self.noise)
        check_evaluation_by(self.evaluation_by, self.evaluation_share)
        if self.fusion == "combination":
            raise InvalidInput("heads that stay at their hospitals give no model to score; expected shared or tokens")
        if self.architecture == "convolutional" and self.data is None:
            raise InvalidInput("the convolutional model reads tissue maps: expected --data with BRCA's, got none")
        if not self.epsilon > 0:
            raise InvalidInput(f"expected --epsilon above 0, got {self.epsilon:g}; inf means no privacy")

    def _check_schema(self) -> None:
        if self.schema is None and self.outcome is not None:
            raise InvalidInput("expected --outcome with --schema, got it alone; TCGA tables have a --task")
        if self.schema is None:
            return
        if "upper-bound" in self.methods or self.corrupt or self.architecture == "convolutional":
            raise InvalidInput(
                "patients of a schema have no upper bound, no corrupted sites and no tissue maps; expected --schema "
                "without them"
            )

    def settings(self, method: str, seed: int, unscaled: tuple[str, ...] = (), task: str = "") -> StudySettings:
        """Return the study that one method and seed propose, over tables with ``unscaled`` modalities.

        ``task`` is the outcome of a schema, and else the request's.
        """
        settings = StudySettings(
            study=f"simulated-{seed}",
            purpose="Simulation.",
            legal_basis="Public or synthetic data.",
            task=task or self.task,
            rounds=PLAIN_ROUNDS,
            epsilon=None if math.isinf(self.epsilon) else self.epsilon,
            delta=self.delta,
            noise=self.noise,
            architecture=cast(Architecture, self.architecture),
            fusion=cast(Fusion, self.fusion),
            aggregation=method if method in STRATEGIES else "fedavg",
            min_sites=self.min_sites,
            colluders=self.colluders,
            evaluation_share=self.evaluation_share,
            evaluation_by=self.evaluation_by,
            standardised=unscaled,
            seed=seed,
        )
        return with_schedule(settings, self.rounds, constants=self.constants is not None)


def run_one(
    request: SimulationRequest,
    method: str,
    seed: int,
    *,
    make_engine: MakeEngine | None = None,
    on_round: OnRound | None = None,
    on_end: OnEnd | None = None,
) -> dict[str, Any]:
    """Run one method with one seed and return its exact scores on held-out patients, and its model's hash.

    Args:
        request: what to simulate.
        method: one of the strategies of the registry, ``upper-bound``, ``pooled`` or ``local``.
        seed: of split, initial model and noise.
        make_engine: what does the sites' part; all in this process by default.
        on_round: called with the round, how many there are, and the AUROC after it.
        on_end: called with the study and its last model (safetensors); never by ``local``, which makes many.
    """
    torch.set_num_threads(1)
    started = time.monotonic()
    study = study_of(request, method, seed)
    make = make_engine or (lambda s: Shard(s.proposal, s.sites, s.code, device=request.device))
    if method == "local":
        result = _alone(study, make)
    else:
        result = _together(_pooled(study) if method == "pooled" else study, make, on_round, on_end)
    epsilon = study.proposal.mechanism.epsilon() if not math.isinf(request.epsilon) else None
    head = {"method": method, "seed": seed, "sites": len(study.sites), "epsilon": epsilon, "delta": request.delta}
    said = {"sums": _sums(study, method), "lost": list(study.lost)}
    return {**head, **said, **result, "seconds": round(time.monotonic() - started, 2)}


def _sums(study: SimulatedStudy, method: str) -> str | None:
    """Return what ``min_sites`` costs a study under shared noise; one place alone adds up nothing."""
    if study.proposal.noise_mode.covers_single_updates or method in ("pooled", "local"):
        return None
    return price_of_min_sites(study.proposal)


def summary(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return mean and half-width of the 95 % interval (Student's t over seeds) of every method's scores."""
    methods = list(dict.fromkeys(r["method"] for r in results))
    names = [name for name in _FIGURES if results[0].get(name) is not None]
    return {m: {name: _rounded([r[name] for r in results if r["method"] == m]) for name in names} for m in methods}


def _rounded(values: Sequence[float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in interval(values).items()}


def _together(
    study: SimulatedStudy, make: MakeEngine, on_round: OnRound | None, on_end: OnEnd | None = None
) -> dict[str, Any]:
    curve, last = [], None
    for last in run_study(study.proposal, study.model, make(study), study.code):
        curve.append(round(headline(asdict(scores_of_round(study, last))), 6))
        if on_round is not None:
            on_round(last.plan.round, study.proposal.rounds, curve[-1])
    if last is None:
        raise InvalidInput("expected at least one round")
    if on_end is not None:
        on_end(study, last.model)
    return {
        **asdict(scores_of_round(study, last)),
        "curve": curve,
        "weights": {b: dict(w) for b, w in last.plan.weights.items()} if len(study.sites) <= 100 else {},
        "scales": dict(last.plan.scales),
        "evaluation": _evaluation(study, last),
        "model_hash": sha256_hex(last.model),
    }


def _evaluation(study: SimulatedStudy, done: SimulatedRound) -> dict[str, Any] | None:
    """Return the study's own evaluation as a live one releases it, with noise; None where it asked for none."""
    found = dp_evaluation(study.proposal, done.plan.round, done.finished.releases)
    return None if found is None else dump(found)


def scores_of_round(study: SimulatedStudy, done: SimulatedRound) -> Metrics | OutcomeMetrics:
    """Return the exact scores of the model after a round, on the held-out patients."""
    code = {name: (study.code / name).read_bytes() for name in study.proposal.plan.code} if study.code else None
    model = network_of(study.proposal, done.model, code)
    return score(model, restricted(study.test, study.proposal.model.features), study.proposal.model)


def _alone(study: SimulatedStudy, make: MakeEngine) -> dict[str, Any]:
    """Train every site by itself and score it on its own cohort; average within cohorts, then over them."""
    found: dict[int, list[dict[str, Any]]] = {}
    for site in study.sites:
        rows = study.test["cohort"] == site.cohort
        own = replace(_only(study, site), test={n: t[rows] for n, t in study.test.items()})
        found.setdefault(site.cohort, []).append(_together(own, make, None))
    runs = [run for of in found.values() for run in of]
    names = [name for name in _FIGURES if runs[0].get(name) is not None]
    by_cohort = {c: {name: float(np.mean([r[name] for r in of])) for name in names} for c, of in found.items()}
    mean = {name: float(np.mean([entry[name] for entry in by_cohort.values()])) for name in names}
    cohorts = study.proposal.model.cohorts
    areas = {cohorts[c]: entry[names[0]] for c, entry in sorted(by_cohort.items())}
    return {**mean, f"{names[0]}_by_cohort": areas}


def _pooled(study: SimulatedStudy) -> SimulatedStudy:
    return _only(study, pool(study.sites))


def _only(study: SimulatedStudy, site: SimulatedSite) -> SimulatedStudy:
    """Return the study as one place alone would do it; nothing is shared, so the noise is its own."""
    like = study.proposal.participants[0]
    participant = Participant(
        name=site.name,
        institution=site.name,
        public_key=like.public_key,
        modalities=site.modalities,
        cohort=like.cohort,
        dataset=replace(like.dataset, name=site.name, patients=site.patients),
    )
    proposal = replace(
        study.proposal,
        participants=(participant,),
        min_sites=1,
        noise="local",
        mechanism=replace(study.proposal.mechanism, noise="local"),
    )
    return replace(study, proposal=proposal, sites=(site,))


def study_of(request: SimulationRequest, method: str, seed: int) -> SimulatedStudy:
    """Return the study that one method and seed make of a request: sites, held-out patients, proposal, first model."""
    everyone, federation = people_of(request, method, seed)
    task = everyone.task if request.schema is not None else ""
    settings = request.settings(method, seed, everyone.unscaled, task)
    made = simulated_study(everyone, federation, settings, request.plan, _constants(request.constants))
    return replace(made, sites=tuple(corrupted(made.sites, request.corrupt, everyone.classes, seed)))


def people_of(request: SimulationRequest, method: str, seed: int) -> tuple[Patients, Federation]:
    """Return the patients of a request, and who holds which of them."""
    if request.schema is not None and request.data is not None:
        return table_patients(request.schema, request.outcome, request.data, request.sites, request.federation, seed)
    if request.schema is not None:
        return schema_patients(
            request.schema, request.outcome, request.sites or _SCHEMA_SITES, request.synthetic_patients, seed
        )
    images: Images = "tissue-maps" if request.architecture == "convolutional" else "features"
    tables = _tables(request.data, request.synthetic_patients, images)
    federation = build(
        "upper-bound" if method == "upper-bound" else request.federation,
        tables,
        task=request.task,
        seed=seed,
        sites=request.sites,
        alpha=request.alpha,
        split=request.split,
    )
    return _patients(request.data, request.synthetic_patients, images, request.task, federation.cohorts), federation


@lru_cache(maxsize=1)
def _constants(path: Path | None) -> ConstantsFile | None:
    return None if path is None else read_constants(path)


@lru_cache(maxsize=1)
def _tables(data: Path | None, synthetic_patients: int, images: Images) -> Tables:
    if data is not None:
        return read_tables(data, images=images, columns="all")
    usual = DEFAULT_SHAPE.patients
    more = synthetic_patients / sum(usual.values())
    return generate(seed=0, shape=replace(DEFAULT_SHAPE, patients={c: round(n * more) for c, n in usual.items()}))


@lru_cache(maxsize=1)
def _patients(
    data: Path | None, synthetic_patients: int, images: Images, task: str, cohorts: tuple[str, ...]
) -> Patients:
    return patients(_tables(data, synthetic_patients, images), task, cohorts)
