"""The child process that sees the records: one job in, one result file out.

It runs inside the sandbox (:mod:`datasites.sandbox`), forked by :mod:`datasites.worker_server`. The plan supplies the
model and the loss of every record; training is ours (:func:`privacy.dp_sgd.train`), so that what runs is what is
charged. The result holds one float32 vector per block and the noised numbers that are released, nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn

import models.build
from datasites.contract import Proposal, RoundPlan, parse
from datasites.dataset import case_ids, load, membership, read_schema
from datasites.loss_release import released_losses
from datasites.plan_checks import check_independence
from datasites.released_numbers import VALIDATION, training_share, validates
from datasites.score_release import released_scores
from datasites.shared_encoding import share_integers
from datasites.worker_protocol import RESULT_NAME, WorkerJob
from models.batch import to_tensors
from models.config import MODALITIES, ModelConfig
from models.parameters import flatten, from_bytes
from privacy import dp_sgd
from privacy.errors import InvalidInput
from privacy.randomness import Randomness

RecordLoss = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
Inputs = dict[str, Tensor]
METADATA = "tessera"


def main(source: BinaryIO) -> None:
    """Read one job, run it, and write its result file, whole or not at all."""
    job = read_job(source.read())
    vectors, facts = run(job)
    data = safetensors.numpy.save(vectors, metadata={METADATA: json.dumps(facts)})
    staging = job.output / f"{RESULT_NAME}.new"
    staging.write_bytes(data)
    staging.replace(job.output / RESULT_NAME)


def read_job(data: bytes) -> WorkerJob:
    """Read a job as :mod:`datasites.worker_pool` writes it."""
    value: dict[str, Any] = json.loads(data)
    return WorkerJob(
        proposal=parse(Proposal, value["proposal"]),
        plan=parse(RoundPlan, value["plan"]),
        site=value["site"],
        schema=Path(value["schema"]),
        part=Path(value["part"]),
        model=Path(value["model"]) if value["model"] else None,
        code=Path(value["code"]) if value["code"] else None,
        output=Path(value["output"]),
        seed=value["seed"],
        membership=value["membership"],
        checks=value["checks"],
    )


def run(job: WorkerJob) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train one round; return the update of every block this site sends, and the released numbers and checks."""
    proposal = job.proposal
    training, validation = _records(job)
    randomness = Randomness(
        bytes.fromhex(job.seed),
        study=job.plan.study,
        round=job.plan.round,
        plan_hash=job.plan.plan_hash,
        dataset_fingerprint=proposal.participant(job.site).dataset.fingerprint,
    )
    model, record_loss = _plan(job)
    checks = check_independence(model, record_loss, training) if job.checks else []
    if job.model is not None:
        from_bytes(model, job.model.read_bytes())
    releases = _releases(job, model, record_loss, training, validation, randomness)
    blocks = proposal.blocks_of(job.site)
    if proposal.noise == "shared":
        return _shares(job, model, record_loss, training, randomness), {"releases": releases, "checks": checks}
    before = {block.name: flatten(model, block.parameters) for block in blocks}
    _train(job, model, record_loss, training, randomness)
    vectors = {block.name: flatten(model, block.parameters) - before[block.name] for block in blocks}
    return vectors, {"releases": releases, "checks": checks}


def _records(job: WorkerJob) -> tuple[Inputs, Inputs]:
    """Return the records that train and those that validate, with only the modalities this site contributes."""
    schema = read_schema(job.schema)
    arrays = {name: np.array(array) for name, array in load(job.part, schema).items()}  # own, writable memory
    contributed = job.proposal.participant(job.site).modalities
    for modality in set(schema.features) - set(contributed):
        arrays["presence"][:, MODALITIES.index(modality)] = 0
        arrays[modality][:] = 0
    known = {*job.proposal.model.features, "presence", "cohort", "label"}
    inputs = {name: tensor for name, tensor in to_tensors(arrays).items() if name in known}
    if not validates(job.proposal):
        return inputs, {name: tensor[:0] for name, tensor in inputs.items()}
    side = membership(case_ids(job.part), bytes.fromhex(job.membership), validation=VALIDATION)
    trains = torch.from_numpy(side)
    return {n: t[trains] for n, t in inputs.items()}, {n: t[~trains] for n, t in inputs.items()}


