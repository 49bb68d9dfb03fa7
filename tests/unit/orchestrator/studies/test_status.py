"""What the orchestrator tells the participants of a study."""

from __future__ import annotations

from pathlib import Path

from support.pilot_study import proposal

from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, open_sealed, parse, seal
from orchestrator.rounds.store import Store
from orchestrator.studies.status import study_status
from privacy.canonical import NEWEST
from privacy.identity import Identity


def test_the_proposal_in_a_status_is_the_signed_one(tmp_path: Path) -> None:
    author, study = Identity.generate(), proposal()
    store = Store(tmp_path)
    store.add_study(study.study, seal(author, "proposal", study))
    shown = study_status(store, study.study, study.participants[0].name)["proposal"]
    assert parse(Signed, shown).canonical == NEWEST
    assert open_sealed(parse(Signed, shown), "proposal", author.public_key, Proposal) == study
    store.close()
