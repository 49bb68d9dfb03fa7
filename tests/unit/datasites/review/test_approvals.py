"""An approval binds everything its hash covers; whatever is changed afterwards is refused and journaled."""

import datetime as dt
import sqlite3
from dataclasses import replace

import pytest
from support.approvals import is_approved

from datasites.review.checks import check_signatures
from datasites.review.records import Decision
from datasites.review.versions import version_before
from datasites.study.messages import Approval
from datasites.study.proposal import Block, Environment
from datasites.study.signing import open_sealed
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.identity import Identity

STRANGER = Identity.from_seed(b"s" * 32)
CODE = {"plan.toml": b"architecture = 'linear'\n"}


def check(desk, proposal, now, **changes):
    given = {
        "now": now,
        "environment": proposal.environment,
        "dataset": proposal.participant("alba").dataset,
        **changes,
    }
    return desk.store.check_before_round(proposal.proposal_hash, **given)


@pytest.fixture
def approved(desk, new_proposal):
    proposal = new_proposal()
    desk.approve(desk.submit(proposal))
    return desk, proposal


def test_an_approved_proposal_may_run(approved, now):
    desk, proposal = approved
    assert check(desk, proposal, now) == proposal
    assert is_approved(desk.store, proposal.proposal_hash)


def test_the_approval_is_sealed_by_the_datasite_and_signed_by_the_person(approved):
    desk, proposal = approved
    sealed = desk.store.request(proposal.proposal_hash).approval
    key = proposal.participant("alba").public_key
    approval = open_sealed(sealed, "approval", key, Approval)
    assert approval.proposal_hash == proposal.proposal_hash
    check_signatures(approval, required=1)
    assert approval.reviewers[0].public_key == desk.accounts.account("anna").public_key


def test_a_study_that_exchanges_nothing_is_not_approved(desk, new_proposal):
    kinds = ("mrna", "image", "clinical")
    alone = [replace(p, modalities=(m,)) for p, m in zip(new_proposal().participants, kinds, strict=True)]
    blocks = tuple(Block(name=m, modality=m, parameters=(f"branches.{m}.weight",), length=4) for m in kinds)
    proposal = new_proposal(participants=tuple(alone), blocks=blocks)
    with pytest.raises(Refused, match="spend privacy for nothing: expected a modality that at least 3"):
        desk.approve(desk.submit(proposal))
    assert desk.store.request(proposal.proposal_hash).state == "pending"


def test_a_proposal_nobody_approved_may_not_run(desk, new_proposal, now):
    proposal = new_proposal()
    desk.submit(proposal)
    with pytest.raises(Refused, match="waiting for a decision"):
        check(desk, proposal, now)


def test_an_unknown_hash_may_not_run(desk, new_proposal, now):
    with pytest.raises(Refused, match="no proposal with the hash"):
        check(desk, new_proposal(), now)


def test_one_flipped_byte_of_the_code_is_refused_and_journaled(approved, now):
    desk, proposal = approved
    file = desk.store.request(proposal.proposal_hash).folder / "plan.toml"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    with pytest.raises(Refused, match=r"plan\.toml was changed"):
        check(desk, proposal, now)
    refused = list(desk.journal.entries(kind="round-refused"))
    assert "plan.toml" in refused[-1].body["reason"]


def test_an_added_a_missing_or_a_linked_file_is_refused(approved, now):
    desk, proposal = approved
    folder = desk.store.request(proposal.proposal_hash).folder
    (folder / "extra.py").write_text("x = 1")
    with pytest.raises(Refused, match="added"):
        check(desk, proposal, now)
    (folder / "extra.py").unlink()
    (folder / "plan.toml").rename(folder / "elsewhere")
    (folder / "plan.toml").symlink_to(folder / "elsewhere")
    with pytest.raises(Refused, match="link"):
        check(desk, proposal, now)
    (folder / "plan.toml").unlink()
    (folder / "elsewhere").unlink()
    with pytest.raises(Refused, match="missing"):
        check(desk, proposal, now)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"fingerprint": "f" * 64}, {"name": "other"}, {"schema_hash": "6" * 64}]
)
def test_another_dataset_is_refused(approved, now, change):
    desk, proposal = approved
    with pytest.raises(Refused, match="dataset is not the approved one"):
        check(desk, proposal, now, dataset=replace(proposal.participant("alba").dataset, **change))


