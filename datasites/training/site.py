"""What a site computes in one round from records in memory: the update of every block, and the released numbers.

The worker calls it inside its sandbox, :mod:`orchestrator.simulation.engine` calls it in the open: there is no other
training. What comes out carries its noise already; under shared noise it carries the site's share.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasites.study.messages import RoundPlan
from datasites.study.proposal import Block, Proposal
from datasites.study.recomputed.centring import Moment, moment_of, unit_of
from datasites.study.recomputed.next_model import flatten
from datasites.study.recomputed.released_numbers import step_records, validates
from datasites.training.local_parameters import PREFIX, own_names
from datasites.training.statistics import released_losses, released_scores
from models.batch import RecordLoss
from models.config import ModelConfig
from privacy.dp import sgd
from privacy.dp.fixed_batches import TOGETHER
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness

Inputs = Mapping[str, Tensor]
Vectors = dict[str, np.ndarray]


def train_round(
    proposal: Proposal,
    plan: RoundPlan,
    site: str,
    model: nn.Module,
    record_loss: RecordLoss,
    training: Inputs,
    validation: Inputs,
    randomness: Randomness,
) -> tuple[Vectors, dict[str, float]]:
    """Return one float32 vector per block that ``site`` sends, and the numbers it releases in this round.

    Args:
        proposal: the study's.
        plan: the round's.
        site: whose records these are.
        model: the global model; trained in place under local noise, but for a round that releases feature means.
        record_loss: float32 [B] per record.
        training: the records that train.
        validation: the records that validate; disjoint from ``training``.
        randomness: :func:`datasites.study.streams.worker_stream` of the round.
    """
    releases = _releases(proposal, plan, site, model, record_loss, training, validation, randomness)
    moment = moment_of(proposal.model, plan.round)
    if moment is not None:
        record_loss = moment_loss(moment, proposal.model, proposal.mechanism, proposal.exchanged_blocks())
        model = copy.deepcopy(model)  # what moves are means, not weights: nothing of it is kept here
    if not proposal.noise_mode.sites_train:
        return _shares(proposal, site, model, record_loss, training, randomness), releases
    blocks = proposal.blocks_of(site)
    before = _vectors(model, blocks)
    _train(proposal, plan, site, model, record_loss, training, randomness)
    return {name: after - before[name] for name, after in _vectors(model, blocks).items()}, releases


_TILE = 16
"""A multiple of the numbers that a vector unit takes at once, up to 512 bits."""


def rows_together(proposal: Proposal) -> int:
    """Return how many records run in one pass: code that is not ours computes every record alone.

    Only the networks of ``models`` are known to give a record the same bits wherever it stands among others, and of
    these only such with layers of whole tiles: with an embedding of 10 or 15, say, the last bits differ by place.
    """
    model = proposal.model
    widths = () if model.architecture in ("linear", "counts") else (model.embedding, model.hidden)
    ours = not proposal.own_network and all(width % _TILE == 0 for width in widths)
    return TOGETHER if ours else 1


def _vectors(model: nn.Module, blocks: Iterable[Block]) -> Vectors:
    """Return a copy of every block's parameters, float32 [block.length]."""
    arrays = {name: parameter.detach().cpu().numpy() for name, parameter in model.named_parameters()}
    return {block.name: flatten(arrays, block) for block in blocks}


def own_parameters(proposal: Proposal, model: nn.Module) -> Vectors:
    """Return a trained model's parameters that its site keeps, by their names in a worker's result."""
    named = dict(model.named_parameters())
    return {PREFIX + name: named[name].detach().cpu().numpy().copy() for name in own_names(proposal, named)}


def split_records(
    proposal: Proposal, number: int, inputs: Inputs, trains: Callable[[], NDArray[np.bool_]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the records that train and those that validate (none in a round that keeps none apart).

    Args:
        proposal: the study's.
        number: the round.
        inputs: all records of the site.
        trains: says by keyed hash which records train; asked only where some validate.
    """
    if not validates(proposal, number):
        return dict(inputs), {name: tensor[:0] for name, tensor in inputs.items()}
    side = torch.from_numpy(trains()).to(inputs["label"].device)
    return {n: t[side] for n, t in inputs.items()}, {n: t[~side] for n, t in inputs.items()}


def _releases(
    proposal: Proposal,
    plan: RoundPlan,
    site: str,
    model: nn.Module,
    record_loss: RecordLoss,
    training: Inputs,
    validation: Inputs,
    stream: Randomness,
) -> dict[str, float]:
    """Return the noised numbers this round releases; an empty mapping in most rounds."""
    mechanism, number, found = proposal.mechanism, plan.round, dict[str, float]()
    if mechanism.losses is not None and mechanism.releases_losses(number):
        found |= released_losses(
            model,
            record_loss,
            training,
            validation,
            modalities=proposal.participant(site).modalities,
            release=mechanism.losses,
            randomness=stream,
            together=rows_together(proposal),
        )
    if mechanism.evaluation is not None and mechanism.releases_evaluation(number):
        found |= released_scores(
            model,
            validation,
            config=proposal.model,
            release=mechanism.evaluation,
            randomness=stream,
            patterns_of=proposal.participant(site).modalities if proposal.evaluated_by_pattern else (),
            together=rows_together(proposal),
        )
    return found


def _shares(
    proposal: Proposal, site: str, model: nn.Module, record_loss: RecordLoss, inputs: Inputs, randomness: Randomness
) -> Vectors:
    """Return one step's clipped gradient sum with this site's share of the noise, as integers in float32."""
    owner = {name: block.modality for block in proposal.blocks for name in block.parameters}
    sums = sgd.clipped_gradient_sum(
        model,
        inputs,
        record_loss,
        proposal.mechanism,
        randomness.child("training"),
        modality_of_parameter=owner.get,
        together=rows_together(proposal),
    )
    noise = proposal.noise_mode
    return {b.name: noise.share(proposal, b, flatten(sums, b), randomness) for b in proposal.blocks_of(site)}


def _train(
    proposal: Proposal,
    plan: RoundPlan,
    site: str,
    model: nn.Module,
    record_loss: RecordLoss,
    inputs: Inputs,
    randomness: Randomness,
) -> None:
    settings = proposal.training
    patients = proposal.participant(site).dataset.patients
    owner = {name: block.modality for block in proposal.blocks for name in block.parameters}
    sgd.train(
        model,
        inputs,
        record_loss,
        proposal.mechanism,
        randomness.child("training"),
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        expected_records=step_records(proposal, plan.round, patients),
        modality_of_parameter=owner.get,
        part_scales=plan.scales,
        proximal_mu=settings.proximal_mu,
        together=rows_together(proposal),
    )


def moment_loss(moment: Moment, config: ModelConfig, mechanism: Mechanism, exchanged: Iterable[Block]) -> RecordLoss:
    """Return the loss whose gradient is what a round without training releases of the exchanged modalities.

    Args:
        moment: means, what is left of them, or spreads; the last two of the modalities that ``config`` standardises.
        config: the model.
        mechanism: whose clipping norm is the unit.
        exchanged: the exchanged blocks.
    """
    from models.losses import centring_loss, refining_loss  # needs torch, which a daemon does not load

    modalities = {block.modality for block in exchanged if block.modality is not None}
    unit = unit_of(moment, mechanism.max_grad_norm)
    if moment == "means":
        return centring_loss(unit, modalities)
    return refining_loss(unit, modalities & set(config.standardised), spreads=moment == "spreads")