def _releases(
    job: WorkerJob, model: nn.Module, record_loss: RecordLoss, training: Inputs, validation: Inputs, stream: Randomness
) -> dict[str, float]:
    """Return the noised numbers this round releases; an empty mapping in most rounds."""
    mechanism, number, found = job.proposal.mechanism, job.plan.round, dict[str, float]()
    if mechanism.losses is not None and mechanism.releases_losses(number):
        found |= released_losses(
            model,
            record_loss,
            training,
            validation,
            modalities=job.proposal.participant(job.site).modalities,
            release=mechanism.losses,
            randomness=stream,
        )
    if mechanism.evaluation is not None and mechanism.releases_evaluation(number):
        found |= released_scores(
            model,
            validation,
            classes=job.proposal.model.classes,
            release=mechanism.evaluation,
            randomness=stream,
        )
    return found


def _shares(
    job: WorkerJob, model: nn.Module, record_loss: RecordLoss, inputs: Inputs, randomness: Randomness
) -> dict[str, np.ndarray]:
    """Return one step's clipped gradient sum with this site's share of the noise, as integers in float32."""
    owner = {name: block.modality for block in job.proposal.blocks for name in block.parameters}
    sums = dp_sgd.clipped_gradient_sum(
        model,
        inputs,
        record_loss,
        job.proposal.mechanism,
        randomness.child("training"),
        modality_of_parameter=owner.get,
    )
    vectors = {}
    for block in job.proposal.blocks_of(job.site):
        flat = np.concatenate([sums[name].reshape(-1) for name in block.parameters])
        vectors[block.name] = share_integers(job.proposal, block, flat, randomness).astype(np.float32)
    return vectors


def _train(job: WorkerJob, model: nn.Module, record_loss: RecordLoss, inputs: Inputs, randomness: Randomness) -> None:
    proposal, settings = job.proposal, job.proposal.training
    patients = proposal.participant(job.site).dataset.patients
    share = training_share(proposal)
    owner = {name: block.modality for block in proposal.blocks for name in block.parameters}
    dp_sgd.train(
        model,
        inputs,
        record_loss,
        proposal.mechanism,
        randomness.child("training"),
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        expected_records=max(1.0, share * patients),
        modality_of_parameter=owner.get,
        part_scales=job.plan.scales,
        proximal_mu=settings.proximal_mu,
    )


def _plan(job: WorkerJob) -> tuple[nn.Module, RecordLoss]:
    """Return the model and the loss: our own by specification, or those of the approved code tree."""
    config, seed = job.proposal.model, job.proposal.seed or 0
    if job.proposal.plan.kind == "declarative":
        return models.build.build_model(config, seed=seed), models.build.record_loss
    if job.code is None:
        raise InvalidInput("expected the code tree of a plan with free Python, got none")
    return load_plan(job.code, config, seed=seed)


def load_plan(code: Path, config: ModelConfig, *, seed: int) -> tuple[nn.Module, RecordLoss]:
    """Run ``plan.py`` of an approved code tree and return its model and its ``record_loss``.

    Raises:
        InvalidInput: the file, ``build_model`` or ``record_loss`` is missing.
    """
    module = _module(code / "plan.py")
    build, loss = getattr(module, "build_model", None), getattr(module, "record_loss", None)
    if not callable(build) or not callable(loss):
        raise InvalidInput("expected plan.py to define build_model(config, seed) and record_loss(model, batch)")
    model = build(config, seed=seed)
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"expected build_model to return a torch module, got a {type(model).__name__}")
    return model, loss


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InvalidInput("expected the code tree to have a file plan.py")
    sys.path.insert(0, os.fspath(path.parent))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