@pytest.mark.parametrize(
    "change", [{"lock_hash": "9" * 64}, {"code_hash": "9" * 64}, {"packages": {"torch": "2.12.0"}}]
)
def test_other_software_is_refused(approved, now, change):
    desk, proposal = approved
    fields = {"lock_hash": "1" * 64, "code_hash": "2" * 64, "packages": {"torch": "2.13.0"}, **change}
    with pytest.raises(Refused, match="software is not the approved one"):
        check(desk, proposal, now, environment=Environment(**fields))


def test_an_expired_approval_is_refused_and_a_clock_set_back_does_not_revive_it(approved, now):
    desk, proposal = approved
    later = now + dt.timedelta(days=31)
    with pytest.raises(Refused, match="expired"):
        check(desk, proposal, later)
    with pytest.raises(Refused, match="expired"):
        check(desk, proposal, now, clock_high_water=later)


def test_the_policy_can_make_an_approval_shorter_than_the_proposal(new_desk, new_proposal, now):
    desk = new_desk("[review]\napproval_days = 2")
    proposal = new_proposal()
    desk.approve(desk.submit(proposal))
    check(desk, proposal, now + dt.timedelta(days=1))
    with pytest.raises(Refused, match="approval expired"):
        check(desk, proposal, now + dt.timedelta(days=3))


def test_a_revoked_approval_stops_the_next_round(approved, now):
    desk, proposal = approved
    anna = desk.accounts.account("anna")
    desk.store.revoke(proposal.proposal_hash, reviewer=anna, reason="consent withdrawn", now=now)
    with pytest.raises(Refused, match="revoked"):
        check(desk, proposal, now)
    with pytest.raises(Refused, match="revoked already"):
        desk.approve(proposal.proposal_hash, "bela")


def test_a_policy_made_stricter_stops_the_next_round(approved, now):
    desk, proposal = approved
    desk.store.policy = desk.store.policy.parse("[study]\nmaximum_rounds = 2")
    with pytest.raises(Refused, match="5 rounds"):
        check(desk, proposal, now)


def test_a_proposal_changed_in_the_database_is_refused(approved, now):
    desk, proposal = approved
    database = sqlite3.connect(desk.folder / "approvals.sqlite")
    with database:
        database.execute("UPDATE requests SET sealed = replace(sealed, '\"rounds\":5', '\"rounds\":6')")
    database.close()
    with pytest.raises(Refused, match="signature does not hold"):
        check(desk, proposal, now)


def test_two_reviewers_have_to_be_two_people(new_desk, new_proposal, now):
    desk = new_desk("[review]\nrequired_reviewers = 2")
    proposal = new_proposal()
    proposal_hash = desk.submit(proposal)
    desk.approve(proposal_hash)
    assert not is_approved(desk.store, proposal_hash)
    with pytest.raises(Refused, match="signed already"):
        desk.approve(proposal_hash)
    with pytest.raises(Refused, match="waiting for a decision"):
        check(desk, proposal, now)
    desk.approve(proposal_hash, "bela")
    check(desk, proposal, now)


def test_the_roles_that_the_policy_wants_have_to_sign(new_desk, new_proposal):
    desk = new_desk('[review]\nrequired_roles = ["privacy-officer"]')
    proposal_hash = desk.submit(new_proposal())
    desk.approve(proposal_hash)
    assert not is_approved(desk.store, proposal_hash)
    desk.approve(proposal_hash, "bela")
    assert is_approved(desk.store, proposal_hash)


