"""The one door to PySyft: a hospital's datasite and a scientist's client, without a syft type in their signatures.

    owner = OwnerNode(folder, postbox, scientists=["orchestrator"])
    owner.publish_dataset("tcga-brca", mock_path=mock, private_location=private)
    owner.sync()
    for job in owner.pending_jobs(): ...

    scientist = ScientistNode(folder, postbox)
    scientist.add_peer("north")
    scientist.submit("north", "stage-study", tree)

PySyft's folder of a hospital never holds private records: its *private* part is a note that says where they are kept,
so neither a synchronisation nor a plain job of PySyft can come upon them.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from syft_job.models import JobStatus, JobSubmissionMetadata

from datasites.node.files import write_atomically
from datasites.syft.connection import address, participant
from datasites.syft.guards import check_relative
from datasites.syft.postbox import Postbox
from datasites.syft.runner import PROPOSAL_FILE, Sandbox, is_finished, nothing_runs
from datasites.syft.session import connect
from privacy.canonical import canonical_json, sha256_hex
from privacy.errors import InvalidInput, Refused

MAX_JOB_FILES = 2000
MAX_JOB_BYTES = 32 * 1024**2


@dataclass(frozen=True, kw_only=True)
class ReceivedJob:
    """A job in a datasite's inbox.

    ``folder`` is the submitted code tree; ``files`` maps each of its files to its SHA-256.
    """

    name: str
    submitter: str
    folder: Path
    files: Mapping[str, str]
    is_proposal: bool


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """A job as its submitter sees it. ``status`` is syft's: pending, approved, rejected, done, failed, ..."""

    name: str
    site: str
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """A dataset as a scientist sees it: its mock files and what its owner says about it."""

    name: str
    owner: str
    summary: str
    mock_files: tuple[Path, ...]


class _Node:
    """What both sides share; every call that touches syft's folder holds one lock."""

    def __init__(self, client: Any, postbox: Postbox) -> None:
        self.client = client
        self._postbox = postbox
        self._lock = threading.RLock()

    def wait_for_news(self, wait_seconds: float) -> bool:
        """Wait up to ``wait_seconds`` (at most 60) for something to arrive; True if :meth:`sync` has work to do."""
        return self._postbox.wait_for_news(wait_seconds)

    @property
    def peers(self) -> list[str]:
        """The names of those who accepted us, and whom we accepted."""
        return sorted(participant(p.email) for p in self.client.peer_manager.approved_peers)

    def _follow_keys(self) -> None:
        """Take the keys that peers publish now; one whose folder was lost has new ones."""
        manager = self.client.peer_manager
        for peer in manager.approved_peers:
            bundle = manager._read_peer_encryption_bundle(peer.email)
            if bundle and bundle != peer.public_encryption_bundle:
                manager.peer_store.set_peer_bundle(peer.email, bundle)
                manager.connection_router.update_peer_state(
                    peer.email, peer.state.value, public_encryption_bundle=bundle
                )

    def _jobs(self) -> list[Any]:
        with self._lock:
            return list(self.client.job_client.jobs)


