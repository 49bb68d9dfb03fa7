"""A hospital that comes back with an old backup: it refuses to work until a person has imported what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.consortium import Consortium, Hospital, playing

from datasites.node.rollback import GAP, Standing, import_gap, was_imported
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, seal
from privacy.errors import InvalidInput, Refused

FILES = ("journal.sqlite", "ledger.sqlite")


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Consortium(tmp_path_factory.mktemp("rollback"), sites=3) as made:
        made.start()
        yield made


@dataclass
class Victim:
    """The hospital whose disk fails."""

    consortium: Consortium
    index: int

    @property
    def hospital(self) -> Hospital:
        return self.consortium.hospitals[self.index]

    @property
    def folder(self) -> Path:
        return self.hospital.home.folder

    def backup(self, files: tuple[str, ...] = FILES) -> Path:
        self.hospital.close()
        target = self.folder.with_name(f"{self.folder.name}-backup")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for name in files:
            shutil.copy2(self.folder / name, target / name)
        self.reopen()
        return target

    def restore(self, backup: Path) -> None:
        self.hospital.close()
        for path in backup.iterdir():
            for left in self.folder.glob(f"{path.name}*"):
                left.unlink()
            shutil.copy2(path, self.folder / path.name)
        self.reopen()

    def reopen(self) -> None:
        self.consortium.hospitals[self.index] = Hospital.open(self.hospital.home, playing(self.index))

    def standing(self) -> Standing:
        part = self.hospital.participant
        return Standing(home=part.home, client=part.client, ledger=part.ledger, journal=part.journal)

    def spent(self) -> tuple[float, ...]:
        ledger = self.hospital.participant.ledger
        return ledger.spent(ledger.populations()[0]).cost.rdp


def train(consortium: Consortium, study: str) -> None:
    with consortium.working():
        consortium.wait(study, "finished")


@pytest.mark.parametrize("files", [FILES, ("ledger.sqlite",)])
def test_an_old_backup_is_noticed_and_its_gap_is_charged_once(consortium: Consortium, files: tuple[str, ...]) -> None:
    victim = Victim(consortium, len(files) - 1)
    first, second = f"before-{len(files)}", f"after-{len(files)}"
    consortium.propose(first)
    proposal = consortium.propose(second, approve=False)
    victim.hospital.approve(_signed(consortium, proposal))
    train(consortium, first)
    backup = victim.backup(files)
    for hospital in consortium.hospitals:
        hospital.approve(_signed(consortium, proposal))
    train(consortium, second)
    assert victim.standing().holds()
    spent = victim.spent()

    victim.restore(backup)
    standing = victim.standing()
    assert victim.spent() != spent
    assert not standing.holds()
    assert second in standing.trouble
    assert "import-gap" in standing.trouble
    with pytest.raises(Refused, match="restored from a backup"):
        standing.require()
    assert not victim.standing().holds()  # a restart changes nothing
    kinds = [entry.kind for entry in victim.hospital.participant.journal.entries()]
    assert kinds.count("rolled-back") == 1

    booked = import_gap(victim.hospital.home, by="B. Steward", reason="the disk failed on Monday")
    assert [(b["study"], b["rounds"], b["imported_as_spend"]) for b in booked] == [(second, [1], [])]
    assert victim.spent() == pytest.approx(spent)
    assert victim.standing().holds()
    assert victim.standing().trouble == ""
    victim.hospital.participant.ledger.charge(proposal.proposal_hash, 1)
    assert victim.spent() == pytest.approx(spent)
    assert was_imported(victim.hospital.participant.journal, second, 1)
    victim.hospital.participant.ledger.verify()

    third = f"again-{len(files)}"
    consortium.propose(third)
    train(consortium, third)
    assert victim.standing().holds()


def test_a_gap_whose_reservation_is_lost_is_imported_as_spend_once(consortium: Consortium) -> None:
    victim = Victim(consortium, 2)
    consortium.propose("known")
    train(consortium, "known")
    backup = victim.backup()
    consortium.propose("forgotten", rounds=2)
    train(consortium, "forgotten")
    spent = victim.spent()
    victim.restore(backup)
    assert not victim.standing().holds()
    gap = (victim.folder / GAP).read_bytes()
    booked = import_gap(victim.hospital.home, by="B. Steward", reason="the disk failed")
    assert booked[0]["imported_as_spend"] == [1, 2]
    assert victim.spent() == pytest.approx(spent)
    (victim.folder / GAP).write_bytes(gap)  # the command was ended between its last two steps
    import_gap(victim.hospital.home, by="B. Steward", reason="the disk failed")
    assert victim.spent() == pytest.approx(spent)
    assert victim.standing().holds()


def test_without_a_gap_there_is_nothing_to_import(consortium: Consortium) -> None:
    with pytest.raises(InvalidInput, match="no gap"):
        import_gap(consortium.hospitals[0].home, by="B. Steward", reason="none")


def _signed(consortium: Consortium, proposal: Proposal) -> Signed:
    return seal(consortium.identity, "proposal", proposal)
