"""A backup is whole, taken from a running role, and restores the same folder or nothing."""

from __future__ import annotations

import gzip
import io
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datasites.node.archives.archive import back_up, restore
from datasites.node.home import Config, Home
from orchestrator.cli.backup import app
from privacy.errors import InvalidInput, Tampered, TesseraError
from privacy.ledger.journal import Journal


@pytest.fixture
def home(tmp_path: Path) -> Home:
    config = Config(name="alba", institution="Alba", role="datasite", orchestrator_url="http://127.0.0.1:1")
    made = Home.create(tmp_path / "alba", config)
    (made.folder / "datasets/x/v1/private").mkdir(parents=True)
    (made.folder / "datasets/x/v1/private/cases.bin").write_bytes(bytes(range(256)) * 9)
    (made.folder / "scratch/job-1").mkdir(parents=True)
    (made.folder / "scratch/job-1/model").write_bytes(b"x")
    (made.folder / "address.json").write_text("{}")
    (made.folder / ".half.new").write_text("half")
    return made


def test_a_running_roles_folder_comes_back_with_every_entry_that_was_written(home: Home, tmp_path: Path) -> None:
    with closing(Journal(home.folder / "journal.sqlite", home.identity())) as journal:
        for number in range(5):
            journal.append("started", {"n": number})
        made = back_up(home, tmp_path / "out/alba.tessera")  # the store is open, its newest entries in its log
        journal.append("started", {"n": "after"})
    assert (tmp_path / "out/alba.tessera").stat().st_mode & 0o077 == 0
    again = restore(tmp_path / "out/alba.tessera", tmp_path / "back")
    assert again == made and again.name == "alba"
    back = Home(folder=tmp_path / "back")
    assert back.identity().public_key == home.identity().public_key and back.config() == home.config()
    assert (back.folder / "identity.pem").stat().st_mode & 0o077 == 0 and back.folder.stat().st_mode & 0o077 == 0
    assert (back.folder / "datasets/x/v1/private/cases.bin").read_bytes() == bytes(range(256)) * 9
    assert not {"scratch", "address.json", ".half.new", "journal.sqlite-wal"} & {p.name for p in back.folder.iterdir()}
    with closing(Journal(back.folder / "journal.sqlite", back.identity())) as journal:
        journal.verify()
        assert [e.body["n"] for e in journal.entries()] == [0, 1, 2, 3, 4]


def test_nothing_is_written_over(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "a")
    for out in (tmp_path / "a", home.folder / "inside"):
        with pytest.raises(InvalidInput, match="new file outside"):
            back_up(home, out)
    with pytest.raises(InvalidInput, match="missing or an empty"):
        restore(tmp_path / "a", home.folder)
    (tmp_path / "empty").mkdir()
    assert restore(tmp_path / "a", tmp_path / "empty").role == "datasite"
    with pytest.raises(InvalidInput, match="no config"):
        back_up(Home(folder=tmp_path / "nowhere"), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def forged(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


LIST = b'{"role": "datasite", "name": "a", "made": "now", "files": {}}'


FORGED = {
    "nothing": {},
    "no list": {"a": b"x"},
    "above": {"../a": b"x"},
    "absolute": {"/a": b"x"},
    "not listed": {"a": b"x", "tessera-backup.json": LIST},
    "after the list": {"tessera-backup.json": LIST, "a": b"x"},
    "no JSON": {"tessera-backup.json": b"{"},
}


@pytest.mark.parametrize("members", FORGED.values(), ids=FORGED)
def test_a_forged_archive_leaves_nothing(tmp_path: Path, members: dict[str, bytes]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(TesseraError):
        restore(forged(tmp_path / "a", members), place / "home")
    with pytest.raises(TesseraError):
        restore(forged(tmp_path / "b", {"link": b""}, tarfile.SYMTYPE), place / "home")
    assert list(place.iterdir()) == [] and not (tmp_path / "a").is_dir()


def test_a_damaged_archive_leaves_nothing(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    for damaged in (b"", whole[:50], whole[: len(whole) // 2], whole[:-4], b"x" + whole, b"no archive at all"):
        (tmp_path / "b").write_bytes(damaged)
        with pytest.raises((InvalidInput, Tampered)):
            restore(tmp_path / "b", tmp_path / "back")
        assert not (tmp_path / "back").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_commands_say_what_to_do_next(home: Home, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["backup", "--home", str(home.folder), "--out", str(tmp_path / "a"), "--json"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["restore", str(tmp_path / "a"), "--home", str(tmp_path / "back")])
    assert done.exit_code == 0 and "import-gap" in done.output and "resend" in done.output