def test_free_python_needs_two_reviewers_even_where_one_is_enough(new_desk, new_proposal):
    desk = new_desk("[study]\nallow_free_python = true")
    proposal_hash = desk.submit(new_proposal(kind="python"))
    desk.approve(proposal_hash)
    assert not is_approved(desk.store, proposal_hash)
    desk.approve(proposal_hash, "bela")
    assert is_approved(desk.store, proposal_hash)


def test_a_signature_by_another_key_than_the_reviewers_is_refused(desk, new_proposal, now):
    proposal_hash = desk.submit(new_proposal())
    anna = desk.accounts.account("anna")
    with pytest.raises(Refused, match="own key"):
        desk.store.approve(proposal_hash, reviewer=anna, key=Identity.generate(), now=now)


def test_an_auditor_decides_nothing(desk, new_proposal, now):
    proposal_hash = desk.submit(new_proposal())
    with pytest.raises(Refused, match="cannot approve"):
        desk.approve(proposal_hash, "otto")
    with pytest.raises(Refused, match="auditor"):
        desk.store.deny(proposal_hash, reviewer=desk.accounts.account("otto"), reason="no reason", now=now)


def test_who_proposes_or_receives_the_model_cannot_approve(desk, new_proposal):
    for change in (
        {"orchestrator": replace(new_proposal().orchestrator, name="anna")},
        {"custody": replace(new_proposal().custody, downloaders=("anna",))},
    ):
        proposal_hash = desk.submit(new_proposal(**change))
        with pytest.raises(Refused, match="cannot approve"):
            desk.approve(proposal_hash)


def test_nobody_can_approve_before_the_fingerprints_are_confirmed(desk, new_proposal):
    stranger = replace(new_proposal().keyholder, public_key=Identity.from_seed(b"s" * 32).public_key)
    proposal_hash = desk.submit(new_proposal(keyholder=stranger))
    with pytest.raises(Refused, match=r"fingerprints not confirmed yet: notary"):
        desk.approve(proposal_hash)


def test_a_key_that_was_confirmed_as_one_institutions_does_not_count_as_anothers(desk, new_proposal):
    alba, bruna, corva = new_proposal().participants
    renamed = replace(corva, institution="Another hospital")
    proposal_hash = desk.submit(new_proposal(participants=(alba, bruna, renamed)))
    with pytest.raises(Refused, match=r"confirmed as that of Hospital Corva, not of Another hospital"):
        desk.approve(proposal_hash)


def test_a_partner_of_the_policy_counts_as_the_institution_written_there(new_desk, new_proposal):
    corva = new_proposal().participant("corva")
    partner = f'[[partners]]\nname = "corva"\npublic_key = "{STRANGER.public_key}"\ninstitution = "Hospital Corva"'
    desk = new_desk(partner, name="desk-partner")
    others = new_proposal().participants[:2]
    for institution, holds in (("Another hospital", False), ("hospital corva", True)):
        named = replace(corva, public_key=STRANGER.public_key, institution=institution)
        proposal_hash = desk.submit(new_proposal(participants=(*others, named)))
        if holds:
            desk.approve(proposal_hash)
        else:
            with pytest.raises(Refused, match="confirmed as that of Hospital Corva"):
                desk.approve(proposal_hash)


def test_who_orchestrates_or_takes_part_cannot_hold_the_keys(desk, new_proposal):
    plain = new_proposal()
    for keyholder in (
        replace(plain.keyholder, public_key=plain.orchestrator.public_key),
        replace(plain.keyholder, public_key=plain.participant("bruna").public_key),
        replace(plain.keyholder, institution=" hospital  BRUNA"),
    ):
        proposal_hash = desk.submit(new_proposal(keyholder=keyholder))
        with pytest.raises(Refused, match=r"neither orchestrate the study nor take part in it"):
            desk.approve(proposal_hash)


