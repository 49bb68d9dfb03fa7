"""A hospital's node and a scientist's node, over a real mailbox: friendly and hostile."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from support.mailbox_server import mock_run
from syft.sync.events.file_change_event import FileChangeEvent, FileChangeEventsMessage
from syft.sync.messages.proposed_filechange import ProposedFileChange, ProposedFileChangesMessage
from syft_job.models import JobSubmissionMetadata

from datasites.node.letters import Place
from datasites.syft.client import OwnerNode, ReceivedJob, ScientistNode, read_tree
from datasites.syft.connection import address
from datasites.syft.postbox import Postbox
from datasites.syft.runner import MockOutcome, MockRun, Sandbox, collected
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused, Tampered, TesseraError
from privacy.identity import Identity

PLANTED = "PLANTED-PATIENT-91c2"
PLAIN_JOB = """
import pathlib, socket, syft
rows = syft.resolve_dataset_file_path("stages").read_text()
pathlib.Path("outputs/rows.txt").write_text(rows)

def attempt(action):
    try:
        return repr(action())
    except OSError as error:
        return type(error).__name__

tries = [
    attempt(lambda: pathlib.Path({secret!r}).read_text()),
    attempt(lambda: list(pathlib.Path({secret!r}).parent.iterdir())),
    attempt(lambda: pathlib.Path({folder!r}, "planted").write_text("x")),
    attempt(lambda: socket.create_connection(("127.0.0.1", {port}), 2)),
    attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {port}))),
]
pathlib.Path("outputs/tries.txt").write_text(" ".join(tries))
"""  # reads its mock, then tries for the private records, the hospital's folder and the network


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "proposal.json").write_bytes(b'{"study":"s"}')
    (folder / "windows.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    return folder


@pytest.fixture
def nodes(mailbox: Any, workers: Sandbox, tmp_path: Path) -> tuple[OwnerNode, ScientistNode]:
    owner = OwnerNode(tmp_path / "north" / "syft", mailbox.postbox("north"), scientists=["lab"], sandbox=workers)
    scientist = ScientistNode(tmp_path / "lab" / "syft", mailbox.postbox("lab"))
    mock = tmp_path / "mock"
    mock.mkdir()
    (mock / "records.csv").write_text("case_id,stage\nMOCK-1,II\n")
    private = tmp_path / "north" / "private"
    private.mkdir()
    (private / "records.csv").write_text(f"case_id,stage\n{PLANTED},II\n")
    owner.publish_dataset("stages", mock_path=mock, private_location=str(private), summary="tumour stages")
    scientist.add_peer("north")
    owner.sync()
    scientist.sync()
    return owner, scientist


def _only(jobs: list[ReceivedJob]) -> ReceivedJob:
    (job,) = jobs
    return job


def test_a_scientist_sees_the_dataset_and_its_mock(nodes: tuple[OwnerNode, ScientistNode]) -> None:
    owner, scientist = nodes
    assert (owner.peers, scientist.peers) == (["lab"], ["north"])
    (dataset,) = scientist.datasets()
    assert (dataset.name, dataset.owner, dataset.summary) == ("stages", "north", "tumour stages")
    assert [path.read_text() for path in dataset.mock_files] == ["case_id,stage\nMOCK-1,II\n"]


def test_publishing_again_replaces_the_mock(nodes: tuple[OwnerNode, ScientistNode], tmp_path: Path) -> None:
    owner, scientist = nodes
    (tmp_path / "mock" / "records.csv").write_text("case_id,stage\nMOCK-2,III\n")
    owner.publish_dataset("stages", mock_path=tmp_path / "mock", private_location="elsewhere")
    owner.sync()
    scientist.sync()
    (dataset,) = scientist.datasets()
    assert [path.read_text() for path in dataset.mock_files] == ["case_id,stage\nMOCK-2,III\n"]


def test_a_proposal_arrives_byte_for_byte_and_its_answer_comes_back(
    nodes: tuple[OwnerNode, ScientistNode], tree: Path
) -> None:
    owner, scientist = nodes
    scientist.submit("north", "study-1", tree)
    owner.sync()
    job = _only(owner.pending_jobs())
    assert (job.name, job.submitter, job.is_proposal) == ("study-1", "lab", True)
    assert job.files == {name: sha256_hex(data) for name, data in read_tree(tree).items()}
    owner.approve(job, "two reviewers agreed")
    owner.run_approved_on_mock()
    assert _only(owner.approved_jobs()).name == "study-1"
    owner.finish(job, {"approval.json": b'{"signed":true}'})
    owner.sync()
    scientist.sync()
    (sent,) = scientist.jobs()
    assert (sent.name, sent.site, sent.status, sent.reason) == ("study-1", "north", "done", "two reviewers agreed")
    assert scientist.job_outputs("north", "study-1") == {"approval.json": b'{"signed":true}'}


def test_what_is_sent_again_after_its_first_copy_was_lost_is_new(
    nodes: tuple[OwnerNode, ScientistNode], tree: Path
) -> None:
    owner, scientist = nodes
    scientist.submit("north", "study-1", tree)
    owner.sync()
    cache = owner.client.sync_engine.datasite_owner_syncer.event_cache
    first = _only(owner.pending_jobs())
    lost = {path: cache.file_hashes.pop(path) for path in list(cache.file_hashes) if "study-1" in str(path)}
    for path in lost:
        (owner.client.syftbox_folder / address("north") / path).unlink()
    scientist.submit("north", "study-1", tree, again=True)  # it knows the old hashes of files that are new here
    owner.sync()
    assert _only(owner.pending_jobs()).files == first.files
    cache.file_hashes[Path("app_data/job/inbox") / address("lab") / "v1/study-2/code/proposal.json"] = "0" * 64
    scientist.submit("north", "study-2", tree)  # it does not fit to what the notes here say
    scientist.submit("north", "study-3", tree)
    owner.sync()
    assert {job.name for job in owner.pending_jobs()} >= {"study-1", "study-3"}


def test_an_approval_for_other_files_is_refused(nodes: tuple[OwnerNode, ScientistNode], tree: Path) -> None:
    owner, scientist = nodes
    scientist.submit("north", "study-1", tree)
    owner.sync()
    job = _only(owner.pending_jobs())
    (job.folder / "windows.py").write_text("changed = True\n")
    with pytest.raises(Refused, match="changed since they were reviewed"):
        owner.approve(job)


@pytest.mark.usefixtures("sandbox")
def test_a_plain_job_runs_on_the_mock_and_can_reach_nothing_else(
    nodes: tuple[OwnerNode, ScientistNode], mailbox: Any, tmp_path: Path
) -> None:
    owner, scientist = nodes
    folder = tmp_path / "plain"
    folder.mkdir()
    north = tmp_path / "north"
    code = PLAIN_JOB.format(secret=str(north / "private" / "records.csv"), folder=str(north), port=mailbox.port)
    (folder / "main.py").write_text(code)
    scientist.submit("north", "plain", folder, entrypoint="main.py")
    owner.sync()
    owner.approve(_only(owner.pending_jobs()))
    owner.run_approved_on_mock()
    owner.sync()
    scientist.sync()
    outputs = scientist.job_outputs("north", "plain")
    assert outputs is not None
    assert outputs["rows.txt"] == b"case_id,stage\nMOCK-1,II\n"
    assert outputs["tries.txt"].split() == [b"PermissionError"] * 5
    everywhere = [mailbox.everything_stored()]
    everywhere += [p.read_bytes() for p in (tmp_path / "lab").rglob("*") if p.is_file()]
    everywhere += [p.read_bytes() for p in (tmp_path / "north" / "syft").rglob("*") if p.is_file()]
    assert not any(PLANTED.encode() in part for part in everywhere)


@pytest.mark.usefixtures("sandbox")
def test_a_submitted_run_script_is_never_run(
    nodes: tuple[OwnerNode, ScientistNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, scientist = nodes
    marker = tmp_path / "run.sh-was-here"
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "main.py").write_text("open('outputs/ran.txt', 'w').write('main.py')")
    original = scientist._push

    def push(job_folder: Path) -> None:
        (job_folder / "run.sh").write_text(f"#!/bin/sh\ntouch {marker}\n")
        (job_folder / "run.sh").chmod(0o755)
        original(job_folder)

    monkeypatch.setattr(scientist, "_push", push)
    scientist.submit("north", "plain", folder, entrypoint="main.py")
    owner.sync()
    assert str(marker) in (_only(owner.pending_jobs()).folder.parent / "run.sh").read_text()
    owner.approve(_only(owner.pending_jobs()))
    owner.run_approved_on_mock()
    owner.sync()
    scientist.sync()
    assert scientist.job_outputs("north", "plain") == {"ran.txt": b"main.py"}
    assert not marker.exists()


@pytest.mark.usefixtures("sandbox")
def test_a_job_that_leaves_links_in_place_of_its_outputs_sends_nothing_of_what_they_point_at(
    nodes: tuple[OwnerNode, ScientistNode], tmp_path: Path
) -> None:
    owner, scientist = nodes
    private = tmp_path / "kept" / "private"
    private.mkdir(parents=True)
    (private / "records.csv").write_text(PLANTED)
    inside = f"os.symlink({str(private)!r}, 'outputs/d'); os.symlink({str(private / 'records.csv')!r}, 'outputs/f')"
    outside = f"os.rmdir('outputs'); os.symlink({str(private)!r}, 'outputs')"
    for name, trick in (("inside", f"{inside}; open('outputs/own', 'w').write('own')"), ("outside", outside)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(f"import os; {trick}")
        scientist.submit("north", name, tmp_path / name, entrypoint="main.py")
    owner.sync()
    for job in owner.pending_jobs():
        owner.approve(job)
    owner.run_approved_on_mock()
    owner.sync()
    scientist.sync()
    assert scientist.job_outputs("north", "inside") == {"own": b"own"}
    assert scientist.job_outputs("north", "outside") == {}


def test_outputs_are_plain_files_with_one_name_within_the_limit(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "deep").mkdir(parents=True)
    (outputs / "deep" / "a.txt").write_bytes(b"aa")
    (outputs / "b.txt").write_bytes(b"bbb")
    (outputs / "large.txt").write_bytes(bytes(100))
    (outputs / ".hidden").write_bytes(b"h")
    (outputs / "twice.txt").hardlink_to(_file(tmp_path / "elsewhere", b"e"))
    os.mkfifo(outputs / "pipe")
    assert {str(path): content for path, content in collected(outputs, limit_bytes=10)} == {
        "b.txt": b"bbb",
        "deep/a.txt": b"aa",
    }


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_job_that_takes_too_long_is_ended(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = sandbox(mock_run(tmp_path, "print('begun', flush=True)\nimport time\ntime.sleep(3600)", seconds=10))
    assert (outcome.exit_status, outcome.stdout, outcome.isolated) == (-1, b"begun\n", True)


def test_nothing_leaves_a_sandbox_that_does_not_vouch(mailbox: Any, tmp_path: Path) -> None:
    def open_sandbox(run: MockRun) -> MockOutcome:
        (run.work / "outputs").mkdir()
        (run.work / "outputs" / "secret.txt").write_text(PLANTED)
        return MockOutcome(exit_status=3, stdout=PLANTED.encode(), stderr=PLANTED.encode(), isolated=False)

    owner = OwnerNode(tmp_path / "north" / "syft", mailbox.postbox("north"), scientists=["lab"], sandbox=open_sandbox)
    scientist = ScientistNode(tmp_path / "lab" / "syft", mailbox.postbox("lab"))
    scientist.add_peer("north")
    owner.sync()
    scientist.sync()
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "main.py").write_text("")
    scientist.submit("north", "plain", folder)
    owner.sync()
    owner.approve(_only(owner.pending_jobs()))
    owner.run_approved_on_mock()
    owner.sync()
    scientist.sync()
    assert scientist.job_outputs("north", "plain") == {}
    assert not any(PLANTED.encode() in p.read_bytes() for p in (tmp_path / "lab").rglob("*") if p.is_file())


def test_a_restarted_hospital_knows_its_peers_jobs_and_keys(
    nodes: tuple[OwnerNode, ScientistNode], mailbox: Any, tree: Path, tmp_path: Path
) -> None:
    owner, scientist = nodes
    scientist.submit("north", "before", tree)
    owner.sync()
    mailbox.restart()
    scientist.submit("north", "meanwhile", tree)
    again = OwnerNode(tmp_path / "north" / "syft", mailbox.postbox("north"), scientists=["lab"])
    again.sync()
    assert sorted(job.name for job in again.pending_jobs()) == ["before", "meanwhile"]
    assert again.peers == ["lab"]


def test_what_could_not_be_sent_is_sent_when_the_mailbox_is_back(
    nodes: tuple[OwnerNode, ScientistNode], mailbox: Any, tree: Path
) -> None:
    owner, scientist = nodes
    scientist.submit("north", "study", tree)
    owner.sync()
    job = _only(owner.pending_jobs())
    owner.approve(job)
    owner.finish(job, {"approval.json": b"{}"})
    mailbox.stop()
    owner._postbox._http._retry_seconds = 0.2
    with pytest.raises(TesseraError, match="did not answer"):
        owner.sync()
    mailbox.start()
    owner.sync()
    scientist.sync()
    assert scientist.job_outputs("north", "study") == {"approval.json": b"{}"}


@pytest.mark.parametrize("dies_while_writing_to", ["outbox", "own"])
def test_a_killed_hospital_sends_after_its_restart_what_it_had_noted(
    nodes: tuple[OwnerNode, ScientistNode],
    mailbox: Any,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dies_while_writing_to: str,
) -> None:
    owner, scientist = nodes
    scientist.submit("north", "study", tree)
    owner.sync()
    job = _only(owner.pending_jobs())
    owner.approve(job, "approved before the crash")
    owner.finish(job, {"approval.json": b"{}"})
    original = Postbox.put

    def die(self: Postbox, place: Place, data: bytes) -> None:
        if place.box == dies_while_writing_to:
            raise KeyboardInterrupt
        original(self, place, data)

    with monkeypatch.context() as crash:
        crash.setattr(Postbox, "put", die)
        with pytest.raises(KeyboardInterrupt):
            owner.sync()
    again = OwnerNode(tmp_path / "north" / "syft", mailbox.postbox("north"), scientists=["lab"])
    again.sync()
    scientist.sync()
    (sent,) = scientist.jobs()
    assert (sent.status, sent.reason) == ("done", "approved before the crash")
    assert scientist.job_outputs("north", "study") == {"approval.json": b"{}"}


def test_a_hospital_that_lost_its_folder_is_restored_from_the_mailbox(
    nodes: tuple[OwnerNode, ScientistNode], mailbox: Any, tree: Path, tmp_path: Path
) -> None:
    owner, scientist = nodes
    scientist.submit("north", "study", tree)
    owner.sync()
    expected = _only(owner.pending_jobs()).files
    keys = next((tmp_path / "north" / "syft").rglob("crypto_keys.json"))
    relative = keys.relative_to(tmp_path / "north" / "syft")
    restored = tmp_path / "restored" / "syft"
    (restored / relative).parent.mkdir(parents=True)
    (restored / relative).write_bytes(keys.read_bytes())
    again = OwnerNode(restored, mailbox.postbox("north"), scientists=["lab"])
    again.sync()
    assert _only(again.pending_jobs()).files == expected


def test_strangers_are_not_accepted(mailbox: Any, tmp_path: Path) -> None:
    owner = OwnerNode(tmp_path / "north" / "syft", mailbox.postbox("north"), scientists=["lab"])
    stranger = ScientistNode(tmp_path / "south" / "syft", mailbox.postbox("south"))
    stranger.add_peer("north")
    owner.sync()
    stranger.sync()
    assert owner.peers == []
    with pytest.raises(Refused, match="has not accepted us"):
        stranger.submit("north", "job", tmp_path)


def test_an_encryption_bundle_of_somebody_else_is_refused(mailbox: Any, tmp_path: Path) -> None:
    owner = OwnerNode(tmp_path / "north" / "syft", mailbox.postbox("north"), scientists=["lab"])
    scientist = ScientistNode(tmp_path / "lab" / "syft", mailbox.postbox("lab"))
    scientist.add_peer("north")
    # the mailbox itself puts keys of its own in the place of the scientist's
    impostor = Identity.generate()
    where = Place(owner="lab", box="bundle", folder="north", name="bundle.json")
    genuine = mailbox.identities["lab"]
    mailbox.identities["lab"] = impostor
    mailbox.postbox("lab", identity=impostor).put(where, b'{"public_encryption_bundle": {}}')
    mailbox.identities["lab"] = genuine
    with pytest.raises(Tampered, match="signed with another key"):
        owner.sync()


def _propose(scientist: ScientistNode, changes: list[ProposedFileChange], sender: str | None = None) -> None:
    message = ProposedFileChangesMessage(sender_email=sender or scientist.client.email, proposed_file_changes=changes)
    router = scientist.client.sync_engine.datasite_watcher_syncer.connection_router
    router.watcher_send_proposed_file_changes_message("north@tessera.invalid", message)


def _change(path: str, content: str = "x", **fields: Any) -> ProposedFileChange:
    return ProposedFileChange(
        path_in_datasite=Path(path), content=content, datasite_email="north@tessera.invalid", **fields
    )


INBOX = "app_data/job/inbox/lab@tessera.invalid/v1"


@pytest.mark.parametrize(
    "path",
    [
        "public/syft_datasets/stages/records.csv",
        "app_data/job/inbox/other@tessera.invalid/v1/job/config.yaml",
        "app_data/job/review/lab@tessera.invalid/v1/job/state.yaml",
        f"{INBOX}/../../../../../../../escaped.txt",
        "/tmp/escaped.txt",
        f"{INBOX}/job/code/syft.pub.yaml",
        "app_data/job/inbox/lab@tessera.invalid/syft.pub.yaml",
    ],
)
def test_a_peer_writes_nowhere_but_in_its_own_inbox(
    nodes: tuple[OwnerNode, ScientistNode], tree: Path, path: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    owner, scientist = nodes
    before = {p: p.read_bytes() for p in (tmp_path / "north").rglob("*") if p.is_file()}
    _propose(scientist, [_change(path, "escaped")])
    scientist.submit("north", "honest", tree)
    with caplog.at_level(logging.WARNING):
        owner.sync()
    assert "dropped a proposal of lab" in caplog.text
    assert _only(owner.pending_jobs()).name == "honest"  # and the hostile message stops nobody
    assert not any(p.read_bytes() == b"escaped" for p in tmp_path.rglob("*") if p.is_file())
    assert all(p.read_bytes() == data for p, data in before.items() if "public" in p.parts)


def test_a_peer_cannot_speak_for_another(
    nodes: tuple[OwnerNode, ScientistNode], caplog: pytest.LogCaptureFixture
) -> None:
    owner, scientist = nodes
    _propose(
        scientist,
        [_change("app_data/job/inbox/rival@tessera.invalid/v1/job/config.yaml")],
        sender="rival@tessera.invalid",
    )
    with caplog.at_level(logging.WARNING):
        owner.sync()
    assert "another sender" in caplog.text


def test_a_submitted_job_cannot_be_changed_afterwards(
    nodes: tuple[OwnerNode, ScientistNode], tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner, scientist = nodes
    scientist.submit("north", "study", tree)
    owner.sync()
    before = _only(owner.pending_jobs()).files
    known = owner.client.sync_engine.datasite_owner_syncer.event_cache.file_hashes
    path = f"{INBOX}/study/code/windows.py"
    _propose(scientist, [_change(path, "evil = True\n", old_hash=known[Path(path)])])
    _propose(scientist, [_change(path, "", is_deleted=True, old_hash=known[Path(path)])])
    with caplog.at_level(logging.WARNING):
        owner.sync()
    assert caplog.text.count("submit a new job") == 2
    assert _only(owner.pending_jobs()).files == before


def test_garbage_in_the_inbox_stops_nobody(nodes: tuple[OwnerNode, ScientistNode], mailbox: Any, tree: Path) -> None:
    owner, scientist = nodes
    garbage = Place(owner="north", box="inbox", folder="lab", name="msgv2_1.0_garbage.tar.gz")
    mailbox.postbox("lab").put(garbage, b"not encrypted at all")
    scientist.submit("north", "study", tree)
    owner.sync()
    assert _only(owner.pending_jobs()).name == "study"


@pytest.mark.parametrize(
    ("site", "path"), [("rival", "app_data/job/review/state.yaml"), ("north", "../../escaped.txt")]
)
def test_a_hostile_hospital_writes_nowhere_but_in_its_own_folder(
    nodes: tuple[OwnerNode, ScientistNode], tree: Path, tmp_path: Path, site: str, path: str
) -> None:
    owner, scientist = nodes
    event = FileChangeEvent(
        id=uuid4(),
        path_in_datasite=Path(path),
        datasite_email=f"{site}@tessera.invalid",
        content="escaped",
        submitted_timestamp=1.0,
        timestamp=1.0,
    )
    router = owner.client.sync_engine._connection_router
    router.owner_write_event_messages_to_outbox("lab@tessera.invalid", FileChangeEventsMessage(events=[event]))
    scientist.submit("north", "honest", tree)
    owner.sync()
    scientist.sync()
    assert [job.status for job in scientist.jobs()] == ["received"] or scientist.jobs()[0].status == "pending"
    lab = [p for p in (tmp_path / "lab").rglob("*") if p.is_file() and p.parent.name != "syft-event-messages"]
    assert not any(b"escaped" in p.read_bytes() for p in lab)
    assert not (tmp_path / "escaped.txt").exists()


def test_one_postbox_serves_many_threads(mailbox: Any) -> None:
    postbox = mailbox.postbox("north")
    places = [Place(owner="north", box="own", folder="", name=f"{n}.txt") for n in range(40)]

    def write_and_read(place: Place) -> bytes:
        postbox.put(place, place.name.encode())
        postbox.refresh()
        return bytes(postbox.require(place))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write_and_read, places)) == [p.name.encode() for p in places]
    postbox.refresh()
    assert {entry.place for entry in postbox.list(box="own")} == set(places)


def test_a_link_in_the_tree_is_not_followed(tree: Path) -> None:
    (tree / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="got a link"):
        read_tree(tree)


def test_a_job_name_is_used_once_and_stays_in_its_folder(nodes: tuple[OwnerNode, ScientistNode], tree: Path) -> None:
    _, scientist = nodes
    scientist.submit("north", "study", tree)
    with pytest.raises(InvalidInput, match="was sent to north before"):
        scientist.submit("north", "study", tree)
    with pytest.raises(Refused, match="leads out"):
        scientist.submit("north", "../study", tree)


def test_an_idle_sync_costs_one_request(nodes: tuple[OwnerNode, ScientistNode], mailbox: Any) -> None:
    owner, scientist = nodes
    owner.sync()
    scientist.sync()
    for node in (owner, scientist):
        mailbox.requests.clear()
        node.sync()
        assert mailbox.requests == ["GET /mailbox/news"]


def test_waiting_for_news_ends_with_the_news(nodes: tuple[OwnerNode, ScientistNode], tree: Path) -> None:
    owner, scientist = nodes
    owner.sync()
    assert owner.wait_for_news(0.05) is False
    scientist.submit("north", "study", tree)
    assert owner.wait_for_news(30) is True
    owner.sync()
    assert _only(owner.pending_jobs()).name == "study"


def test_a_metadata_file_cannot_lie_about_its_submitter(
    nodes: tuple[OwnerNode, ScientistNode], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, scientist = nodes
    original = JobSubmissionMetadata.disk_dict
    monkeypatch.setattr(
        JobSubmissionMetadata, "disk_dict", lambda self: {**original(self), "submitted_by": "rival@tessera.invalid"}
    )
    scientist.submit("north", "study", tree)
    owner.sync()
    assert _only(owner.pending_jobs()).submitter == "lab"
