"""The orchestrator invents hospitals, so that a "sum of nine" is known but for the one or two real ones in it.

Played: two real and seven invented hospitals, each with a key and an approval of its own; a real key under another
institution or name; a real institution under an invented key. Keyholder, helpers and real hospitals refuse all of
them, though every fingerprint that the portal shows was confirmed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.consortium import Consortium
from harness.proposals import make_participant
from support.liar import Liar

from datasites.helper.custody import PadCustody
from datasites.helper.daemon import Helper
from datasites.keyholder.custody import KeyCustody
from datasites.keyholder.daemon import Keyholder
from datasites.review.accounts import Account
from datasites.study.messages import Approval, WorkItem
from datasites.study.proposal import Participant, Party, Proposal
from datasites.study.signing import dump, seal
from privacy.canonical import sha256_hex
from privacy.encryption.parameters import choose_parameters
from privacy.errors import Refused
from privacy.identity import Identity
from privacy.ledger.journal import Journal

NOW = dt.datetime.now(dt.UTC)


def invented(number: int) -> Identity:
    return Identity.from_seed(sha256_hex(f"invented-{number}".encode())[:32].encode())


def invention(number: int) -> Participant:
    party = Party(name=f"clinic-{number}", institution=f"Clinic {number}", public_key=invented(number).public_key)
    return make_participant(party)


Change = Callable[[tuple[Participant, ...]], tuple[Participant, ...]]
CASTS: dict[str, Change] = {
    "two real and seven invented": lambda real: (*real[:2], *map(invention, range(7))),
    "one more than there are": lambda real: (*real, invention(1)),
    "a real key under another institution": lambda real: (replace(real[0], institution="Clinic 1"), *real[1:]),
    "a real key under another name": lambda real: (replace(real[0], name="clinic-1"), *real[1:]),
    "a real institution under an invented key": lambda real: (
        replace(real[0], public_key=invented(1).public_key),
        *real[1:],
    ),
}


@pytest.fixture(params=CASTS, ids=str)
def proposal(consortium: Consortium, request: pytest.FixtureRequest) -> Proposal:
    real = tuple(make_participant(consortium.homes[name].party()) for name in consortium.names)
    cast = CASTS[request.param](real)
    packing = choose_parameters(sites=9, levels=64, length=10)
    study = f"cast-{sha256_hex(request.param.encode())[:8]}"
    return consortium.proposal(study, length=10, participants=cast, encryption=packing)


@pytest.fixture
def keyholder(consortium: Consortium, proposal: Proposal, tmp_path: Path) -> Iterator[Keyholder]:
    home = consortium.homes["keyholder"]
    custody = KeyCustody(tmp_path / "keys", home.identity())
    journal = Journal(tmp_path / "journal.sqlite", home.identity())
    client: Any = Liar(consortium, proposal)
    yield Keyholder(home=home, client=client, custody=custody, journal=journal, queue=None)  # type: ignore[arg-type]
    custody.close()
    journal.close()


def approved_by_all(consortium: Consortium, liar: Any, proposal: Proposal) -> None:
    """Let the orchestrator show a true signature of every participant, the invented ones included."""
    identities = {home.identity().public_key: home.identity() for home in consortium.homes.values()}
    identities |= {invented(n).public_key: invented(n) for n in range(7)}
    for participant in proposal.participants:
        approval = Approval(
            study=proposal.study,
            proposal_hash=proposal.proposal_hash,
            site=participant.name,
            reviewers=(),
            approved=NOW.isoformat(),
            expires=proposal.expires,
        )
        liar.approvals[participant.name] = dump(seal(identities[participant.public_key], "approval", approval))


def test_the_keyholder_makes_no_key_though_all_have_signed(
    consortium: Consortium, keyholder: Keyholder, proposal: Proposal
) -> None:
    liar: Any = keyholder.client
    approved_by_all(consortium, liar, proposal)
    keyholder.handle(WorkItem(kind="key", study=proposal.study, round=1, closing=0, documents={}))
    assert not liar.sent["key"]
    assert "not in the roster that was confirmed here" in liar.reasons("keyholder")[-1]


@pytest.mark.parametrize("cast", CASTS, ids=str)
def test_a_helper_makes_no_key_though_all_have_signed(helped_consortium: Consortium, cast: str, tmp_path: Path) -> None:
    """A helper that served it would open the invented hospitals' list, and the sum of its pads with it."""
    real = tuple(make_participant(helped_consortium.homes[name].party()) for name in helped_consortium.names)
    packing = choose_parameters(sites=9, levels=64, length=10)
    study = f"helped-{sha256_hex(cast.encode())[:8]}"
    honest = helped_consortium.proposal(study, length=10, encryption=packing)
    for proposal, served in ((replace(honest, participants=CASTS[cast](real)), False), (honest, True)):
        liar: Any = Liar(helped_consortium, proposal)
        approved_by_all(helped_consortium, liar, proposal)
        for name in helped_consortium.helpers:
            home, folder = helped_consortium.homes[name], tmp_path / f"{name}-{served}"
            folder.mkdir()
            with closing(Journal(folder / "journal.sqlite", home.identity())) as journal:
                custody = PadCustody(folder / "rounds-kept", home.identity())
                helper = Helper(home=home, client=liar, custody=custody, journal=journal, queue=None)  # type: ignore[arg-type]
                helper.handle(WorkItem(kind="key", study=study, round=1, closing=0, documents={}))
            if served:
                assert len(liar.sent["helper-key"]) == 1 + helped_consortium.helpers.index(name)
            else:
                assert not liar.sent["helper-key"] and not list(folder.rglob("*.key"))
                assert "not in the roster that was confirmed here" in liar.reasons(name)[-1]


def test_no_real_hospital_approves_though_every_fingerprint_was_confirmed(
    consortium: Consortium, proposal: Proposal
) -> None:
    steward = Identity.from_seed(b"s" * 32)
    person = Account(name="steward", role="steward", public_key=steward.public_key)
    asked = 0
    for hospital in consortium.hospitals:
        name = hospital.participant.site
        own = hospital.home.identity().public_key
        if (name, own) not in {(p.name, p.public_key) for p in proposal.participants}:
            continue
        asked += 1
        folder = hospital.home.folder / "code"
        folder.mkdir(exist_ok=True)
        request = hospital.approvals.receive(seal(consortium.identity, "proposal", proposal), folder, now=NOW)
        for party in proposal.participants:
            with suppress(Refused):
                hospital.approvals.confirm(
                    party.public_key, name=party.name, institution=party.institution, person=person, now=NOW
                )
        with pytest.raises(Refused, match="not in the roster that was confirmed here"):
            hospital.approvals.approve(request.proposal_hash, reviewer=person, key=steward, now=NOW)
    assert asked >= 2
