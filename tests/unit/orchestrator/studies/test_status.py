"""What the orchestrator tells the participants of a study."""

from __future__ import annotations

from pathlib import Path

from datasites.study.signing import Signed, parse
from orchestrator.rounds.store import Store
from orchestrator.studies.status import study_status
from privacy.canonical import NEWEST
from privacy.identity import Identity


def test_the_proposal_is_told_whole_with_the_version_of_its_signature(tmp_path: Path) -> None:
    roles = {role: {"name": role} for role in ("orchestrator", "keyholder")}
    payload = {"rounds": 1, "participants": [{"name": "a"}], "share": 1.0, **roles}
    identity = Identity.generate()
    signed = Signed(
        kind="proposal",
        payload=payload,
        public_key=identity.public_key,
        signature=identity.sign("proposal", payload, NEWEST),
        canonical=NEWEST,
    )
    store = Store(tmp_path)
    store.add_study("pilot", signed)
    told = parse(Signed, study_status(store, "pilot", "keyholder")["proposal"])
    store.close()
    assert told == signed
    assert told.canonical == NEWEST
