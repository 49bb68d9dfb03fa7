"""A scientist with a key of their own asks for more than is theirs, or somebody asks in a scientist's name.

Played: requests that name other parties, software, recipients, an old time or another's model; that bring other code or
another model than they bind; too many; a forged one; a seal without a request and a request without a seal.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.pilot_study import NAMES
from support.pilot_study import proposal as pilot

from datasites.node.roster import Roster
from datasites.review.environment import current_environment
from datasites.study.proposal import Chain, Custody, Party, Plan, Proposal
from datasites.study.requests import REQUEST, check_request, opened
from datasites.study.signing import dump, seal
from orchestrator.api.requests import MOST_OPEN, StudyRequest, _take, check_bounds
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import Store
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity
from privacy.ledger.journal import Journal

KEYS = {name: Identity.from_seed(name.encode().ljust(32, b".")) for name in ("dr-lang", "notary", *NAMES, "ada", "eve")}
MODEL, CODE = b"a model", {"plan.py": b"# ours\n"}


def party(name: str) -> Party:
    return Party(name=name, institution=f"Institution {name}", public_key=KEYS[name].public_key)


ADA = party("ada")
ROSTER = Roster(
    orchestrator=party("dr-lang"),
    keyholder=party("notary"),
    sites=tuple(map(party, NAMES)),
    scientists=(ADA, party("eve")),
)


def hers(**changes: Any) -> Proposal:
    """A study that Ada may ask for."""
    base = pilot()
    sites = tuple(
        replace(p, institution=f"Institution {p.name}", public_key=KEYS[p.name].public_key) for p in base.participants
    )
    fields: dict[str, Any] = {
        "scientist": ADA,
        "orchestrator": ROSTER.orchestrator,
        "keyholder": ROSTER.keyholder,
        "participants": sites,
        "environment": current_environment(),
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "custody": Custody(downloaders=("ada", "dr-lang"), licence="research", retention_days=90),
        "plan": Plan(kind="declarative", code={name: sha256_hex(data) for name, data in CODE.items()}),
        "chain": Chain(model_hash=sha256_hex(MODEL)),
    }
    return replace(base, **(fields | changes))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(
        identity=KEYS["dr-lang"],
        roster=ROSTER,
        store=Store(tmp_path / "store"),
        journal=Journal(tmp_path / "journal.sqlite", KEYS["dr-lang"]),
    )
    yield made
    made.journal.close()
    made.store.close()


def request(
    proposal: Proposal, *, key: str = "ada", model: bytes = MODEL, code: dict[str, bytes] = CODE
) -> StudyRequest:
    return StudyRequest(
        request=seal(KEYS[key], REQUEST, proposal),
        model=base64.b64encode(model).decode(),
        files={name: base64.b64encode(data).decode() for name, data in code.items()},
    )


def test_what_she_may_ask_for_is_sealed_kept_and_journaled_in_her_name(service):
    proposal = hers()
    sealed = _take(service, ADA, proposal, request(proposal))
    assert sealed.public_key == KEYS["dr-lang"].public_key
    assert service.store.blob(sha256_hex(CODE["plan.py"])) == CODE["plan.py"]
    entry = next(iter(service.journal.entries(kind="study-registered")))
    assert entry.body["scientist"] == "ada" and entry.body["proposal_hash"] == proposal.proposal_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"orchestrator": party("eve")}, "names the orchestrator"),
        ({"keyholder": party("eve")}, "names the orchestrator and the keyholder"),
        ({"custody": Custody(downloaders=("ada", "eve"), licence="r", retention_days=9)}, "the orchestrator alone"),
        ({"created": "2026-01-01T00:00:00+00:00"}, "not made now"),
        ({"chain": Chain(model_hash=sha256_hex(MODEL), origin="study", study="a" * 64)}, "asked for themselves"),
        ({"environment": replace(current_environment(), code_hash="0" * 64)}, "the software that runs here"),
    ],
    ids=["orchestrator", "keyholder", "recipient", "old", "another's model", "software"],
)
def test_what_is_not_hers_to_name_is_refused_and_nothing_is_kept(service, changes, message):
    proposal = hers(**changes)
    with pytest.raises(Refused, match=message):
        _take(service, ADA, proposal, request(proposal))
    assert service.store.studies() == [] and not list(service.store.folder.glob("blobs/*"))


def test_a_hospital_nobody_knows_is_refused(service):
    known = hers().participants
    for change in ({"institution": "Another"}, {"public_key": KEYS["eve"].public_key}):
        with pytest.raises(Refused, match="nobody of this consortium"):
            check_bounds(service, ADA, hers(participants=(replace(known[0], **change), *known[1:])))


@pytest.mark.parametrize(
    ("brought", "message"),
    [
        ({"model": b"another"}, "another initial model"),
        ({"code": {"plan.py": b"other"}}, "other code"),
        ({"code": {**CODE, "more.py": b""}}, "other code"),
    ],
    ids=["model", "changed", "added"],
)
def test_what_a_request_brings_is_what_it_binds(service, brought, message):
    proposal = hers()
    with pytest.raises(InvalidInput, match=message):
        _take(service, ADA, proposal, request(proposal, **brought))
    assert not list(service.store.folder.glob("blobs/*"))


def test_she_has_a_bounded_number_of_open_studies(service):
    for number in range(MOST_OPEN):
        proposal = hers(study=f"study-{number}")
        _take(service, ADA, proposal, request(proposal))
    with pytest.raises(Refused, match="open studies"):
        check_bounds(service, ADA, hers(study="one-more"))
    service.store.set_state("study-0", "withdrawn", "by ada")
    check_bounds(service, ADA, hers(study="one-more"))


def test_nobody_asks_in_her_name():
    proposal = hers()
    forged = seal(KEYS["eve"], REQUEST, proposal)
    with pytest.raises(InvalidInput, match="another key"):
        opened(forged, ADA)
    with pytest.raises(InvalidInput, match="whoever signs it"):
        opened(forged, party("eve"))
    with pytest.raises(InvalidInput, match="another key"):
        check_request(proposal, forged, ROSTER.scientists)


def test_a_hospital_believes_neither_the_orchestrator_nor_a_scientist_alone():
    proposal = hers()
    signed = seal(KEYS["ada"], REQUEST, proposal)
    check_request(proposal, signed, ROSTER.scientists)
    with pytest.raises(Refused, match="no request of theirs"):
        check_request(proposal, None, ROSTER.scientists)
    with pytest.raises(Refused, match="no scientist of the roster"):
        check_request(proposal, signed, ())
    with pytest.raises(Refused, match="no scientist of the roster"):
        check_request(proposal, signed, (replace(ADA, institution="Elsewhere"),))
    with pytest.raises(Refused, match="another study"):
        check_request(replace(proposal, rounds=5), signed, ROSTER.scientists)
    with pytest.raises(Refused, match="names no scientist"):
        check_request(replace(proposal, scientist=None), signed, ROSTER.scientists)


def test_a_study_without_a_scientist_has_the_hash_that_it_had():
    proposal = pilot()
    assert "scientist" not in dump(proposal)
    assert hers().proposal_hash != replace(hers(), scientist=party("eve")).proposal_hash
