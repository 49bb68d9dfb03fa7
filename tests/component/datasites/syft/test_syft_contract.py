"""The same cases over syft's own in-memory drive and over our mailbox: our transport behaves like theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from syft_rds import SyftRDSClient

from datasites.syft.runner import MockJobRunner, Sandbox

MOCK = b"case_id,age\nMOCK-1,50\n"
PRIVATE = b"case_id,age\nPRIVATE-PLANTED-7f3a,61\n"
JOB = """
import json, pathlib, syft
path = syft.resolve_dataset_file_path("ages")
pathlib.Path("outputs/result.json").write_text(json.dumps({"read": path.read_text()}))
print("a line of the log")
"""


@dataclass
class Pair:
    scientist: Any
    owner: Any
    restart: Callable[[], None]
    uploaded: Callable[[], bytes]


def _drive_pair(workers: Sandbox, tmp_path: Path) -> Pair:
    scientist, owner = SyftRDSClient.pair_with_mock_drive_service_connection(
        email1="north@tessera.invalid",
        email2="lab@tessera.invalid",
        base_path1=tmp_path / "north",
        base_path2=tmp_path / "lab",
        use_in_memory_cache=False,
        encryption=True,
        check_versions=True,
    )
    owner.job_runner = MockJobRunner(owner.job_client.config, sandbox=workers)
    store = owner.sync_engine._connection_router.connections[0].drive_service._backing_store
    return Pair(scientist, owner, lambda: None, lambda: b"".join(f.content or b"" for f in store.files.values()))


def _mailbox_pair(mailbox: Any, workers: Sandbox, tmp_path: Path) -> Pair:
    owner = mailbox.connect("north", tmp_path / "north", "owner", workers)
    scientist = mailbox.connect("lab", tmp_path / "lab", "scientist")
    scientist.add_peer(owner.email, verbose=False, sync=False)
    owner.load_peers()
    owner.approve_peer_request(scientist.email, verbose=False)
    scientist.load_peers()
    return Pair(scientist, owner, mailbox.restart, mailbox.everything_stored)


@pytest.fixture(params=["syft's own drive", "our mailbox"])
def pair(request: pytest.FixtureRequest, workers: Sandbox, tmp_path: Path) -> Iterator[Pair]:
    if request.param == "our mailbox":
        yield _mailbox_pair(request.getfixturevalue("mailbox"), workers, tmp_path)
    else:
        yield _drive_pair(workers, tmp_path)


@pytest.fixture
def published(pair: Pair, tmp_path: Path) -> Pair:
    (tmp_path / "mock.csv").write_bytes(MOCK)
    (tmp_path / "private.csv").write_bytes(PRIVATE)
    pair.owner.create_dataset(
        name="ages",
        mock_path=tmp_path / "mock.csv",
        private_path=tmp_path / "private.csv",
        summary="ages of patients",
        users="any",
    )
    pair.scientist.sync()
    return pair


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "main.py"
    path.write_text(JOB)
    return path


def _submit(pair: Pair, job: Path, name: str = "mean-age") -> None:
    pair.scientist.submit_python_job(pair.owner.email, str(job), job_name=name, force_submission=True)


def test_peers_know_each_other_and_encrypt(pair: Pair) -> None:
    assert [p.email for p in pair.owner.peer_manager.approved_peers] == [pair.scientist.email]
    pair.scientist.load_peers()
    (peer,) = pair.scientist.peer_manager.approved_peers
    assert peer.email == pair.owner.email
    assert peer.use_encryption
    assert peer.public_encryption_bundle["identity"] == pair.owner.email


def test_a_dataset_is_listed_and_its_mock_is_read(published: Pair) -> None:
    (dataset,) = published.scientist.dataset_manager.get_all()
    assert (dataset.name, dataset.owner, dataset.summary) == ("ages", published.owner.email, "ages of patients")
    assert [path.read_bytes() for path in dataset.mock_files] == [MOCK]


def test_a_deleted_dataset_disappears_at_the_scientist(published: Pair) -> None:
    published.owner.delete_dataset("ages", require_confirmation=False)
    published.scientist.sync()
    assert list(published.scientist.dataset_manager.get_all()) == []


def test_private_data_never_leaves(published: Pair, job: Path) -> None:
    _submit(published, job)
    published.owner.sync()
    published.owner.job_client.jobs[0].approve()
    published.owner.process_approved_jobs(
        stream_output=False, share_outputs_with_submitter=True, share_logs_with_submitter=True
    )
    published.scientist.sync()
    assert b"PRIVATE-PLANTED-7f3a" in published.owner.dataset_manager.get("ages").private_files[0].read_bytes()
    assert MOCK in published.uploaded()
    assert b"PRIVATE-PLANTED-7f3a" not in published.uploaded()
    copies = [p for p in published.scientist.syftbox_folder.rglob("*") if p.is_file()]
    assert not any(b"PRIVATE-PLANTED-7f3a" in p.read_bytes() for p in copies)


@pytest.mark.usefixtures("sandbox")
def test_a_job_goes_there_and_its_outputs_come_back(published: Pair, job: Path) -> None:
    _submit(published, job)
    published.restart()
    published.owner.sync()
    (received,) = published.owner.job_client.jobs
    assert (received.name, received.submitted_by, received.status) == (
        "mean-age",
        published.scientist.email,
        "pending",
    )
    assert received.code == JOB
    received.approve(reason="looks fine")
    published.restart()
    published.owner.process_approved_jobs(
        stream_output=False, share_outputs_with_submitter=True, share_logs_with_submitter=True
    )
    published.restart()
    published.scientist.sync()
    (returned,) = published.scientist.job_client.jobs
    assert (returned.status, returned.review_reason) == ("done", "looks fine")
    (output,) = returned.output_paths
    assert output.name == "result.json"
    assert "MOCK-1" in output.read_text()
    assert "a line of the log" in str(returned.stdout)


def test_a_rejected_job_says_why(published: Pair, job: Path) -> None:
    _submit(published, job)
    published.owner.sync()
    published.owner.job_client.jobs[0].reject("not this year")
    published.owner.sync()
    published.scientist.sync()
    (returned,) = published.scientist.job_client.jobs
    assert (returned.status, returned.review_reason) == ("rejected", "not this year")


def test_jobs_keep_their_order_and_none_is_lost(published: Pair, job: Path) -> None:
    for number in range(4):
        _submit(published, job, f"job-{number}")
        published.restart()
    published.owner.sync()
    assert sorted(j.name for j in published.owner.job_client.jobs) == [f"job-{n}" for n in range(4)]


def test_messages_in_transit_are_ciphertext(published: Pair, job: Path) -> None:
    _submit(published, job)
    published.owner.sync()
    assert b"resolve_dataset_file_path" not in published.uploaded()


def test_checkpoints_are_made_and_read_back(published: Pair) -> None:
    checkpoint = published.owner.sync_engine.create_checkpoint()
    router = published.owner.sync_engine._connection_router
    assert router.get_latest_checkpoint().timestamp == checkpoint.timestamp
    assert router.get_rolling_state() is None
    assert router.get_next_incremental_sequence_number() == 1
