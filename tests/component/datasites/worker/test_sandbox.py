"""Hostile plans in the real worker: each attack is stopped and reported, and the datasite lives."""

import os
import socket
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.timing import within
from support.waiting import until

from datasites.data.dataset import Part, Schema, fingerprint, write_dataset
from datasites.review.policy import SandboxPolicy
from datasites.study.proposal import Block
from datasites.worker.pool import WorkerPool
from datasites.worker.sandbox import LAYERS, available_layers, check_layers, say_layers
from datasites.worker.trainer import SandboxedTrainer
from privacy.errors import Refused

LAYERS_HERE = available_layers()
needs = {
    name: pytest.mark.skipif(not LAYERS_HERE[name], reason=f"this kernel or container offers no {name}")
    for name in LAYERS
}

HONEST = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 1)
    def forward(self, batch):
        return self.layer(batch["mrna"])

def build_model(config, *, seed):
    return Model()

def record_loss(model, batch):
    later = batch["label"].float()
    return nn.functional.binary_cross_entropy_with_logits(model(batch)[:, 0], later, reduction="none")
"""


def attack(body: str) -> dict[str, bytes]:
    """A plan whose build_model runs ``body`` first."""
    code = HONEST.replace("    return Model()", textwrap.indent(textwrap.dedent(body), "    ") + "\n    return Model()")
    return {"plan.py": code.encode()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "lung" / "v1"
    schema = Schema(
        name="lung",
        version=1,
        institution="alba",
        cohort="LUSC",
        cohorts=("LUSC",),
        task="early-late",
        classes=2,
        modalities=("mrna", "clinical"),
        features={"mrna": tuple(f"g{i}" for i in range(6)), "clinical": ("age", "sex", "pack")},
        preprocessing={},
        source="synthetic",
    )
    generator = np.random.default_rng(1)
    cases = tuple(f"CASE-{i:03d}" for i in range(40))
    part = Part(
        cases=cases,
        cohorts=("LUSC",) * 40,
        labels=tuple(int(v) for v in generator.integers(0, 2, 40)),
        inputs={
            m: (cases, generator.normal(size=(40, n)).astype(np.float32)) for m, n in (("mrna", 6), ("clinical", 3))
        },
    )
    write_dataset(folder, schema, part)
    return folder


@pytest.fixture(scope="module")
def pool(warm_here):
    limits = SandboxPolicy(time_seconds=120, memory_bytes=2**30, output_bytes=2**20, minimum_layers=("rlimits",))
    with WorkerPool(limits) as pool:
        pool.start()
        yield pool


@pytest.fixture
def trial(pool, dataset, new_desk, new_proposal, tmp_path):
    """Submits a plan of free Python and runs it on the mock data."""

    def run(code: dict[str, bytes], limits: SandboxPolicy | None = None, watch=lambda _log: None):
        desk = new_desk("[study]\nallow_free_python = true", name=f"desk{len(list(tmp_path.iterdir()))}")
        block = Block(name="all", modality=None, length=7, parameters=("layer.weight", "layer.bias"))
        proposal = new_proposal(code=code, kind="python", blocks=(block,))
        request = desk.store.request(desk.submit(proposal, code))
        trainer = SandboxedTrainer(site="alba", pool=pool, folder=tmp_path / "jobs", code_of=lambda _: request.folder)
        usual, pool.limits = pool.limits, limits or pool.limits
        try:
            return trainer.try_on_mock(request, dataset, watch=watch)
        finally:
            pool.limits = usual

    return run


def works(trial) -> bool:
    return trial(attack("pass")).outcome.status == "ok"


def test_a_socket_cannot_be_opened(trial):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with listener:
        result = trial(attack(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=2)"))
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert result.outcome.status == "failed"
    assert not result.passed


@needs["landlock"]
def test_another_file_cannot_be_read_or_written(trial, tmp_path, dataset):
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret of the hospital")
    for line in (f"open({str(secret)!r}).read()", f"open({str(tmp_path / 'new')!r}, 'w')"):
        result = trial(attack(line))
        assert result.outcome.status == "failed"
        assert "PermissionError" in result.log
    private = dataset / "private" / "records.parquet"
    assert "PermissionError" in trial(attack(f"open({str(private)!r}, 'rb')")).log  # a dry run sees the mock only


@needs["seccomp"]
@pytest.mark.parametrize(
    "body",
    [
        "import os\nwhile True: os.fork()",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.kill(os.getppid(), 9)",
        "import os\nos.chmod('/dev/null', 0o600)",
    ],
)
def test_no_process_program_signal_or_mode_change(trial, body):
    before = threading.active_count()
    assert trial(attack(body)).outcome.status == "failed"
    assert works(trial)
    assert threading.active_count() == before


def test_fifty_gigabytes_are_not_to_be_had(trial):
    result = trial(attack("held = bytearray(50 * 2**30)"))
    assert result.outcome.status == "failed"
    assert "memory" in result.outcome.reason
    result = trial(attack("torch.ones(50 * 2**28)"))
    assert "memory" in result.outcome.reason
    assert result.outcome.peak_memory_bytes < 2**31


def test_a_worker_that_sleeps_for_ever_is_ended(trial):
    limits = SandboxPolicy(time_seconds=1, memory_bytes=2**30, minimum_layers=())
    result = trial(attack("import time\ntime.sleep(10**6)"), limits)
    assert result.outcome.status == "timed-out"
    assert within(result.outcome.seconds, 5)
    assert works(trial)


def test_what_a_plan_prints_can_be_read_while_it_runs(trial):
    """The plan ends only when its log was read: its mode says so."""
    seen: list[str] = []

    def follow(log: Path) -> None:
        def look() -> None:
            until(lambda: log.exists() and "hello" in log.read_text(), "the plan prints")
            seen.append(log.read_text())
            log.chmod(0o700)

        threading.Thread(target=look, daemon=True).start()

    waits = "import os, time\nwhile not os.fstat(1).st_mode & 0o100:\n    time.sleep(0.05)"
    result = trial(attack(f"print('hello from the plan', flush=True)\n{waits}"), watch=follow)
    assert result.outcome.status == "ok", result.outcome
    assert "hello from the plan" in seen[0]


def test_training_lets_everything_else_go_first(trial):
    here = os.nice(0)
    assert f"nice {here + 5}" in trial(attack("import os\nprint('nice', os.nice(0))")).log


def test_a_crash_is_reported_and_the_server_lives(trial):
    result = trial(attack("import ctypes\nctypes.string_at(0)"))
    assert result.outcome.status == "crashed"
    assert works(trial)


def test_the_disk_cannot_be_filled(trial):
    result = trial(attack("while True: print('x' * 10**6)"))
    assert result.outcome.status in {"failed", "crashed"}


def test_the_worker_has_no_environment_no_descriptor_and_no_secret_of_the_daemon(trial):
    os.environ["TESSERA_TEST_SECRET"] = "planted"
    try:
        body = """
        import os
        found = []
        for descriptor in range(3, 64):
            try:
                os.fstat(descriptor)
                found.append(descriptor)
            except OSError:
                pass
        print("environment", dict(os.environ), "descriptors", found)
        """
        result = trial(attack(body))
    finally:
        del os.environ["TESSERA_TEST_SECRET"]
    assert "planted" not in result.log
    assert "descriptors []" in result.log


def test_below_the_minimum_of_layers_nothing_runs():
    check_layers(["rlimits", "seccomp"], ["seccomp"])
    with pytest.raises(Refused, match="landlock"):
        check_layers(["rlimits"], ["landlock"])


def test_a_start_says_which_layers_are_active_and_what_the_policy_misses(monkeypatch, caplog):
    offered = {layer: layer != "landlock" for layer in LAYERS}
    monkeypatch.setattr("datasites.worker.sandbox.available_layers", lambda: offered)
    with caplog.at_level("INFO", logger="datasites.worker.sandbox"):
        say_layers(("rlimits",))
        assert "seccomp" in caplog.text and "not offered here: landlock" in caplog.text
        assert "no worker will run" not in caplog.text
        say_layers(("rlimits", "landlock"))
    assert "no worker will run: the sandbox lacks landlock" in caplog.text


def test_the_layers_of_a_run_are_reported(trial):
    layers = set(trial(attack("pass")).outcome.layers)
    assert layers == {name for name, active in LAYERS_HERE.items() if active}


def test_an_honest_plan_says_what_would_leave(trial):
    result = trial({"plan.py": HONEST.encode()})
    assert result.leaves == (("all", "float32 [7]"),)
    assert result.passed
    assert all(held for _, held in result.checks)


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ('batch["mrna"])', 'batch["mrna"] - batch["mrna"].mean(0))', "alone and among others"),
        ("nn.Linear(6, 1)", "nn.Linear(6, 1)\n        self.extra = nn.Parameter(torch.ones(1))", "clipped per record"),
        (
            'return self.layer(batch["mrna"])',
            'self.calls = getattr(self, "calls", 0) + 1\n        return self.layer(batch["mrna"]) * self.calls',
            "no state",
        ),
        (
            'return self.layer(batch["mrna"])',
            'x = batch["mrna"]\n        return x @ self.layer.weight.T + 0 * self.layer(x)',
            "own call",
        ),
        ('reduction="none")', 'reduction="mean")', "one number per record"),
    ],
)
def test_a_plan_that_mixes_records_or_keeps_state_is_flagged(trial, old, new, broken):
    assert old in HONEST
    result = trial({"plan.py": HONEST.replace(old, new).encode()})
    assert not result.passed
    flagged = [what for what, held in result.checks if not held]
    assert any(broken in what for what in flagged) or result.outcome.status == "failed"
    assert flagged or result.outcome.status == "failed"


def test_the_fingerprint_of_the_dataset_is_untouched(trial, dataset):
    before = fingerprint(dataset, b"k")
    trial(attack("pass"))
    assert fingerprint(dataset, b"k") == before


def test_replacing_fields_keeps_the_proposal_hash_honest(new_proposal):
    assert replace(new_proposal(), rounds=4).proposal_hash != new_proposal().proposal_hash