class OwnerNode(_Node):
    """A hospital's datasite.

    Args:
        folder: PySyft's folder, kept between starts.
        postbox: the mailbox as this hospital.
        scientists: names of those whose requests to become a peer are accepted.
        sandbox: runs approved plain jobs, on mock data; without one none is run.
    """

    def __init__(
        self,
        folder: Path,
        postbox: Postbox,
        *,
        scientists: Iterable[str],
        sandbox: Sandbox = nothing_runs,
    ) -> None:
        super().__init__(connect(postbox, folder, role="owner", sandbox=sandbox), postbox)
        self._scientists = {address(name) for name in scientists}
        self._resumed = False

    def publish_dataset(
        self, name: str, *, mock_path: Path, private_location: str, summary: str = "", readme: Path | None = None
    ) -> None:
        """Publish the mock of a dataset to all peers, now and later; publishing the same name again replaces it.

        Args:
            name: what scientists call it.
            mock_path: a folder of files, or one file; this is what leaves.
            private_location: where the private records are kept, for this hospital's own staff; it stays here.
            summary: one line for scientists.
            readme: a Markdown file for scientists.
        """
        with self._lock, TemporaryDirectory() as note:
            if any(d.name == name for d in self.client.dataset_manager.get_all(datasite=self.client.email)):
                self.client.delete_dataset(name, require_confirmation=False, sync=False)
            (Path(note) / "location.json").write_bytes(canonical_json({"kept_at": private_location}))
            self.client.create_dataset(
                name=name,
                mock_path=mock_path,
                private_path=note,
                summary=summary,
                readme_path=readme,
                users="any",
                upload_private=False,
                sync=False,
            )

    def sync(self) -> None:
        """Receive jobs, send states and outputs, and accept the scientists who asked."""
        with self._lock:
            self._resume_once()
            self._follow_keys()
            self.client.sync(auto_compact=False)
            for peer in list(self.client.peer_manager.requested_by_peer_peers):
                if peer.email in self._scientists:
                    self.client.approve_peer_request(peer.email, verbose=False)

    def pending_jobs(self) -> list[ReceivedJob]:
        """Return the jobs that wait for a decision."""
        return [_received(job) for job in self._jobs() if job.status == JobStatus.PENDING.value]

    def approved_jobs(self) -> list[ReceivedJob]:
        """Return the jobs that were approved and are not finished."""
        return [_received(job) for job in self._jobs() if job.status == JobStatus.APPROVED.value]

    def approve(self, job: ReceivedJob, reason: str = "") -> None:
        """Tell the submitter that the job was approved. This alone runs nothing.

        Raises:
            Refused: the code tree is not the one in ``job`` any more.
        """
        found = self._find(job)
        if _received(found).files != job.files:
            raise Refused(f"the files of job {job.name!r} changed since they were reviewed; review them again")
        with self._lock:
            found.approve(reason or None)

    def reject(self, job: ReceivedJob, reason: str) -> None:
        """Tell the submitter that the job was rejected, and why."""
        with self._lock:
            self._find(job).reject(reason)

    def run_approved_on_mock(self) -> None:
        """Run every approved plain job on the mock data and send its outputs and logs to its submitter."""
        with self._lock:
            runner = self.client.job_runner
            for ref in runner._get_jobs_in_approved():
                if runner._execute_job(ref):
                    runner._share_job_results(ref, True, True)
                    self.sync()  # one message per job, so that none grows beyond what the mailbox takes

    def finish(self, job: ReceivedJob, outputs: Mapping[str, bytes]) -> None:
        """Mark an approved job as done and send its submitter ``outputs`` (file name to content)."""
        found = self._find(job)
        for name in outputs:
            check_relative(Path(name))
        with self._lock:
            runner = self.client.job_runner
            runner._prepare_outputs_dir(found._ref)
            for name, content in outputs.items():
                write_atomically(found.job_review_path / "outputs" / name, content, mode=0o644)
            runner._set_finalized_job_state(found._ref, 0)
            found.share_outputs([address(job.submitter)])

    def _resume_once(self) -> None:
        if not self._resumed:
            self.client.sync_engine.datasite_owner_syncer.resume(list(map(address, self.peers)))
            self._resumed = True

    def _find(self, wanted: ReceivedJob) -> Any:
        for job in self._jobs():
            if job.name == wanted.name and job.submitted_by == address(wanted.submitter):
                return job
        raise InvalidInput(f"{wanted.submitter} has no job called {wanted.name!r} here; synchronise first")