def test_a_denied_proposal_stays_denied_and_its_reason_is_kept(desk, new_proposal, now):
    proposal_hash = desk.submit(new_proposal())
    anna = desk.accounts.account("anna")
    with pytest.raises(InvalidInput, match="reason"):
        desk.store.deny(proposal_hash, reviewer=anna, reason=" ", now=now)
    desk.store.deny(proposal_hash, reviewer=anna, reason="no legal basis given", now=now)
    with pytest.raises(Refused, match="denied already"):
        desk.approve(proposal_hash, "bela")
    assert desk.store.request(proposal_hash).decisions[-1].reason == "no legal basis given"
    assert "proposal-denied" in desk.kinds()


def test_a_question_leaves_the_proposal_open(desk, new_proposal, now):
    proposal_hash = desk.submit(new_proposal())
    anna = desk.accounts.account("anna")
    request = desk.store.ask(proposal_hash, reviewer=anna, reason="why five rounds?", now=now)
    assert request.state == "changes-requested"
    desk.approve(proposal_hash)
    assert is_approved(desk.store, proposal_hash)


def test_receiving_twice_changes_nothing_and_a_forged_proposal_is_refused(desk, new_proposal, now):
    proposal = new_proposal()
    proposal_hash = desk.submit(proposal)
    desk.submit(proposal)
    assert desk.kinds().count("proposal-received") == 1
    signed = desk.sealed(proposal)
    forged = replace(signed, payload={**signed.payload, "rounds": 6})
    with pytest.raises(Tampered):
        desk.store.receive(forged, desk.store.request(proposal_hash).folder, now=now)


def test_a_code_tree_that_differs_from_the_proposal_is_not_even_received(desk, new_proposal, now, tmp_path):
    proposal = new_proposal()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "plan.toml").write_bytes(b"other")
    with pytest.raises(Refused, match="changed"):
        desk.store.receive(desk.sealed(proposal), tmp_path / "tree", now=now)
    assert desk.store.requests() == ()


def test_reruns_are_approved_automatically_only_where_the_owner_switched_it_on(new_desk, new_proposal, now):
    first, again = new_proposal(), new_proposal(nonce="1" * 32)
    assert first.plan_hash == again.plan_hash
    for policy, expected in (("", False), ("[review]\nauto_approve_reruns = true", True)):
        desk = new_desk(policy, name=f"desk-{expected}")
        desk.approve(desk.submit(first))
        desk.submit(again)
        assert is_approved(desk.store, again.proposal_hash) is expected
        if expected:
            check(desk, again, now)
            other = new_proposal(nonce="2" * 32, rounds=4)
            desk.submit(other)
            assert not is_approved(desk.store, other.proposal_hash)
            anna = desk.accounts.account("anna")
            desk.store.revoke(first.proposal_hash, reviewer=anna, reason="stop it", now=now)
            with pytest.raises(Refused, match="not approved automatically any more"):
                check(desk, again, now)


def test_every_decision_is_in_the_journal(approved):
    desk, _ = approved
    kinds = desk.kinds()
    assert kinds[-3:] == ["proposal-received", "proposal-signed", "proposal-approved"]
    desk.journal.verify()


def test_the_diff_is_against_the_last_approved_version_of_the_study(approved, new_proposal):
    desk, proposal = approved
    second = desk.submit(new_proposal(rounds=4))
    assert version_before(desk.store, second).proposal_hash == proposal.proposal_hash


def test_requests_are_read_anew_only_when_something_changed(desk, new_proposal):
    desk.submit(new_proposal())
    before = desk.store.requests()
    assert desk.store.requests() is before
    desk.approve(before[0].proposal_hash)
    assert [r.state for r in desk.store.requests()] == ["approved"]


def test_requests_seen_inside_a_change_that_is_undone_are_forgotten(desk, new_proposal):
    records = desk.store._records
    proposal = new_proposal()
    desk.approve(desk.submit(proposal))
    assert [r.state for r in records.requests()] == ["approved"]
    with pytest.raises(ZeroDivisionError), records.transaction():
        records.add_decision(proposal.proposal_hash, Decision(kind="revoked", person="x", reason="x", at="x"))
        assert [r.state for r in records.requests()] == ["revoked"]
        raise ZeroDivisionError
    assert [r.state for r in records.requests()] == ["approved"]
