"""Files of rounds that are over go by rule, oldest first, and nothing that a running round needs goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.consortium import Consortium
from typer.testing import CliRunner

from datasites.study.signing import seal
from orchestrator.cli.main import app
from orchestrator.rounds.keeping import tidying
from orchestrator.rounds.keeping.tidying import DELETED, LAGGING, room_taken, tidy
from orchestrator.rounds.store import Store
from privacy.canonical import sha256_hex
from privacy.ledger.journal import Journal

BYTES = 1000
PER_ROUND = 5  # model, moments, key, sum, integers


@dataclass
class Scene:
    consortium: Consortium
    store: Store
    journal: Journal

    def add(self, study: str) -> None:
        proposal = self.consortium.proposal(study, rounds=200)
        self.store.add_study(study, seal(self.consortium.identity, "proposal", proposal))
        self.store.put_document(study, 0, "initial", {"model_hash": self.blob(study, 0, "model")})

    def blob(self, *about: object) -> str:
        return self.store.put_blob(repr(about).encode().ljust(BYTES, b" "))

    def round(self, study: str, number: int, *, without: tuple[str, ...] = ()) -> None:
        """Leave a finished round as a runner does."""
        put = self.store.put_document
        named = {name: self.blob(study, number, name) for name in ("model", "moments", "key", "sum", "integers")}
        put(study, number, "key", {"payload": {"key_hash": named["key"]}}, author="keyholder")
        put(study, number, "commitments", {"payload": {"sum_hash": named["sum"], "updates": ["9" * 64]}})
        put(study, number, "result", {"payload": {"integers_hash": named["integers"]}}, author="keyholder")
        for site in set(self.consortium.names) - set(without):
            put(study, number, "attestation", {"payload": {}}, author=site)
        put(study, number, "checkpoint", {"model_hash": named["model"], "moments_hash": named["moments"]})

    def has(self, study: str, number: int, name: str) -> bool:
        digest = sha256_hex(repr((study, number, name)).encode().ljust(BYTES, b" "))
        return (self.store.folder / "blobs" / digest).exists()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    consortium = Consortium(tmp_path / "consortium", sites=3)
    home = consortium.homes["orchestrator"]
    made = Scene(consortium, Store(home.folder / "store"), Journal(home.folder / "journal.sqlite", home.identity()))
    made.add("long")
    yield made
    made.store.close()
    made.journal.close()


def test_what_a_long_study_keeps_is_bounded_whatever_its_rounds(scene: Scene) -> None:
    most = 0
    for number in range(1, 121):
        scene.round("long", number)
        tidy(scene.store, scene.journal, kept_bytes=30 * BYTES)
        most = max(most, room_taken(scene.store))
    assert most <= (30 + 3 * PER_ROUND) * BYTES
    assert all(scene.has("long", number, "model") for number in (0, 118, 119, 120))
    thinned = [number for number in range(1, 118) if scene.has("long", number, "model")]
    assert thinned and thinned[0] < 60 < thinned[-1]  # models of the whole study, not of its end alone


def test_a_study_within_its_room_keeps_every_file(scene: Scene) -> None:
    for number in range(1, 11):
        scene.round("long", number)
    assert tidy(scene.store, scene.journal) == ()
    assert all(scene.has("long", number, "integers") for number in range(1, 11))


def test_evidence_goes_before_models_and_documents_stay(scene: Scene) -> None:
    for number in range(1, 11):
        scene.round("long", number)
    kept = (1 + 10 + 2 * 4) * BYTES  # every model, and the rest of two rounds
    (tidied,) = tidy(scene.store, scene.journal, kept_bytes=kept)
    assert tidied.rounds == tuple(range(1, 9)) and tidied.kept_bytes == kept
    assert all(scene.has("long", number, "model") for number in range(11))
    assert not any(scene.has("long", number, name) for number in range(1, 9) for name in ("sum", "integers", "key"))
    assert all(scene.has("long", number, name) for number in (9, 10) for name in ("sum", "integers", "moments"))
    assert all(scene.store.document("long", number, "commitments") for number in range(1, 11))
    (entry,) = scene.journal.entries(kind=DELETED)
    assert (entry.body["study"], entry.body["files"], entry.body["list_hash"]) == ("long", 32, tidied.list_hash)


def test_a_hospital_that_lags_keeps_what_it_has_to_follow_for_a_while(scene: Scene) -> None:
    away = scene.consortium.names[0]
    for number in range(1, 8):
        scene.round("long", number, without=(away,) if number > 3 else ())
    tidy(scene.store, scene.journal, kept_bytes=0)
    assert [number for number in range(1, 8) if scene.has("long", number, "integers")] == [3, 4, 5, 6, 7]
    for number in range(8, LAGGING + 6):
        scene.round("long", number, without=(away,))
    tidy(scene.store, scene.journal, kept_bytes=0)
    assert not scene.has("long", LAGGING, "integers")


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    for number in range(1, 11):
        scene.round("long", number)
    before = room_taken(scene.store)
    (said,) = tidy(scene.store, scene.journal, kept_bytes=0, dry_run=True)
    assert room_taken(scene.store) == before and not list(scene.journal.entries(kind=DELETED))
    assert (said,) == tidy(scene.store, scene.journal, kept_bytes=0)
    assert room_taken(scene.store) == before - said.bytes


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_kill_between_journal_and_deletion_loses_nothing_and_the_next_look_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    for number in range(1, 11):
        scene.round("long", number)
    drop, left = Store.drop_blob, [after]

    def dies(store: Store, digest: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        drop(store, digest)

    monkeypatch.setattr(Store, "drop_blob", dies)
    with pytest.raises(KeyboardInterrupt):
        tidy(scene.store, scene.journal, kept_bytes=0)
    monkeypatch.undo()
    tidy(scene.store, scene.journal, kept_bytes=0)
    assert all(scene.has("long", number, "model") for number in (0, 8, 9, 10))
    assert all(scene.has("long", number, name) for number in (9, 10) for name in ("sum", "integers", "moments"))
    assert not any(scene.has("long", number, "integers") for number in range(1, 9))


def test_single_updates_of_rounds_that_are_over_go_at_once(scene: Scene) -> None:
    scene.round("long", 1)
    for number in (1, 2):
        folder = scene.store.update_folder("long", number)
        folder.mkdir(parents=True)
        (folder / ("a" * 64)).write_bytes(bytes(BYTES))
    (tidied,) = tidy(scene.store, scene.journal)
    assert tidied.bytes == BYTES and len(tidied.updates) == 1
    assert not list(scene.store.update_folder("long", 1).iterdir())
    assert len(list(scene.store.update_folder("long", 2).iterdir())) == 1  # this round still runs


def test_a_model_that_another_study_begins_with_stays(scene: Scene) -> None:
    for number in range(1, 11):
        scene.round("long", number)
    proposal = scene.consortium.proposal("next")
    scene.store.add_study("next", seal(scene.consortium.identity, "proposal", proposal))
    scene.store.put_document("next", 0, "initial", {"model_hash": scene.blob("long", 4, "model")})
    tidy(scene.store, scene.journal, kept_bytes=0)
    assert scene.has("long", 4, "model") and not scene.has("long", 5, "model")


def test_what_is_kept_of_five_million_parameters_fits_the_promise() -> None:
    """Files of one round of 5 million parameters: a model of 20 MB, and at most 150 MB of sums, keys and integers."""
    newest, model = tidying.NEWEST, 20e6
    assert tidying.KEPT_BYTES + newest * (model + 150e6) < 2e9


def test_the_command_deletes_only_without_dry_run(scene: Scene) -> None:
    scene.round("long", 1)
    folder = scene.store.update_folder("long", 1)
    folder.mkdir(parents=True)
    (folder / ("a" * 64)).write_bytes(bytes(BYTES))
    home = scene.consortium.homes["orchestrator"].folder
    for more, there in (["--dry-run"], True), ([], False):
        done = CliRunner().invoke(app, ["orchestrator", "tidy", "--home", str(home), "--json", *more])
        told = json.loads(done.stdout.splitlines()[-1])
        assert done.exit_code == 0 and told["studies"] == [{"study": "long", "files": 1, "bytes": BYTES}]
        assert (folder / ("a" * 64)).exists() is there
