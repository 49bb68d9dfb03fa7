"""Every lie that an orchestrator or a site could tell the keyholder, told once and refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from datasites.keyholder.checks import CheckedSum, SumRequest, check_study, check_sum_request
from datasites.study.messages import Approval, Attestation, BlockShape, Commitments, RoundKey, RoundPlan, UpdateHeader
from datasites.study.patience import Patience
from datasites.study.proposal import Block, Party, Proposal
from datasites.study.signing import Signed, dump, seal
from privacy.canonical import NEWEST, sha256_hex
from privacy.encryption import ckks, tags
from privacy.encryption.ciphertexts import MAGIC, RunningSum, body_bytes, pack, unpack
from privacy.encryption.parameters import choose_parameters
from privacy.errors import Refused
from privacy.identity import Identity

ENCRYPTION = choose_parameters(sites=5, levels=100, length=30)
PAIR = ckks.generate_round_key(ENCRYPTION)
NAMES = ("alba", "bruna", "corva", "dorna")
LENGTHS = {"shared": 30, "image": 20}
NOW = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
SITES = {name: Identity.from_seed(sha256_hex(name.encode())[:32].encode()) for name in NAMES}
ORCHESTRATOR = Identity.from_seed(b"o" * 32)
KEYHOLDER = Identity.from_seed(b"k" * 32)
STRANGER = Identity.from_seed(b"x" * 32)
UPDATES = {
    name: {
        block: np.full(length, index + 1) for block, length in LENGTHS.items() if (block, name) != ("image", "dorna")
    }
    for index, name in enumerate(NAMES)
}
CIPHERTEXTS = {
    name: {block: ckks.encrypt(PAIR.public, ENCRYPTION, values) for block, values in blocks.items()}
    for name, blocks in UPDATES.items()
}


@dataclass
class Story:
    """One round as the orchestrator tells it; tests replace a part and tell it again."""

    proposal: Proposal
    plan: RoundPlan
    present: tuple[str, ...] = NAMES
    in_the_sum: tuple[str, ...] | None = None
    header: Callable[[UpdateHeader], UpdateHeader] = lambda h: h
    updates: Callable[[list[Signed]], list[Signed]] = lambda u: u
    commitments: Callable[[Commitments], Commitments] = lambda c: c
    attestation: Callable[[Attestation], Attestation] = lambda a: a
    attestations: Callable[[list[Signed]], list[Signed]] = lambda a: a
    body: Callable[[bytes], bytes] = lambda b: b
    plan_signer: Identity = ORCHESTRATOR
    list_signer: Identity = ORCHESTRATOR

    def tell(self, *, answered_sum: str | None = None) -> CheckedSum:
        key = RoundKey(
            study=self.proposal.study,
            proposal_hash=self.proposal.proposal_hash,
            round=1,
            key_hash=sha256_hex(PAIR.public),
            key_bytes=len(PAIR.public),
            pad_key="0" * 64,
        )
        return check_sum_request(self.proposal, key, self.request(), answered_sum=answered_sum)

    def request(self) -> SumRequest:
        body = self.body(self.sum_body())
        closed = self.commitments(
            Commitments(
                study=self.proposal.study,
                round=1,
                plan_hash=self.plan.plan_hash,
                closing=1,
                updates=tuple(self.updates([self.update(name) for name in self.present])),
                sum_hash=sha256_hex(body),
                canonical=self.proposal.canonical,
            )
        )
        return SumRequest(
            plan=seal(self.plan_signer, "round-plan", self.plan),
            commitments=seal(self.list_signer, "commitments", closed),
            attestations=tuple(self.attestations([self.attest(name, closed) for name in self.present])),
            body=body,
        )

    def sum_body(self) -> bytes:
        running = {name: RunningSum(ENCRYPTION, ciphertexts=1) for name in LENGTHS}
        for site in self.present if self.in_the_sum is None else self.in_the_sum:
            for block, ciphertexts in CIPHERTEXTS[site].items():
                running[block].add(ciphertexts)
        return pack({name: total.to_ciphertexts() for name, total in running.items()})

    def update(self, name: str) -> Signed:
        body = pack(CIPHERTEXTS[name])
        header = UpdateHeader(
            study=self.proposal.study,
            proposal_hash=self.proposal.proposal_hash,
            round=1,
            plan_hash=self.plan.plan_hash,
            site=name,
            blocks=tuple(BlockShape(name=b, values=LENGTHS[b], ciphertexts=1) for b in CIPHERTEXTS[name]),
            body_hash=sha256_hex(body),
            body_bytes=len(body),
            pad=f"sealed by {name}",
            releases={},
            journal_head="0" * 64,
            ledger_head="0" * 64,
        )
        return seal(SITES[name], "update", self.header(header))

    def attest(self, name: str, closed: Commitments) -> Signed:
        challenge = tags.challenges(closed.list_hash, closed.sum_hash)
        attestation = Attestation(
            study=self.proposal.study,
            round=1,
            plan_hash=self.plan.plan_hash,
            list_hash=closed.list_hash,
            sum_hash=closed.sum_hash,
            site=name,
            tags=tuple(map(str, tags.tag(CIPHERTEXTS[name], challenge, ENCRYPTION))),
        )
        return seal(SITES[name], "attestation", self.attestation(attestation))


@pytest.fixture
def proposal(new_proposal) -> Proposal:
    base = new_proposal()
    participants = tuple(
        dataclasses.replace(
            base.participants[0],
            name=name,
            institution=f"Hospital {name}",
            public_key=SITES[name].public_key,
            modalities=("mrna",) if name == "dorna" else ("mrna", "image"),
        )
        for name in NAMES
    )
    return dataclasses.replace(
        base,
        participants=participants,
        orchestrator=Party(name="lang", institution="University", public_key=ORCHESTRATOR.public_key),
        keyholder=Party(name="notary", institution="Notary", public_key=KEYHOLDER.public_key),
        encryption=ENCRYPTION,
        blocks=tuple(
            Block(name=name, modality=None if name == "shared" else "image", length=length, parameters=("w",))
            for name, length in LENGTHS.items()
        ),
    )


@pytest.fixture
def story(proposal) -> Story:
    plan = RoundPlan(
        study=proposal.study,
        proposal_hash=proposal.proposal_hash,
        round=1,
        model_hash="a" * 64,
        key_hash=sha256_hex(PAIR.public),
        weights={
            "shared": dict.fromkeys(NAMES, 1.0),
            "image": {"alba": 1.0, "bruna": 1.0, "corva": 1.0},
        },
        scales={"shared": 1.0, "image": 1.0},
        deadline_seconds=60,
        canonical=proposal.canonical,
    )
    return Story(proposal=proposal, plan=plan)


def replan(story: Story, **changes: Any) -> Story:
    return dataclasses.replace(story, plan=dataclasses.replace(story.plan, **changes))


def change(**fields: Any) -> Callable[[Any], Any]:
    return lambda value: dataclasses.replace(value, **fields)


def change_of(name: str, **fields: Any) -> Callable[[Any], Any]:
    return lambda value: dataclasses.replace(value, **fields) if value.site == name else value


# the honest round ----------------------------------------------------------------------------------------------


def test_an_honest_sum_passes_and_names_who_is_in_each_block(story: Story) -> None:
    checked = story.tell()
    assert checked.contributors == {"shared": NAMES, "image": NAMES[:3]}
    total = ckks.decrypt_sum(PAIR.secret, ENCRYPTION, checked.ciphertexts["image"], values=20, contributors=3)
    assert (total == 1 + 2 + 3).all()


def test_a_round_without_the_site_that_vanished_passes(story: Story) -> None:
    checked = dataclasses.replace(story, present=NAMES[:3]).tell()
    assert checked.contributors["shared"] == NAMES[:3]


def test_the_same_sum_may_be_asked_for_again_and_another_may_not(story: Story) -> None:
    first = story.tell()
    assert story.tell(answered_sum=first.sum_hash).sum_hash == first.sum_hash
    with pytest.raises(Refused, match="one sum per round"):
        dataclasses.replace(story, present=NAMES[:3]).tell(answered_sum=first.sum_hash)


# lies about the sum --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "members"),
    [
        ("one dropped", ("alba", "bruna", "corva")),
        ("one doubled", (*NAMES, "alba")),
        ("one swapped for another's copy", ("alba", "alba", "bruna", "corva")),
        ("a single update passed off as the sum", ("alba",)),
    ],
)
def test_a_sum_of_other_ciphertexts_than_the_list_is_refused(story: Story, lie: str, members: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="tags do not add up"):
        dataclasses.replace(story, in_the_sum=members).tell()


def test_a_sum_with_a_ciphertext_of_the_orchestrators_own_is_refused(story: Story) -> None:
    def with_own(body: bytes) -> bytes:
        blocks = unpack(body, dict.fromkeys(LENGTHS, 1), ENCRYPTION)
        running = RunningSum(ENCRYPTION, ciphertexts=1)
        running.add(blocks["shared"])
        running.add(ckks.encrypt(PAIR.public, ENCRYPTION, np.ones(30, np.int64)))
        return pack({**blocks, "shared": running.to_ciphertexts()})

    with pytest.raises(Refused, match="tags do not add up"):
        dataclasses.replace(story, body=with_own).tell()


def test_a_sum_of_another_round_is_refused(story: Story) -> None:
    replayed = [ckks.encrypt(PAIR.public, ENCRYPTION, np.full(length, 9)) for length in LENGTHS.values()]
    body = pack(dict(zip(LENGTHS, replayed, strict=True)))
    with pytest.raises(Refused, match="tags do not add up"):
        dataclasses.replace(story, body=lambda _: body).tell()


def test_a_body_exchanged_after_the_list_was_closed_is_refused(story: Story) -> None:
    request = story.request()
    other = dataclasses.replace(story, in_the_sum=NAMES[:3]).sum_body()
    key = RoundKey(
        study=story.plan.study,
        proposal_hash=story.plan.proposal_hash,
        round=1,
        key_hash=story.plan.key_hash,
        key_bytes=len(PAIR.public),
        pad_key="0" * 64,
    )
    with pytest.raises(Refused, match="hash"):
        check_sum_request(story.proposal, key, dataclasses.replace(request, body=other))


@pytest.mark.parametrize("body", [b"", b"garbage", MAGIC + b"\xff" * 131072])
def test_a_malformed_sum_is_refused(story: Story, body: bytes) -> None:
    with pytest.raises(Refused):
        dataclasses.replace(story, body=lambda _: body).tell()


# lies about the list -------------------------------------------------------------------------------------------


def test_a_site_that_stands_twice_in_the_list_is_refused(story: Story) -> None:
    with pytest.raises(Refused, match="twice"):
        dataclasses.replace(story, updates=lambda u: [*u, u[0]]).tell()


def test_an_invented_participant_is_refused(story: Story) -> None:
    def invent(updates: list[Signed]) -> list[Signed]:
        payload = {**updates[0].payload, "site": "elysia"}
        forged = Signed(
            kind="update",
            payload=payload,
            public_key=STRANGER.public_key,
            signature=STRANGER.sign("update", payload),
            canonical=NEWEST,
        )
        return [*updates, forged]

    with pytest.raises(Refused, match="no part"):
        dataclasses.replace(story, updates=invent).tell()


def test_an_update_signed_in_anothers_name_is_refused(story: Story) -> None:
    with pytest.raises(Refused, match="another site's name"):
        dataclasses.replace(story, header=change_of("alba", site="bruna")).tell()


def test_an_update_whose_signature_does_not_hold_is_refused(story: Story) -> None:
    def unsigned(updates: list[Signed]) -> list[Signed]:
        return [dataclasses.replace(updates[0], signature=updates[1].signature), *updates[1:]]

    with pytest.raises(Refused, match="signature"):
        dataclasses.replace(story, updates=unsigned).tell()


@pytest.mark.parametrize(
    "fields",
    [{"round": 2}, {"study": "other"}, {"plan_hash": "b" * 64}, {"proposal_hash": "b" * 64}],
    ids=["replayed round", "other study", "different plan", "other proposal"],
)
def test_an_update_replayed_or_made_under_another_plan_is_refused(story: Story, fields: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="another study, round or plan"):
        dataclasses.replace(story, header=change_of("bruna", **fields)).tell()


@pytest.mark.parametrize(
    "fields",
    [
        {"blocks": ()},
        {"blocks": (BlockShape(name="shared", values=30, ciphertexts=1),)},
        {
            "blocks": (
                BlockShape(name="shared", values=29, ciphertexts=1),
                BlockShape(name="image", values=20, ciphertexts=1),
            )
        },
        {
            "blocks": (
                BlockShape(name="shared", values=30, ciphertexts=2),
                BlockShape(name="image", values=20, ciphertexts=1),
            )
        },
        {"body_bytes": 17},
    ],
)
def test_an_update_of_another_shape_is_refused(story: Story, fields: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="blocks"):
        dataclasses.replace(story, header=change_of("corva", **fields)).tell()


def test_a_block_that_a_site_does_not_hold_is_refused(story: Story) -> None:
    blocks = tuple(BlockShape(name=name, values=length, ciphertexts=1) for name, length in LENGTHS.items())
    with pytest.raises(Refused, match="other blocks"):
        dataclasses.replace(story, header=change_of("dorna", blocks=blocks)).tell()


def test_two_sites_with_the_same_ciphertexts_are_refused(story: Story) -> None:
    copied = sha256_hex(pack(CIPHERTEXTS["alba"]))
    with pytest.raises(Refused, match="same ciphertexts"):
        dataclasses.replace(story, header=change_of("bruna", body_hash=copied)).tell()


@pytest.mark.parametrize("fields", [{"round": 2}, {"study": "other"}, {"plan_hash": "b" * 64}])
def test_a_list_for_another_round_is_refused(story: Story, fields: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="list is for another"):
        dataclasses.replace(story, commitments=change(**fields)).tell()


@pytest.mark.parametrize("field", ["plan_signer", "list_signer"])
def test_a_plan_or_list_that_the_orchestrator_did_not_sign_is_refused(story: Story, field: str) -> None:
    with pytest.raises(Refused, match="another key"):
        dataclasses.replace(story, **{field: STRANGER}).tell()


# too few -------------------------------------------------------------------------------------------------------


def test_fewer_than_min_sites_in_one_block_are_refused(story: Story) -> None:
    with pytest.raises(Refused, match="'image'"):
        dataclasses.replace(story, present=("alba", "bruna", "dorna")).tell()


def test_a_single_site_is_refused(story: Story) -> None:
    with pytest.raises(Refused, match="at least 3 institutions"):
        dataclasses.replace(story, present=("alba",)).tell()


def test_two_keys_of_one_institution_count_once(story: Story) -> None:
    participants = list(story.proposal.participants)
    participants[1] = dataclasses.replace(participants[1], institution=" hospital  ALBA")
    proposal = dataclasses.replace(story.proposal, participants=tuple(participants))
    plan = dataclasses.replace(story.plan, proposal_hash=proposal.proposal_hash)
    assert [b.name for b in proposal.exchanged_blocks()] == ["shared"]
    with pytest.raises(Refused, match="other blocks"):
        dataclasses.replace(story, proposal=proposal, plan=plan).tell()
    plan = dataclasses.replace(plan, weights={"shared": plan.weights["shared"]})
    with pytest.raises(Refused, match="has other blocks"):
        dataclasses.replace(story, proposal=proposal, plan=plan).tell()


def test_a_list_with_two_keys_of_one_institution_is_one_short(story: Story) -> None:
    participants = list(story.proposal.participants)
    participants[1] = dataclasses.replace(participants[1], institution=" hospital  ALBA")
    blocks = tuple(b for b in story.proposal.blocks if b.name == "shared")
    proposal = dataclasses.replace(story.proposal, participants=tuple(participants), blocks=blocks)
    weights = {"shared": story.plan.weights["shared"]}
    plan = dataclasses.replace(story.plan, proposal_hash=proposal.proposal_hash, weights=weights)
    shape = (BlockShape(name="shared", values=30, ciphertexts=1),)
    length = body_bytes({"shared": 1}, ENCRYPTION)
    only_shared = dataclasses.replace(
        story,
        proposal=proposal,
        plan=plan,
        header=lambda h: dataclasses.replace(h, blocks=shape, body_bytes=length),
    )
    with pytest.raises(Refused, match="at least 3 institutions in block 'shared', got 2"):
        dataclasses.replace(only_shared, present=("alba", "bruna", "corva")).tell()


# lies about the plan -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"alba": 1.0, "bruna": 0.0, "corva": 0.0, "dorna": 0.0}, "weights"),
        ({"alba": 1.0, "bruna": 0.2, "corva": 1.0, "dorna": 1.0}, "weights"),
        ({"alba": 1.5, "bruna": 1.0, "corva": 1.0, "dorna": 1.0}, "weights"),
        ({"alba": 1.0, "bruna": 0.25, "corva": 0.25, "dorna": 0.25}, "effective"),
        ({"alba": 1.0, "bruna": 1.0, "corva": 1.0}, "other sites"),
        ({"alba": 1.0, "bruna": 1.0, "corva": 1.0, "dorna": 1.0, "elysia": 1.0}, "other sites"),
    ],
)
def test_extreme_weights_are_refused(story: Story, weights: dict[str, float], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        replan(story, weights={**story.plan.weights, "shared": weights}).tell()


def test_weights_that_were_fine_for_all_are_refused_when_too_few_came(story: Story) -> None:
    weights = {"alba": 1.0, "bruna": 1.0, "corva": 0.4, "dorna": 1.0}
    uneven = replan(story, weights={**story.plan.weights, "shared": weights})
    uneven.tell()
    with pytest.raises(Refused, match="too few effective sites"):
        dataclasses.replace(uneven, present=NAMES[:3]).tell()


@pytest.mark.parametrize(
    "fields", [{"round": 2}, {"key_hash": "b" * 64}, {"study": "other"}, {"proposal_hash": "b" * 64}]
)
def test_a_plan_for_another_round_key_or_proposal_is_refused(story: Story, fields: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="round plan"):
        replan(story, **fields).tell()


# lies about who signed -----------------------------------------------------------------------------------------


def test_sites_that_were_shown_different_plans_are_refused(story: Story) -> None:
    with pytest.raises(Refused, match="attested another"):
        dataclasses.replace(story, attestation=change_of("bruna", plan_hash="b" * 64)).tell()


@pytest.mark.parametrize("fields", [{"list_hash": "b" * 64}, {"sum_hash": "b" * 64}, {"round": 2}, {"study": "other"}])
def test_an_attestation_of_another_list_or_sum_is_refused(story: Story, fields: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="attested another"):
        dataclasses.replace(story, attestation=change_of("corva", **fields)).tell()


def test_a_contributor_that_did_not_attest_is_named(story: Story) -> None:
    with pytest.raises(Refused, match="not attested by corva"):
        dataclasses.replace(story, attestations=lambda a: [a[0], a[1], a[3]]).tell()


def test_an_attestation_that_stands_twice_is_refused(story: Story) -> None:
    with pytest.raises(Refused, match="twice"):
        dataclasses.replace(story, attestations=lambda a: [*a, a[0]]).tell()


def test_an_attestation_of_somebody_outside_the_list_is_refused(story: Story) -> None:
    with pytest.raises(Refused):
        dataclasses.replace(
            story, present=NAMES[:3], attestations=lambda a: [*a, dataclasses.replace(a[0], public_key="0" * 64)]
        ).tell()


def test_an_attestation_forged_by_the_orchestrator_is_refused(story: Story) -> None:
    def forge(attestations: list[Signed]) -> list[Signed]:
        payload = attestations[0].payload
        forged = dataclasses.replace(attestations[0], signature=ORCHESTRATOR.sign("attestation", payload))
        return [forged, *attestations[1:]]

    with pytest.raises(Refused, match="signature"):
        dataclasses.replace(story, attestations=forge).tell()


@pytest.mark.parametrize("forged", [(0, 0, 0, 0), (1, 2, 3), (-1, 0, 0, 0), (2**70, 0, 0, 0)])
def test_a_wrong_or_malformed_tag_is_refused(story: Story, forged: tuple[int, ...]) -> None:
    with pytest.raises(Refused, match="tag"):
        dataclasses.replace(story, attestation=change_of("alba", tags=tuple(map(str, forged)))).tell()


# the study -----------------------------------------------------------------------------------------------------


def approvals_of(proposal: Proposal, *, expires: str = "2026-12-31T00:00:00+00:00") -> list[Signed]:
    return [
        seal(
            SITES[p.name],
            "approval",
            Approval(
                study=proposal.study,
                proposal_hash=proposal.proposal_hash,
                site=p.name,
                reviewers=(),
                approved=NOW.isoformat(),
                expires=expires,
            ),
        )
        for p in proposal.participants
    ]


def checked_study(proposal: Proposal, approvals: list[Signed] | None = None, **changes: Any) -> Proposal:
    approvals = approvals_of(proposal) if approvals is None else approvals
    arguments = {
        "orchestrator": proposal.orchestrator,
        "keyholder": proposal.keyholder,
        "hospitals": proposal.participants,
        "now": NOW,
        **changes,
    }
    return check_study(seal(ORCHESTRATOR, "proposal", proposal), approvals, **arguments)


def test_a_study_that_everybody_approved_is_served(proposal: Proposal) -> None:
    assert dump(checked_study(proposal)) == dump(proposal)


def test_a_study_that_one_participant_has_not_approved_is_refused(proposal: Proposal) -> None:
    with pytest.raises(Refused, match="dorna has not approved"):
        checked_study(proposal, approvals_of(proposal)[:3])


def test_a_study_that_begins_early_needs_its_number_and_everybody_in_a_list(proposal: Proposal) -> None:
    early = dataclasses.replace(proposal, patience=Patience(starts_with=3))
    approvals = approvals_of(early)
    assert checked_study(early, approvals[:3]) == early
    assert checked_study(early, approvals[:3], needed={"alba", "bruna", "corva"}) == early
    with pytest.raises(Refused, match="dorna has not approved"):
        checked_study(early, approvals[:3], needed={"alba", "bruna", "dorna"})
    with pytest.raises(Refused, match="begins with 3 approvals, got 2"):
        checked_study(early, approvals[:2])
    with pytest.raises(Refused, match="signature"):
        forged = ORCHESTRATOR.sign("approval", approvals[3].payload)
        checked_study(early, [*approvals[:3], dataclasses.replace(approvals[3], signature=forged)])


def test_approvals_of_an_earlier_version_are_refused(proposal: Proposal) -> None:
    earlier = approvals_of(dataclasses.replace(proposal, rounds=4))
    with pytest.raises(Refused, match="has not approved"):
        checked_study(proposal, earlier)
    assert checked_study(proposal, earlier + approvals_of(proposal)) == proposal


def test_an_approval_forged_by_the_orchestrator_is_refused(proposal: Proposal) -> None:
    approvals = approvals_of(proposal)
    forged = ORCHESTRATOR.sign("approval", approvals[0].payload)
    with pytest.raises(Refused, match="signature"):
        checked_study(proposal, [dataclasses.replace(approvals[0], signature=forged), *approvals[1:]])


def test_an_approval_in_anothers_name_is_refused(proposal: Proposal) -> None:
    approvals = approvals_of(proposal)
    payload = {**approvals[0].payload, "site": "bruna"}
    wrong = dataclasses.replace(approvals[0], payload=payload, signature=SITES["alba"].sign("approval", payload))
    with pytest.raises(Refused, match="another study or site"):
        checked_study(proposal, [wrong, *approvals[1:]])


def test_an_expired_approval_is_refused(proposal: Proposal) -> None:
    with pytest.raises(Refused, match="expired"):
        checked_study(proposal, approvals_of(proposal, expires="2026-03-01T00:00:00+00:00"))


def test_a_proposal_of_another_orchestrator_or_for_another_keyholder_is_refused(proposal: Proposal) -> None:
    other = Party(name="else", institution="Elsewhere", public_key=STRANGER.public_key)
    for changes in ({"orchestrator": other}, {"keyholder": other}):
        with pytest.raises(Refused):
            checked_study(proposal, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min_sites": 2}, "min_sites"),
        ({"encryption": choose_parameters(sites=3, levels=64, length=30)}, "fewer than take part"),
        ({"encryption": dataclasses.replace(ENCRYPTION, coeff_mod_bits=(60, 60))}, "128-bit"),
        ({"encryption": dataclasses.replace(ENCRYPTION, sites=900)}, "overflow"),
    ],
)
def test_a_study_with_unsafe_parameters_is_refused(proposal: Proposal, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        checked_study(dataclasses.replace(proposal, **changes))


@pytest.mark.parametrize("field", ["name", "public_key"])
def test_a_participant_that_stands_twice_is_refused(proposal: Proposal, field: str) -> None:
    one, two, *rest = proposal.participants
    twin = dataclasses.replace(two, **{field: getattr(one, field)})
    with pytest.raises(Refused, match="twice"):
        checked_study(dataclasses.replace(proposal, participants=(one, twin, *rest)), [])


def test_a_keyholder_that_takes_part_is_refused(proposal: Proposal) -> None:
    for changes in (
        {"institution": "hospital ALBA"},
        {"institution": "University"},
        {"public_key": SITES["alba"].public_key},
    ):
        involved = dataclasses.replace(proposal.keyholder, **changes)
        with pytest.raises(Refused, match="take part"):
            checked_study(dataclasses.replace(proposal, keyholder=involved), keyholder=involved)
