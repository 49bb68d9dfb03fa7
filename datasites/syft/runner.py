"""Runs approved plain PySyft jobs, on mock data and nothing else.

A submitted job brings a ``run.sh`` of the submitter's making; it is never run. What runs is the job's Python entry
point, with the datasite's own interpreter, in a folder that holds a copy of the code and a SyftBox whose *private*
part is the mock as well: ``syft.resolve_dataset_file_path`` works as the author expects and finds mock rows.

Results leave only if the sandbox vouches that the run could not reach anything else (``isolated``). A proposal (a job
with ``proposal.json`` in its tree) is never run here, approved or not: the encrypted rounds are its only way.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from syft_datasets.dataset_manager import SyftDatasetManager
from syft_job.config import SyftJobConfig
from syft_job.job_runner import SyftJobRunner
from syft_job.models import JobStatus

from datasites.syft.guards import check_relative
from datasites.worker.job import ScriptJob
from datasites.worker.pool import WorkerPool, script_layers
from privacy.errors import TesseraError

PROPOSAL_FILE = "proposal.json"
MAX_OUTPUT_BYTES = 16 * 1024**2
MAX_LOG_BYTES = 256 * 1024
_MOST_FOLDERS = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MockRun:
    """One run to be made: the only folders that it may see, and how long it may take.

    ``code`` is the job's tree and ``data`` a SyftBox of mocks. ``work`` is an empty folder: the job's working directory
    with a copy of its tree, in whose ``outputs`` it leaves what is to be sent.
    """

    code: Path
    entrypoint: str
    data: Path
    work: Path
    environment: Mapping[str, str]
    timeout_seconds: float


@dataclass(frozen=True, kw_only=True)
class MockOutcome:
    """How a run went; ``isolated`` says that it could read nothing but ``code`` and ``data``, and had no network."""

    exit_status: int
    stdout: bytes
    stderr: bytes
    isolated: bool


class Sandbox(Protocol):
    """Runs one job."""

    def __call__(self, run: MockRun) -> MockOutcome:
        """Run ``run.entrypoint`` and return how it went; never raises for what the job does."""
        ...


def nothing_runs(run: MockRun) -> MockOutcome:
    """Run no job and vouch for none: where no workers are given."""
    del run
    return MockOutcome(exit_status=-1, stdout=b"", stderr=b"", isolated=False)


def in_workers(pool: WorkerPool) -> Sandbox:
    """Return the sandbox of the training workers, for plain jobs (:mod:`datasites.worker.sandbox`)."""

    def run_in_worker(run: MockRun) -> MockOutcome:
        with tempfile.TemporaryDirectory(prefix="tessera-log-") as logs:
            out, err = Path(logs, "out"), Path(logs, "err")
            job = ScriptJob(
                code=run.code,
                entrypoint=run.entrypoint,
                data=run.data,
                environment=run.environment,
                output=run.work,
                seconds=run.timeout_seconds,
            )
            outcome = pool.run_script(job, stdout=out, stderr=err)
            if outcome.status == "disk":
                shutil.rmtree(run.work / "outputs", ignore_errors=True)
            note = f"{outcome.reason}\n".encode() if outcome.status in ("disk", "timed-out", "refused") else b""
            return MockOutcome(
                exit_status=outcome.exit_status,
                stdout=_beginning(out),
                stderr=_beginning(err) + note,
                isolated=set(script_layers(pool.limits)) <= set(outcome.layers),
            )

    return run_in_worker


def _beginning(log: Path) -> bytes:
    with log.open("rb") as file:
        return file.read(MAX_LOG_BYTES)


class MockJobRunner(SyftJobRunner):  # type: ignore[misc]  # syft ships no types
    """syft's job runner with our way of running a job."""

    def __init__(self, config: SyftJobConfig, *, sandbox: Sandbox, timeout_seconds: float = 300.0) -> None:
        super().__init__(config)
        self._sandbox = sandbox
        self._timeout_seconds = timeout_seconds

    def _execute_job(self, ref: Any, stream_output: bool = True, timeout: int | None = None) -> bool:  # noqa: ARG002
        code = self.manager.submission_dir(ref) / "code"
        if (code / PROPOSAL_FILE).exists():
            _log.info("%s is a proposal: it runs in encrypted rounds, not as a job", ref.job_name)
            return False
        self._prepare_outputs_dir(ref)
        with tempfile.TemporaryDirectory(prefix="tessera-mock-") as staging:
            run = self._stage(ref, Path(staging).resolve(), timeout or self._timeout_seconds)
            outcome = self._sandbox(run)
            self._deposit(ref, run.work / "outputs", outcome)
        self._set_finalized_job_state(ref, outcome.exit_status)
        return True

    def _stage(self, ref: Any, staging: Path, timeout_seconds: float) -> MockRun:
        submission = self.manager.submission_dir(ref)
        shutil.copytree(submission / "code", staging / "code", symlinks=True)
        (staging / "code" / "outputs").mkdir(exist_ok=True)
        (staging / "work").mkdir()
        email = self.config.current_user_email
        mocks = stage_mocks(self.config.syftbox_folder, email, staging / "data")
        return MockRun(
            code=staging / "code",
            entrypoint=self._entrypoint(ref, staging / "code"),
            data=mocks,
            work=staging / "work",
            environment={
                "SYFTBOX_FOLDER": str(mocks),
                "SYFTBOX_EMAIL": email,
                "SYFT_IS_IN_JOB": "true",
            },
            timeout_seconds=timeout_seconds,
        )

    def _entrypoint(self, ref: Any, code: Path) -> str:
        named = self.manager.read_submission(ref).entrypoint
        return str(check_relative(Path(named))) if named else str(_only_python_file(code))

    def _deposit(self, ref: Any, outputs: Path, outcome: MockOutcome) -> None:
        review = self.manager.review_dir(ref)
        if not outcome.isolated:
            (review / "stderr.txt").write_text(
                "This datasite has no sandbox that can vouch for a run, so nothing of it leaves. Its people see in "
                "tessera doctor which layer is missing.\n"
            )
            return
        (review / "stdout.txt").write_bytes(outcome.stdout[:MAX_LOG_BYTES])
        (review / "stderr.txt").write_bytes(outcome.stderr[:MAX_LOG_BYTES])
        (review / "returncode.txt").write_text(str(outcome.exit_status))
        for name, content in collected(outputs):
            target = review / "outputs" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def _set_finalized_job_state(self, ref: Any, returncode: int) -> None:
        super()._set_finalized_job_state(ref, 0 if returncode == 0 else 1)


