"""A consortium without network and encryption: the same models, site training, weights and server step, in memory.

Simulated and live rounds share their parts: :func:`privacy.dp.sgd.train` (local noise) and
:func:`privacy.dp.sgd.clipped_gradient_sum` (shared noise) at the sites, :mod:`datasites.strategy.weights`,
:class:`datasites.study.recomputed.next_model.ServerOptimizer`, :mod:`datasites.strategy.blending` and
:mod:`datasites.strategy.proximity` between them. What is left out is quantisation and encryption, which give the
exact sum of rounded updates. Without privacy (``mechanism`` None) a site takes full-batch steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from torch import nn

from datasites.strategy import proximity as prox
from datasites.strategy.blending import BlendingState, observe, scales
from datasites.strategy.registry import noise_named, strategy_named
from datasites.strategy.weights import bounded
from datasites.study.proposal import Block, Training
from datasites.study.recomputed.centring import centre_size, moment_of
from datasites.study.recomputed.next_model import ServerOptimizer, with_centres
from datasites.training.site import moment_loss
from models.batch import RecordLoss, modalities_of
from models.build import build_model, record_loss
from models.config import ModelConfig
from models.networks import LinearFusion
from models.parameters import assign, blocks, flatten, from_bytes, to_bytes
from orchestrator.simulation.sites import Records, SimulatedSite, score
from orchestrator.studies.evaluation import Metrics
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.errors import InvalidInput
from research.combination_heads import head_blocks
from research.combination_losses import evaluate_losses
from research.linear_steps import descend
from research.simulation_settings import SimulationSettings

Vectors = dict[str, np.ndarray]


@dataclass
class Study:
    """The running state of one simulated study."""

    config: ModelConfig
    settings: SimulationSettings
    sites: Sequence[SimulatedSite]
    seed: int
    model: nn.Module
    exchanged: list[Block]
    server: ServerOptimizer
    heads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    blending: BlendingState = field(default_factory=BlendingState)
    proximities: dict[str, float] = field(default_factory=dict)
    published: dict[str, dict[str, float]] = field(default_factory=dict)

    def holders(self, block: Block) -> list[SimulatedSite]:
        """Return the sites that contribute to ``block``."""
        return [s for s in self.sites if self.holds(s, block)]

    def holds(self, site: SimulatedSite, block: Block) -> bool:
        """Return whether ``site`` contributes to ``block``."""
        if block.name in self.heads:
            return site.name in self.heads[block.name]
        return block.modality is None or block.modality in site.modalities


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a simulated study: test scores after every round and at the end, and the final model."""

    curve: tuple[float, ...]
    final: Metrics
    model: nn.Module
    weights: Mapping[str, Mapping[str, float]]
    scales: Mapping[str, float]


def simulate(
    config: ModelConfig,
    sites: Sequence[SimulatedSite],
    test: Records,
    settings: SimulationSettings,
    *,
    seed: int,
    begin: Callable[[bytes, ModelConfig], bytes] | None = None,
) -> Outcome:
    """Train one study over ``sites`` and score it on ``test`` after every round.

    Args:
        config: the model; its cohorts are the indices of the records' ``cohort``.
        sites: the institutions; one site alone trains alone.
        test: held-out records, in no site.
        settings: see :class:`SimulationSettings`.
        seed: of the initial model, the noise and the sampling; public, so a simulation is not private.
        begin: writes public constants into the initial model, for settings with public centres.

    Raises:
        Refused: proximity weighting under shared noise.
        InvalidInput: centring without privacy, or of another model than the linear one; heads per combination with it.
    """
    if settings.proximity is not None and settings.mechanism is not None:
        strategy_named("pcw").check_noise(noise_named(settings.mechanism.noise))
    if settings.centre and settings.mechanism is None:
        raise InvalidInput("feature means are released under privacy only; expected a mechanism with centre")
    if config.heads == "combination" and settings.mechanism is not None:
        raise InvalidInput("heads of single institutions are averaged for comparison without privacy only")
    config = replace(
        config,
        centred=settings.centre,
        cohort_gain=settings.cohort_gain,
        standardised=settings.standardised,
        shrunk=settings.shrunk,
        public_centres=settings.public_centres,
    )
    study = _start(config, sites, settings, seed)
    if settings.public_centres and begin is not None:
        from_bytes(study.model, begin(to_bytes(study.model), config))
    curve = []
    weights: dict[str, dict[str, float]] = {}
    factors: dict[str, float] = {}
    for number in range(1, settings.rounds + 1):
        weights, factors = _round(study, number)
        curve.append(score(study.model, test, config).auroc)
    final = score(study.model, test, config)
    return Outcome(curve=tuple(curve), final=final, model=study.model, weights=weights, scales=factors)


