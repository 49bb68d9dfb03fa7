"""The worker: what runs is what the proposal says, restarts repeat, and a wrong result is never believed."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import safetensors.numpy
import torch

from datasites.data.dataset import Part, Schema, write_dataset
from datasites.review.policy import SandboxPolicy
from datasites.study.proposal import Block, Chain
from datasites.study.signing import dump, parse
from datasites.study.streams import derive
from datasites.worker import child
from datasites.worker.job import Launch, TrainingJob, WorkerJob
from datasites.worker.pool import WorkerPool
from datasites.worker.trainer import SandboxedTrainer, read_result, trial_plan
from models.build import build_model
from models.config import ModelConfig
from models.parameters import blocks, to_bytes
from privacy.canonical import sha256_hex
from privacy.dp.mechanism import LossRelease
from privacy.errors import InvalidInput, Refused

torch.set_num_threads(1)
FEATURES = {"mrna": 6, "image": 4, "clinical": 3}
CONFIG = ModelConfig(architecture="linear", features=FEATURES, cohorts=("LUSC",), classes=2)
SECRET = b"s" * 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("worker") / "lung" / "v1"
    schema = Schema(
        name="lung",
        version=1,
        institution="alba",
        cohort="LUSC",
        cohorts=("LUSC",),
        task="early-late",
        classes=2,
        modalities=("mrna", "image", "clinical"),
        features={m: tuple(f"{m}{i}" for i in range(n)) for m, n in FEATURES.items()},
        preprocessing={},
        source="synthetic",
    )
    generator = np.random.default_rng(1)
    cases = tuple(f"CASE-{i:03d}" for i in range(60))
    labels = generator.integers(0, 2, 60)
    inputs = {
        m: (cases, (generator.normal(size=(60, n)) + labels[:, None]).astype(np.float32)) for m, n in FEATURES.items()
    }
    part = Part(cases=cases, cohorts=("LUSC",) * 60, labels=tuple(int(v) for v in labels), inputs=inputs)
    write_dataset(folder, schema, part)
    return folder


@pytest.fixture
def proposal(new_proposal):
    model = build_model(CONFIG, seed=0)
    found = tuple(
        Block(name=name, modality=modality, length=length, parameters=tuple(names))
        for name, modality, names, length in blocks(model, CONFIG)
    )
    return new_proposal(model=CONFIG, blocks=found)


def job(proposal, dataset, output: Path, **changes) -> WorkerJob:
    fields = {
        "proposal": proposal,
        "plan": trial_plan(proposal),
        "site": "alba",
        "schema": dataset / "schema.json",
        "part": dataset / "private",
        "model": None,
        "code": None,
        "output": output,
        "seed": "01" * 32,
        "membership": "02" * 32,
    }
    return WorkerJob(**{**fields, **changes})


COUNT = {"kind": "count", "unit": "", "low": 0.0, "high": 9.0, "typical": 2.0, "spread": 0.0, "edges": []}


def test_a_round_gives_one_vector_per_contributed_block(proposal, dataset, tmp_path):
    vectors, facts = child.run(job(proposal, dataset, tmp_path))
    assert {n: v.shape for n, v in vectors.items()} == {"mrna": (6,), "clinical": (3,), "shared": (1,)}
    assert all(np.abs(v).max() > 0 for v in vectors.values())
    assert facts["releases"] == {}


def test_the_same_job_gives_the_same_bytes_and_another_seed_others(proposal, dataset, tmp_path):
    first, _ = child.run(job(proposal, dataset, tmp_path))
    again, _ = child.run(job(proposal, dataset, tmp_path))
    other, _ = child.run(job(proposal, dataset, tmp_path, seed="03" * 32))
    assert all(first[n].tobytes() == again[n].tobytes() for n in first)
    assert all((first[n] != other[n]).any() for n in first)


def test_a_modality_that_the_site_does_not_contribute_has_no_influence(proposal, dataset, tmp_path):
    training, _ = child.records_of(job(proposal, dataset, tmp_path))
    assert float(training["image"].abs().sum()) == 0
    assert training["presence"][:, 1].sum() == 0
    assert training["presence"][:, 0].sum() == 60


@pytest.mark.parametrize("change", ["self_scaled", "predicts"])
def test_a_study_that_takes_the_dataset_for_another_reads_nothing(proposal, dataset, tmp_path, change):
    path = Path(shutil.copytree(dataset, tmp_path / "other")) / "schema.json"
    told = json.loads(path.read_bytes())
    other = {"self_scaled": ["mrna"]} if change == "self_scaled" else {"classes": 0, "predicts": COUNT}
    path.write_text(json.dumps({**told, **other}))
    with pytest.raises(InvalidInput, match=r"scaled by its own patients|of another kind"):
        child.records_of(job(proposal, path.parent, tmp_path))


def test_a_blending_scale_shrinks_what_leaves_of_its_modality(proposal, dataset, tmp_path):
    plain, _ = child.run(job(proposal, dataset, tmp_path))
    plan = replace(trial_plan(proposal), scales={"mrna": 0.001})
    scaled, _ = child.run(job(proposal, dataset, tmp_path, plan=plan))
    assert plan.plan_hash != trial_plan(proposal).plan_hash  # another plan draws other noise, so compare sizes
    ratio = np.abs(scaled["mrna"]).mean() / np.abs(plain["mrna"]).mean()
    assert ratio < 0.01
    assert np.abs(scaled["clinical"]).mean() > 0.1 * np.abs(plain["clinical"]).mean()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_scale_of_a_thousandth_shrinks_the_displacement_a_thousandfold(proposal, dataset, tmp_path, optimizer):
    training = replace(proposal.training, optimizer=optimizer)
    public = replace(proposal, seed=1, training=training)  # the same noise under any plan
    plain, _ = child.run(job(public, dataset, tmp_path))
    plan = replace(trial_plan(public), scales={"mrna": 0.001})
    scaled, _ = child.run(job(public, dataset, tmp_path, plan=plan))
    sizes = {n: float(np.linalg.norm(scaled[n]) / np.linalg.norm(plain[n])) for n in scaled}
    assert sizes["mrna"] == pytest.approx(0.001, rel=0.05)
    assert sizes["clinical"] == pytest.approx(1.0, rel=0.05)


def test_after_the_last_release_every_record_trains(proposal, dataset, tmp_path):
    release = LossRelease(every_rounds=1, bound=2.0, noise_multiplier=0.0, terms=3, last_round=1)
    proposal = replace(proposal, mechanism=replace(proposal.mechanism, losses=release))
    sizes = []
    for number in (1, 2):
        made = job(proposal, dataset, tmp_path, plan=replace(trial_plan(proposal), round=number))
        training, validation = child.records_of(made)
        sizes.append((len(training["label"]), len(validation["label"])))
        _, facts = child.run(made)
        assert bool(facts["releases"]) == (number == 1)
    assert sizes[0][0] < 60 == sum(sizes[0])
    assert sizes[1] == (60, 0)


def test_losses_are_released_in_their_rounds_only_and_split_by_membership(proposal, dataset, tmp_path):
    release = LossRelease(every_rounds=2, bound=2.0, noise_multiplier=0.0, terms=3)
    proposal = replace(proposal, mechanism=replace(proposal.mechanism, losses=release))
    _, silent = child.run(job(proposal, dataset, tmp_path))
    assert silent["releases"] == {}
    plan = replace(trial_plan(proposal), round=2)
    _, facts = child.run(job(proposal, dataset, tmp_path, plan=plan))
    terms = {name.split(".")[2] for name in facts["releases"]}
    assert terms == {"mrna+clinical", "mrna", "clinical"}
    both = facts["releases"]["loss.training.mrna"] + facts["releases"]["loss.validation.mrna"]
    assert both == pytest.approx(60 * np.log(2), rel=1e-4)  # the linear model starts at zero
    assert 0 < facts["releases"]["loss.validation.mrna"] < facts["releases"]["loss.training.mrna"]


def test_a_job_survives_its_way_to_the_worker(proposal, dataset, tmp_path):
    from datasites.worker.pool import _encoded

    sent = job(proposal, dataset, tmp_path, checks=True)
    assert child.read_job(_encoded(sent)) == sent
    launch = Launch(readable=("/a",), writable="/b", hidden=("/c",), limits=SandboxPolicy(time_seconds=3))
    assert Launch.decode(launch.encode()) == launch


def test_what_the_worker_gets_of_the_secret_is_bound_to_its_round():
    facts = {"study": "s", "round": 1, "plan": "p", "dataset": "d"}
    one = derive(SECRET, "round", facts)
    assert one == derive(SECRET, "round", dict(reversed(facts.items())))
    assert one != derive(SECRET, "round", facts | {"round": 2})
    assert SECRET.hex() not in one
    assert one != derive(SECRET, "membership", facts)


@pytest.mark.parametrize("wrong", ["shape", "name", "type", "bytes", "extra"])
def test_a_wrong_result_is_refused(proposal, tmp_path, wrong):
    vectors = {b.name: np.zeros(b.length, np.float32) for b in proposal.blocks_of("alba")}
    path = tmp_path / "result.safetensors"
    if wrong == "shape":
        vectors["mrna"] = np.zeros(7, np.float32)
    elif wrong == "name":
        vectors["other"] = vectors.pop("mrna")
    elif wrong == "type":
        vectors["mrna"] = np.zeros(6, np.float64)
    elif wrong == "extra":
        vectors["patients"] = np.zeros(6, np.float32)
    data = safetensors.numpy.save(vectors, metadata={"tessera": json.dumps({"releases": {}})})
    path.write_bytes(data[:-3] if wrong == "bytes" else data)
    with pytest.raises(InvalidInput):
        read_result(path, proposal, "alba")


@pytest.fixture(scope="module")
def pool(warm_here):
    with WorkerPool(SandboxPolicy(time_seconds=120, minimum_layers=("rlimits",))) as pool:
        pool.start()
        yield pool


@pytest.fixture
def trainer(pool, tmp_path):
    return SandboxedTrainer(site="alba", pool=pool, folder=tmp_path / "jobs", code_of=lambda _: tmp_path)


def training_job(proposal, dataset) -> TrainingJob:
    return TrainingJob(
        proposal=proposal,
        plan=trial_plan(proposal),
        model=to_bytes(build_model(CONFIG, seed=0)),
        dataset=dataset,
        noise_secret=SECRET,
    )


def test_a_sandboxed_round_equals_itself_after_a_restart_of_the_server(trainer, pool, proposal, dataset):
    first = trainer(training_job(proposal, dataset))
    pool.close()
    again = trainer(training_job(proposal, dataset))
    assert first is not None
    assert again is not None
    assert all(first.updates[n].tobytes() == again.updates[n].tobytes() for n in first.updates)
    assert not list(trainer.folder.iterdir())


def test_a_round_that_is_cut_short_with_its_datasite_has_not_failed(trainer, pool, proposal, dataset):
    """Else each stop of a hospital in the middle of a round would send noise, and wait for its people."""
    told, ends = [], []
    trainer = replace(trainer, failed=lambda outcome, _log: told.append(outcome))
    pool.start()
    server = psutil.Process(pool.server_pid)

    def train() -> None:
        try:
            ends.append(trainer(training_job(proposal, dataset)))
        except Refused as error:
            ends.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    while not server.children(recursive=True):
        time.sleep(0.001)
    pool.close()
    thread.join(240)
    assert told == [] and "done again after a start" in str(ends[0])


def test_a_model_of_another_shape_fails_without_an_update(trainer, proposal, dataset):
    told = []
    trainer = replace(trainer, failed=lambda outcome, log: told.append((outcome.status, log)))
    other = build_model(replace(CONFIG, features={"mrna": 6}), seed=0)
    assert trainer(replace(training_job(proposal, dataset), model=to_bytes(other))) is None
    assert told[0][0] == "failed"


def test_rounds_of_several_threads_run_side_by_side(trainer, proposal, dataset):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(trainer(training_job(proposal, dataset)))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert len(results) == 3
    assert len({r.updates["mrna"].tobytes() for r in results}) == 1


def test_the_server_ends_with_its_daemon(pool, proposal):
    pool.start()
    process = pool._server
    pool._control.close()
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is not None
    pool._control = None


def test_a_server_whose_daemon_dies_during_its_imports_ends_at_once():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-I", "-m", "datasites.worker.server", str(theirs.fileno())]
    server = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd="/", stdin=subprocess.DEVNULL)
    theirs.close()
    time.sleep(0.5)
    ours.close()
    assert server.wait(120) == 0  # without a word, and before it could say that it is ready


def test_a_round_plan_survives_canonical_json(proposal):
    plan = trial_plan(proposal)
    assert parse(type(plan), dump(plan)) == plan


def test_the_initial_model_is_built_without_data_and_has_the_bytes_that_a_proposal_binds(
    proposal, tmp_path: Path
) -> None:
    jobs = []

    class Watched(WorkerPool):
        def run(self, job):
            jobs.append(job)
            return super().run(job)

    mlp = ModelConfig(architecture="mlp", features=FEATURES, cohorts=("LUSC",), classes=2)
    with Watched(SandboxPolicy()) as pool:
        trainer = SandboxedTrainer(site="alba", pool=pool, folder=tmp_path, code_of=lambda _: tmp_path)
        for config, seed in ((CONFIG, 0), (mlp, 7)):
            expected = to_bytes(build_model(config, seed=seed))
            chain = Chain(model_hash=sha256_hex(expected), seed=seed)
            assert trainer.initial_model(replace(proposal, model=config, chain=chain)) == expected
    assert [(job.part, job.schema, job.model) for job in jobs] == [(None, None, None)] * 2