class ScientistNode(_Node):
    """A scientist's client.

    Args:
        folder: PySyft's folder, kept between starts.
        postbox: the mailbox as this scientist.
    """

    def __init__(self, folder: Path, postbox: Postbox) -> None:
        super().__init__(connect(postbox, folder, role="scientist"), postbox)

    def add_peer(self, site: str) -> None:
        """Ask a hospital to become a peer; asking again is no error."""
        with self._lock:
            self.client.add_peer(address(site), verbose=False, sync=False)

    def sync(self) -> None:
        """Receive datasets, job states and outputs."""
        with self._lock:
            self._follow_keys()
            self.client.sync()

    def datasets(self) -> list[PublishedDataset]:
        """Return the datasets whose mocks are here."""
        with self._lock:
            found = self.client.dataset_manager.get_all()
        return [
            PublishedDataset(
                name=d.name,
                owner=participant(d.owner),
                summary=d.summary or "",
                mock_files=tuple(sorted(d.mock_files)),
            )
            for d in found
        ]

    def submit(
        self, site: str, job_name: str, tree: Path, *, entrypoint: str | None = None, again: bool = False
    ) -> None:
        """Send a code tree to a hospital as a job.

        Args:
            site: a hospital that accepted us.
            job_name: unique among our jobs at this hospital.
            tree: a folder; a ``proposal.json`` at its root makes the job a proposal.
            entrypoint: the Python file that a plain job starts with, relative to ``tree``.
            again: send it although it may have been begun before, as after a crash on the way.

        Raises:
            InvalidInput: an empty or too large tree, a bad name, or a name that was used before.
            Refused: the hospital is no peer yet.
        """
        if site not in self.peers:
            raise Refused(f"{site} has not accepted us as a peer yet; add it, wait and synchronise")
        files = read_tree(tree)
        check_relative(Path(job_name))
        with self._lock:
            manager = self.client.job_client.manager
            ref = manager.new_submission_ref(address(site), job_name)
            folder = manager.submission_dir(ref)
            if folder.exists() and not again:
                raise InvalidInput(f"a job called {job_name!r} was sent to {site} before; choose another name")
            shutil.rmtree(folder, ignore_errors=True)
            for name, content in files.items():
                write_atomically(folder / "code" / name, content, mode=0o644)
            write_atomically(folder / "run.sh", b"# Tessera never runs this file.\n", mode=0o644)
            manager.write_submission(ref, self._metadata(site, job_name, files, entrypoint))
            self._push(folder)

    def jobs(self) -> list[SubmittedJob]:
        """Return all jobs that were sent from here, and how they stand after the last :meth:`sync`."""
        return [
            SubmittedJob(
                name=job.name,
                site=participant(job.datasite_owner_email),
                status=job.status,
                reason=job.review_reason or "",
            )
            for job in self._jobs()
            if job.submitted_by == self.client.email
        ]

    def job_outputs(self, site: str, job_name: str) -> dict[str, bytes] | None:
        """Return the outputs of a job (relative path to content); None while it is not finished."""
        for job in self._jobs():
            if job.name == job_name and job.datasite_owner_email == address(site) and is_finished(job.status):
                outputs = job.job_review_path / "outputs"
                found = [p for p in sorted(outputs.rglob("*")) if p.is_file() and p.name != "syft.pub.yaml"]
                return {str(path.relative_to(outputs)): path.read_bytes() for path in found}
        return None

    def _metadata(self, site: str, name: str, files: Mapping[str, bytes], entrypoint: str | None) -> Any:
        return JobSubmissionMetadata(
            name=name,
            type="python",
            submitted_by=self.client.email,
            datasite_email=address(site),
            submitted_at=datetime.now(UTC),
            entrypoint=entrypoint,
            files=sorted(files),
            is_folder_submission=True,
        )

    def _push(self, folder: Path) -> None:
        # as bytes: syft's own push reads text and would change line ends, and with them the hashes
        watcher = self.client.sync_engine.datasite_watcher_syncer
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in paths:
            relative = path.relative_to(self.client.syftbox_folder)
            watcher.on_file_change(relative, path.read_bytes(), process_now=path == paths[-1])


def read_tree(tree: Path) -> dict[str, bytes]:
    """Return the files of a code tree by relative path.

    Raises:
        InvalidInput: no files, a link, more than 2000 files or more than 32 MiB.
    """
    files: dict[str, bytes] = {}
    for path in sorted(tree.rglob("*")):
        if path.is_symlink():
            raise InvalidInput(f"expected plain files in the code tree, got a link: {path.relative_to(tree)}")
        if path.is_file() and "__pycache__" not in path.parts:
            files[str(check_relative(path.relative_to(tree)))] = path.read_bytes()
    total = sum(map(len, files.values()))
    if not 0 < len(files) <= MAX_JOB_FILES or total > MAX_JOB_BYTES:
        raise InvalidInput(
            f"expected 1 to {MAX_JOB_FILES} files of at most {MAX_JOB_BYTES} bytes in all, "
            f"got {len(files)} files of {total} bytes"
        )
    return files


def _received(job: Any) -> ReceivedJob:
    files = {
        str(path.relative_to(job.code_dir)): sha256_hex(path.read_bytes())
        for path in sorted(job.code_dir.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    return ReceivedJob(
        name=job.name,
        submitter=participant(job.submitted_by),
        folder=job.code_dir,
        files=files,
        is_proposal=PROPOSAL_FILE in files,
    )