def _start(config: ModelConfig, sites: Sequence[SimulatedSite], settings: SimulationSettings, seed: int) -> Study:
    model = build_model(config, seed=seed)
    found = [
        Block(name=name, modality=cast("None", modality), length=length, parameters=tuple(names))
        for name, modality, names, length in blocks(model, config)
    ]
    training = Training(
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        update_bound=1.0,
        server_optimizer=settings.server_optimizer,
        server_learning_rate=settings.server_learning_rate,
        aggregation="fedavg",
        proximal_mu=settings.proximal_mu,
    )
    study = Study(
        config=config,
        settings=settings,
        sites=sites,
        seed=seed,
        model=model,
        exchanged=[],
        server=ServerOptimizer(training),
    )
    shared = settings.mechanism is not None and settings.mechanism.noise == "shared"
    # under shared noise all sites send every part that anybody holds, so that all shares of the noise are in it
    enough = 1 if shared else min(settings.min_sites, len(sites))
    study.exchanged = [b for b in found if len(study.holders(b)) >= enough]
    if config.heads == "combination":
        for block, holders in head_blocks(model, sites):
            study.heads[block.name] = holders
            study.exchanged.append(block)
    return study


def _round(study: Study, number: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """One round: train at every site, weigh, average per block, step; then observe for the next round."""
    settings = study.settings
    measuring = settings.blending is not None and number <= settings.last_measured
    if settings.mechanism is not None and settings.mechanism.noise == "shared":
        means = _shared_round(study, number)
        weights = {b.name: {s.name: 1.0 for s in study.sites} for b in study.exchanged}
        factors = _factors(study)
    else:
        updates = {site.name: _site_update(study, site, number, measuring) for site in study.sites}
        weights, factors = _weights(study), _factors(study)
        means = {b.name: _mean(study, b, updates, weights[b.name]) for b in study.exchanged}
        if settings.proximity is not None and settings.proximity.reads(number):
            _observe_proximity(study, number, updates, means, weights)
    arrays = {n: p.detach().numpy() for n, p in study.model.named_parameters()}
    moment = moment_of(study.config, number)
    if settings.mechanism is not None and moment is not None:
        pull = settings.weight_decay + settings.proximal_mu
        size = centre_size(settings.mechanism, rate=settings.learning_rate, pull=pull, moment=moment)
        deviations = {b.name: _deviation(study, b, weights[b.name]) for b in study.exchanged}
        stepped = with_centres(
            arrays, study.exchanged, means, size, moment, deviations if study.config.shrunk else None
        )
    else:
        scaled = {b.name: means[b.name] * np.float32(factors.get(b.modality or "", 1.0)) for b in study.exchanged}
        stepped = study.server.step(arrays, study.exchanged, scaled)
    for name in stepped:
        assign(study.model, [name], stepped[name].ravel())
    if measuring and settings.blending is not None and number % settings.evaluate_every == 0:
        losses = evaluate_losses(study.model, study.sites, record_loss, settings.mechanism, study.seed, number)
        study.blending = observe(study.blending, losses, settings.blending)
    return weights, factors


def _deviation(study: Study, block: Block, weights: Mapping[str, float]) -> float:
    """Return the noise on each coordinate of a block's mean update, as
    :func:`datasites.study.recomputed.next_model.noise_deviation` has it of a live round."""
    mechanism, holders = study.settings.mechanism, study.holders(block)
    if mechanism is None:
        return 0.0
    step = study.settings.learning_rate * mechanism.share_deviation / mechanism.sampling_rate
    if mechanism.noise == "shared":
        return step * math.sqrt(len(study.sites)) / sum(s.patients for s in holders)
    parts = [weights[s.name] / s.patients for s in holders]
    return step * math.sqrt(mechanism.steps_per_round) * math.hypot(*parts) / sum(weights[s.name] for s in holders)


def _factors(study: Study) -> dict[str, float]:
    rule = study.settings.blending
    if rule is None or rule.published:  # the published rule scales at each site, by its own modalities
        return {}
    return scales(study.blending, study.config.modalities, rule)


def _site_update(study: Study, site: SimulatedSite, number: int, measuring: bool) -> Vectors:
    """Train a copy of the global model at one site and return the displacement of every block it holds."""
    names = [n for n, _ in study.model.named_parameters()]
    before = flatten(study.model, names)
    records = {n: v[site.trains] for n, v in site.records.items()} if measuring else site.records
    settings = study.settings
    if settings.mechanism is None:
        _plain_steps(study.model, records, settings)
    else:
        _private_steps(study, site, records, number, settings.mechanism)
    after = {b.name: flatten(study.model, b.parameters) for b in study.exchanged}
    assign(study.model, names, before)
    rule = settings.blending
    own = scales(study.blending, site.modalities, rule) if rule is not None and rule.published else {}
    return {
        b.name: (after[b.name] - flatten(study.model, b.parameters)) * np.float32(own.get(b.modality or "", 1.0))
        for b in study.exchanged
        if study.holds(site, b)
    }


def _plain_steps(model: nn.Module, records: Records, settings: SimulationSettings) -> None:
    if isinstance(model, LinearFusion) and settings.optimizer == "sgd":
        descend(
            model,
            records,
            steps=settings.local_steps,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            proximal_mu=settings.proximal_mu,
        )
        return
    parameters = list(model.parameters())
    start = [p.detach().clone() for p in parameters]
    adam = None
    if settings.optimizer == "adam":
        adam = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    for _ in range(settings.local_steps):
        gradients = torch.autograd.grad(record_loss(model, records).mean(), parameters)
        for parameter, origin, gradient in zip(parameters, start, gradients, strict=True):
            parameter.grad = gradient.add_(parameter.detach() - origin, alpha=settings.proximal_mu)
        if adam is not None:
            adam.step()
        else:
            _descend(parameters, settings)
    model.zero_grad(set_to_none=True)


def _descend(parameters: Sequence[nn.Parameter], settings: SimulationSettings) -> None:
    """One step of gradient descent with weight decay; torch.optim would first import a compiler (five seconds)."""
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.mul_(1 - settings.learning_rate * settings.weight_decay)
                parameter.add_(parameter.grad, alpha=-settings.learning_rate)


def _private_steps(study: Study, site: SimulatedSite, records: Records, number: int, mechanism: Mechanism) -> None:
    from privacy.dp.sgd import train

    settings = study.settings
    train(
        study.model,
        records,
        _loss(study, mechanism, number),
        mechanism,
        _randomness(study, site, number),
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        expected_records=len(records["label"]),
        proximal_mu=settings.proximal_mu,
    )


def _loss(study: Study, mechanism: Mechanism, number: int) -> RecordLoss:
    moment = moment_of(study.config, number)
    return record_loss if moment is None else moment_loss(moment, study.config, mechanism, study.exchanged)


def _randomness(study: Study, site: SimulatedSite, number: int) -> Randomness:
    return Randomness.public(study.seed, site=site.name, study="simulation", round=number, plan_hash="")


def _shared_round(study: Study, number: int) -> Vectors:
    """One DP-SGD step over the union of the sites: every site adds its clipped sum and its share of the noise."""
    from privacy.dp.sgd import clipped_gradient_sum

    mechanism = study.settings.mechanism
    if mechanism is None:
        return {}
    total = {b.name: np.zeros(b.length) for b in study.exchanged}
    loss = _loss(study, mechanism, number)
    for site in study.sites:
        stream = _randomness(study, site, number)
        sums = clipped_gradient_sum(study.model, site.records, loss, mechanism, stream)
        for block in study.exchanged:
            own = np.concatenate([sums[name].ravel() for name in block.parameters])
            total[block.name] += own + stream.child(block.name).gaussian(own.shape, mechanism.share_deviation)
    means = {}
    for block in study.exchanged:
        patients = sum(s.patients for s in study.holders(block))
        gradient = total[block.name] / (mechanism.sampling_rate * patients)
        decay = study.settings.weight_decay * flatten(study.model, block.parameters)
        means[block.name] = (-study.settings.learning_rate * (gradient + decay)).astype(np.float32)
    return means


def _weights(study: Study) -> dict[str, dict[str, float]]:
    rule = study.settings.proximity
    counts = {s.name: float(s.patients) for s in study.sites}
    cohorts = {s.name: s.cohort for s in study.sites}
    result: dict[str, dict[str, float]] = {}
    for block in study.exchanged:
        raw = {s.name: counts[s.name] for s in study.holders(block)}
        if rule is not None and rule.published:
            result[block.name] = prox.weighted_as_published(raw, study.published.get(block.name, {}))
            continue
        if rule is not None:
            raw = prox.weighted(raw, study.proximities, cohorts, rule)
        fewest = study.settings.min_sites
        result[block.name] = bounded(raw, min_sites=fewest) if len(raw) >= fewest else raw
    return result


def _mean(study: Study, block: Block, updates: Mapping[str, Vectors], weights: Mapping[str, float]) -> np.ndarray:
    total = sum(weights.values())
    if total <= 0:
        return np.zeros(block.length, dtype=np.float32)
    parts = [weights[s.name] / total * updates[s.name][block.name] for s in study.holders(block)]
    mean: np.ndarray = np.add.reduce(parts, axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _observe_proximity(
    study: Study,
    number: int,
    updates: Mapping[str, Vectors],
    means: Vectors,
    weights: Mapping[str, Mapping[str, float]],
) -> None:
    rule = study.settings.proximity
    if rule is None:
        return
    shares = {block: {s: w / sum(own.values()) for s, w in own.items()} for block, own in weights.items()}
    if rule.published:
        study.published = {
            block: {s: prox.proximity(updates[s][block], means[block], w, rule) for s, w in own.items() if w < 1}
            for block, own in shares.items()
        }
        return
    now = {}
    for site in study.sites:
        own = {b: v for b, v in updates[site.name].items() if b in site.modalities and shares[b][site.name] < 1}
        if own:
            now[site.name] = prox.site_proximity(own, means, {b: shares[b][site.name] for b in own}, rule)
    study.proximities = prox.accumulate(study.proximities, now, number, rule)


def modality_mask(records: Records, modalities: Sequence[str]) -> Records:
    """Return ``records`` with only ``modalities`` present."""
    keep = torch.tensor([float(m in modalities) for m in modalities_of(records)])
    return {**records, "presence": records["presence"] * keep}
