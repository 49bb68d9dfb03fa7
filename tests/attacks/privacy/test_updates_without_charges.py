"""A restored copy, or a folder that was lost, lets an update leave that its ledger never charged.

Played: a backup in which a round's update lies and its charge does not; a round whose update is gone, asked for again,
whose second release would have other noise; the order in which a backup is written.
"""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

from harness.consortium import Hospital, playing
from support.liar import Stage, consortium, stage

from datasites.node.archives.archive import back_up, restore
from datasites.node.home import Home
from privacy.ledger.ledger import Ledger

__all__ = ["consortium", "stage"]


def charged(ledger: Ledger) -> list[int]:
    return [entry.body["round"] for entry in ledger.entries(kind="charge")]


def test_an_update_that_a_restored_copy_holds_is_charged_before_it_is_sent(stage: Stage, tmp_path: Path) -> None:
    home = stage.consortium.hospitals[0].home
    back_up(home, tmp_path / "before.tessera")
    assert stage.train(0)
    restore(tmp_path / "before.tessera", tmp_path / "restored")
    study = home.round_folder(stage.proposal.study, 0).parent
    place = tmp_path / "restored" / study.relative_to(home.folder)
    shutil.copytree(study, place, dirs_exist_ok=True)
    restored = Hospital.open(Home(folder=tmp_path / "restored"), playing(0))
    try:
        ledger = restored.participant.ledger
        others = charged(ledger)
        participant = replace(restored.participant, client=stage.liar)  # type: ignore[arg-type]
        sent = len(stage.liar.sent["update"])
        participant.handle(stage.item("train", {"plan": stage.plan, "key": stage.key}))
        assert len(stage.liar.sent["update"]) == sent + 1
        assert charged(ledger) == [*others, 1]
    finally:
        restored.close()


def test_a_round_whose_update_is_gone_is_not_trained_again(stage: Stage) -> None:
    hospital = stage.consortium.hospitals[0]
    assert stage.train(0)
    ledger = hospital.participant.ledger
    before = charged(ledger)
    shutil.rmtree(hospital.home.round_folder(stage.proposal.study, 0).parent)
    assert not stage.train(0)
    assert "it is not done twice" in stage.liar.reasons("site-0")[-1]
    assert charged(ledger) == before


def test_a_backup_holds_the_chains_as_of_later_than_everything_else(stage: Stage, tmp_path: Path) -> None:
    assert stage.train(0)
    archive = tmp_path / "now.tessera"
    back_up(stage.consortium.hospitals[0].home, archive)
    with tarfile.open(archive, "r:gz") as tar:
        names = [name for name in tar.getnames() if not name.startswith("manifest")]
    chains = [names.index(name) for name in ("journal.sqlite", "ledger.sqlite")]
    assert min(chains) > max(at for at, name in enumerate(names) if "/" in name)
