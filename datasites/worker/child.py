"""The child process that sees the records: one job in, one result file out.

It runs inside the sandbox (:mod:`datasites.worker.sandbox`), forked by :mod:`datasites.worker.server`. The plan
supplies the model and the loss of every record; training is ours (:func:`privacy.dp.sgd.train`), so that what runs is
what is charged. The result holds one float32 vector per block and the noised numbers that are released, nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from torch import Tensor, nn

import models.build
from datasites.data.dataset import Schema, case_ids, load, membership, read_schema
from datasites.language import mark
from datasites.strategy.own_step import InThisProcess, check_rule, load_rule, output_bytes, read_input, stepped
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.recomputed.released_numbers import VALIDATION
from datasites.study.signing import parse
from datasites.study.streams import worker_stream
from datasites.training.site import own_parameters, rows_together, split_records, train_round
from datasites.worker.independence import check_independence
from datasites.worker.job import OTHER_BITS, RESULT_NAME, WorkerJob
from datasites.worker.same_bits import same_bits
from models.batch import RecordLoss, modalities_of, restricted, to_tensors
from models.config import ModelConfig
from models.parameters import from_bytes
from privacy.errors import InvalidInput, Refused

METADATA = "tessera"
RULE_HOLDS = mark("the server's rule gives a model, and the same one again for the same numbers")


def main(source: BinaryIO) -> None:
    """Read one job, run it, and write its result file."""
    data = source.read()
    given = json.loads(data)
    if "open" in given:
        open_files(given["open"])
        return
    if given.get("script") is not None:
        run_script(**given["script"])
        return
    if "rule" in given:
        take_step(**given["rule"])
        return
    job = read_job(data)
    vectors, facts = run(job)
    _write(job.output, safetensors.numpy.save(vectors, metadata={METADATA: json.dumps(facts)}))


def take_step(*, code: str, given: str, output: str) -> None:
    """Take one step of the server's rule in a code tree; see :class:`datasites.worker.job.RuleJob`."""
    step = stepped(load_rule(Path(code)), *read_input(Path(given).read_bytes()))
    _write(Path(output), output_bytes(step))


def _write(folder: Path, data: bytes) -> None:
    (folder / RESULT_NAME).write_bytes(data)  # it counts only if the worker ends well: no file is renamed here


def read_job(data: bytes) -> WorkerJob:
    """Read a job as :mod:`datasites.worker.pool` writes it."""
    value: dict[str, Any] = json.loads(data)
    return WorkerJob(
        proposal=parse(Proposal, value["proposal"]),
        plan=parse(RoundPlan, value["plan"]),
        site=value["site"],
        schema=Path(value["schema"]) if value["schema"] else None,
        part=Path(value["part"]) if value["part"] else None,
        model=Path(value["model"]) if value["model"] else None,
        code=Path(value["code"]) if value["code"] else None,
        output=Path(value["output"]),
        seed=value["seed"],
        membership=value["membership"],
        checks=value["checks"],
        bits=value["bits"],
    )


def open_files(paths: Sequence[str]) -> None:
    """Open files, and every file below folders, for reading, and close them unread.

    Raises:
        OSError: one of them is not there or may not be read.
    """
    for path in map(Path, paths):
        for file in path.iterdir() if path.is_dir() else (path,):
            os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))


def run_script(
    *, code: str, entrypoint: str, data: str, output: str, environment: Mapping[str, str], seconds: float
) -> None:
    """Run a :class:`~datasites.worker.job.ScriptJob` in a copy of its code, as ``python ENTRYPOINT`` would."""
    del data, seconds  # the sandbox has seen to them
    for folder, folders, names in os.walk(code):  # the sandbox sets no modes and times, as other ways to copy would
        target = Path(output, os.path.relpath(folder, code))
        for name in folders:
            (target / name).mkdir()
        for name in names:
            (target / name).write_bytes(Path(folder, name).read_bytes())
    os.chdir(output)
    os.environ.update({"HOME": output, "TMPDIR": output, "PATH": "", **environment})
    tempfile.tempdir = os.environ["TMPDIR"]  # not tried: a trial file might not be removed
    sys.argv, sys.path[:0] = [entrypoint], [output]
    runpy.run_path(entrypoint, run_name="__main__")


def run(job: WorkerJob) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train one round; return the update of every block this site sends, and the released numbers and checks.

    A job without data returns the parameters of the plan's own initial model, by name.
    """
    proposal = job.proposal
    if job.part is None:
        return {name: p.detach().numpy() for name, p in _plan(job)[0].named_parameters()}, {}
    training, validation = records_of(job)
    model, record_loss = _plan(job)
    checks = check_independence(model, record_loss, training) + _rule_checks(job) if job.checks else []
    if job.model is not None:
        from_bytes(model, job.model.read_bytes())
    if job.bits and not same_bits(model, record_loss, training, rows_together(proposal)):
        raise Refused(OTHER_BITS)
    randomness = worker_stream(proposal, job.plan, job.site, job.seed)
    vectors, releases = train_round(proposal, job.plan, job.site, model, record_loss, training, validation, randomness)
    if job.model is not None:
        vectors |= own_parameters(proposal, model)
    return vectors, {"releases": releases, "checks": checks}


def _rule_checks(job: WorkerJob) -> list[tuple[str, bool]]:
    """Try the server's rule of the code tree on made-up numbers, if the study brings one."""
    if not job.proposal.own_server_rule or job.code is None:
        return []
    try:
        check_rule(InThisProcess(folder=job.code), {b.name: b.length for b in job.proposal.exchanged_blocks()})
    except Exception:  # foreign code may raise anything
        traceback.print_exc()
        return [(RULE_HOLDS, False)]
    return [(RULE_HOLDS, True)]


def _check_fits(schema: Schema, model: ModelConfig, contributed: Sequence[str]) -> None:
    """Refuse a study that takes the dataset's outcome for another, or is silent about how its inputs were scaled."""
    if (schema.predicts, schema.classes) != (model.predicts, model.classes):
        raise InvalidInput(f"the dataset's outcome {schema.task} is of another kind than the study's")
    if (set(schema.self_scaled) & set(contributed)) - set(model.self_scaled):
        raise InvalidInput("the dataset is scaled by its own patients, and the study does not say so")


def records_of(job: WorkerJob) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the records that train and those that validate, with only the modalities this site contributes."""
    if job.part is None or job.schema is None:
        raise InvalidInput("expected a dataset to train on, got none")
    part, schema = job.part, read_schema(job.schema)
    arrays = {name: np.array(array) for name, array in load(part, schema).items()}  # own, writable memory
    contributed = job.proposal.participant(job.site).modalities
    _check_fits(schema, job.proposal.model, contributed)
    for modality in set(schema.features) - set(contributed):
        arrays["presence"][:, modalities_of(arrays).index(modality)] = 0
        arrays[modality][:] = 0
    inputs = restricted(to_tensors(arrays), job.proposal.model.features)
    secret = bytes.fromhex(job.membership)
    return split_records(
        job.proposal,
        job.plan.round,
        inputs,
        lambda: membership(case_ids(part), secret, validation=VALIDATION),
    )


def _plan(job: WorkerJob) -> tuple[nn.Module, RecordLoss]:
    """Return the model and the loss: our own by specification, or those of the approved code tree."""
    config, chain = job.proposal.model, job.proposal.chain
    seed = chain.seed if chain is not None else job.proposal.seed or 0
    if not job.proposal.own_network:
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