def collected(outputs: Path, limit_bytes: int = MAX_OUTPUT_BYTES) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield what a job left in ``outputs``: relative path and content of plain files, ``limit_bytes`` in all.

    The folder is the job's to arrange, also while it is read, so no name is trusted twice: neither the folder itself
    nor anything in it is followed as a link, and a file is judged by the descriptor that it is read from.
    """
    left = limit_bytes
    if not outputs.exists():
        return
    for folder, folders, names, descriptor in os.fwalk(outputs, follow_symlinks=False):
        place = Path(folder).relative_to(outputs)
        if len(place.parts) >= _MOST_FOLDERS:
            folders.clear()
        for name in sorted(names):
            content = _plain_file(name, descriptor, left)
            if content is not None:
                left -= len(content)
                yield from ((path, content) for path in _sendable(place / name))


def _sendable(path: Path) -> list[PurePosixPath]:
    """Return ``path`` when a peer takes such a name, or nothing."""
    with suppress(TesseraError):
        return [check_relative(path)]
    return []


def _plain_file(name: str, folder: int, limit_bytes: int) -> bytes | None:
    """Return the content of a regular file with one name and at most ``limit_bytes``, or None."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            return None
        content = file.read(limit_bytes + 1)
    return content if len(content) <= limit_bytes else None


def stage_mocks(syftbox: Path, email: str, target: Path) -> Path:
    """Build a SyftBox at ``target`` whose datasets have their mock in place of the private part, and return it."""
    (target / email).mkdir(parents=True)
    staged = SyftDatasetManager(target, email)
    for dataset in SyftDatasetManager(syftbox, email).get_all(datasite=email):
        with tempfile.TemporaryDirectory() as folder:
            for path in dataset.mock_files:
                shutil.copyfile(path, Path(folder) / path.name)
            staged.create(name=dataset.name, mock_path=folder, private_path=folder, summary=dataset.summary)
    return target


def is_finished(status: str) -> bool:
    """Say whether a job in this state will not change any more."""
    return status in (JobStatus.DONE.value, JobStatus.FAILED.value, JobStatus.REJECTED.value)


def _only_python_file(code: Path) -> Path:
    files = sorted(code.glob("*.py"))
    named = [path for path in files if path.name == "main.py"] or files
    return named[0].relative_to(code) if named else Path("main.py")
