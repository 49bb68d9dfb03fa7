"""What a hospital keeps of rounds that are over: what was signed, and no update."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datasites.hospital.cli import app
from datasites.hospital.rounds.tidying import DELETED, require_kept, tidy
from datasites.node.home import Config, Home
from datasites.review.records import ReviewRecords
from datasites.training.local_parameters import KEPT
from privacy.errors import Refused
from privacy.ledger.journal import Journal

BYTES = 1000
STUDY = "long"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    config = Config(name="north", institution="North", role="datasite", orchestrator_url="http://127.0.0.1:9")
    return Home.create(tmp_path / "north", config)


@pytest.fixture
def journal(home: Home) -> Iterator[Journal]:
    made = Journal(home.folder / "journal.sqlite", home.identity())
    yield made
    made.close()


def trained(home: Home, number: int, *, own: bool = False) -> Path:
    folder = home.round_folder(STUDY, number)
    folder.mkdir(parents=True)
    for name in ("plan.json", "header.json", "attestation.json", "update.bin", "sent.safetensors", "sites.txt"):
        (folder / name).write_bytes(bytes(BYTES))
    if own:
        (folder / KEPT).write_bytes(bytes(BYTES))
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_signed_documents_stay_and_updates_go_with_their_round(home: Home, journal: Journal) -> None:
    folders = [trained(home, number, own=number == 2) for number in range(1, 6)]
    tidied = tidy(home, journal, STUDY, now_in=5)
    signed = {"plan.json", "header.json", "attestation.json"}
    assert names(folders[0]) == names(folders[2]) == signed
    assert names(folders[1]) == {*signed, KEPT}  # the newest of what stays at this hospital
    assert names(folders[3]) == {*signed, "sent.safetensors", "sites.txt"}  # the next round compares with it
    assert "update.bin" in names(folders[4])
    assert tidied.bytes == BYTES * len(tidied.files) == BYTES * (4 + 3 * 2)
    (entry,) = journal.entries(kind=DELETED)
    assert entry.body["rounds"] == [1, 2, 3, 4] and entry.body["bytes"] == tidied.bytes


def test_what_is_kept_does_not_grow_with_the_updates(home: Home, journal: Journal) -> None:
    for number in range(1, 41):
        trained(home, number)
        tidy(home, journal, STUDY, now_in=number)
    kept = [path for path in home.round_folder(STUDY, 0).parent.rglob("*") if path.is_file() and path.suffix != ".json"]
    assert len(kept) == 3 + 2


def test_a_dry_run_deletes_nothing_and_a_second_look_finds_nothing(home: Home, journal: Journal) -> None:
    folder = trained(home, 1)
    said = tidy(home, journal, STUDY, now_in=2, dry_run=True)
    assert said.files == ("1/update.bin",) and "update.bin" in names(folder)
    assert tidy(home, journal, STUDY, now_in=2) == said
    assert tidy(home, journal, STUDY, now_in=2).files == ()
    assert len(list(journal.entries(kind=DELETED))) == 1


def test_a_kill_after_the_journal_leaves_the_rest_for_the_next_round(
    home: Home, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [trained(home, number) for number in (1, 2, 3)]

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(KeyboardInterrupt):
            tidy(home, journal, STUDY, now_in=3)
    assert "update.bin" in names(folders[2])
    tidy(home, journal, STUDY, now_in=3)
    assert "update.bin" not in names(folders[0]) and "update.bin" in names(folders[2])


def test_an_update_that_went_is_never_made_again(home: Home, journal: Journal) -> None:
    folder = trained(home, 1)
    require_kept(folder)
    tidy(home, journal, STUDY, now_in=2)
    with pytest.raises(Refused, match="round 1 is over here"):
        require_kept(folder)
    require_kept(home.round_folder(STUDY, 7))  # a round that was not here yet


def test_the_command_says_what_would_go(home: Home) -> None:
    ReviewRecords(home.folder / "approvals.sqlite").close()
    Journal(home.folder / "journal.sqlite", home.identity()).close()
    done = CliRunner().invoke(app, ["tidy", "--home", str(home.folder), "--dry-run", "--json"])
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == 0 and told["dry_run"] is True and told["studies"] == []
