"""A helper is said to be gone, so that nobody else knows a pad sum, and the published sum is shifted.

Played: the orchestrator with the keyholder or with one helper hides the other helper; keyholder and helpers lie
together, up to all three; commitments that lie, that are shown to some hospitals only, or that come twice; hospitals
that tag other pads than theirs, or none. Before hospitals tagged their pads, the first of these passed in any number of
rounds: hospitals computed the next model from the shifted sum and journaled `sum-unconfirmed`. That a listed hospital
lies with them gains nothing but what it could have sent as its own update; the last test says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from harness.consortium import steps_of
from safetensors.numpy import load
from support.helped import ALL, H, HelpedStage, J, List

from datasites.hospital.rounds.round_pads import OwnPads
from datasites.keyholder.opened import counts_of, integers_of, open_parts, own_parts, pack_opening, parts_of
from datasites.keyholder.vouched import OwnParts, commit_to, opened_commitments
from datasites.study.messages import Attestation, Commitments, Opening, PadCommitment, PadSums, UpdateHeader
from datasites.study.recomputed.chain import RoundEvidence
from datasites.study.signing import Signed, parse, seal
from privacy.canonical import NEWEST, sha256_hex
from privacy.encryption import ciphertexts, ckks, pads, shares
from privacy.errors import Refused
from privacy.identity import Identity

HOLDERS = ("keyholder", H, J)
SHIFT = 3


class Coalition:
    """What some holders of seeds can say together about a list: true or shifted pad sums, and commitments to them."""

    def __init__(self, stage: HelpedStage, liars: Iterable[str], part: int) -> None:
        self.stage, self.liars, self.part = stage, tuple(liars), part
        stage.train_all()
        body = stage.sum_of([stage.bodies[f"site-{i}"] for i in ALL])
        closed = stage.listed(*ALL, asked=())
        self.sealed, self.body = closed[0], body
        self.listed = parse(Commitments, dict(closed[0].payload))
        self.headers = {n: parse(UpdateHeader, dict(u.payload)) for n, u in stage.updates.items()}
        self.true = {holder: self.own(holder) for holder in HOLDERS}
        self.false = self.shifted()

    def own(self, holder: str) -> OwnParts:
        """Return what a holder opens, by its real key."""
        parts = shares.KEYHOLDER_PARTS if holder == "keyholder" else parts_of(self.stage.proposal, holder)
        seeds: dict[int, dict[str, bytes]] = {part: {} for part in parts}
        for site in self.headers:
            for part, seed in self.stage.seeds(site, holder).items():
                seeds[part][site] = seed
        return own_parts(self.stage.proposal, {"shared": sorted(self.headers)}, seeds)

    def shifted(self) -> shares.PartSum:
        """Return a sum of the chosen part under which the true sum decrypts to one that is higher by SHIFT."""
        stage, encryption = self.stage, self.stage.proposal.encryption
        public = stage.liar.blobs[str(stage.key.payload["key_hash"])]
        secret = np.frombuffer(ckks.published_secret(stage.secret(), encryption), "<u8")[
            : encryption.poly_modulus_degree
        ]
        (chunk,) = ckks.encrypt(public, encryption, np.full(700, SHIFT, np.int64))
        (c0, c1), q = np.frombuffer(chunk, "<u8").reshape(2, -1), encryption.data_prime
        encoded = [(int(a) + int(b) * int(s)) % q for a, b, s in zip(c0, c1, secret[: len(c0)], strict=True)]
        row = next(own.sums[self.part]["shared"][0] for own in self.true.values() if self.part in own.sums)
        return {"shared": np.array([[(int(p) - m) % q for p, m in zip(row, encoded, strict=True)]], np.uint64)}

    def said(self, holder: str) -> OwnParts:
        own = self.true[holder]
        if holder not in self.liars or self.part not in own.sums:
            return own
        return OwnParts(seeds=own.seeds, sums={**own.sums, self.part: self.false})

    def commitments(self, *shown: str) -> dict[str, Signed]:
        """Return the commitments of the holders that hospitals are shown; liars' commitments fit their lie."""
        stage = self.stage
        found = {}
        for holder in shown:
            said = commit_to(stage.proposal, self.listed, holder, self.said(holder), stage.proposal.encryption)
            found[f"commitment/{holder}"] = seal(stage.consortium.homes[holder].identity(), "pad-commitment", said)
        return found

    def signed(self, *shown: str) -> List:
        documents = self.commitments(*shown)
        self.stage.commitments[self.sealed.signature] = documents
        return self.sealed, self.stage.attested(self.sealed, ALL, documents)

    def evidence(self, closed: List) -> RoundEvidence:
        """Return what the liars publish: the shifted sum with key, pad sums and hashes that fit one another."""
        stage, proposal = self.stage, self.stage.proposal
        sums = {**self.true[H].sums, **self.true["keyholder"].sums, self.part: self.false}
        blocks = ciphertexts.unpack(self.body, counts_of(proposal), proposal.encryption)
        bare = shares.subtract(blocks, [sums[p] for p in shares.PARTS], proposal.encryption)
        integers = integers_of(proposal, stage.secret(), bare, {"shared": sorted(self.headers)})
        salts = [self.salt(part) for part in shares.PARTS]
        body = pack_opening(proposal, stage.secret(), [sums[1], sums[2]], salts)
        opening = Opening(
            study=proposal.study,
            round=1,
            list_hash=self.listed.list_hash,
            sum_hash=self.listed.sum_hash,
            integers_hash=sha256_hex(integers),
            parts={str(p): sha256_hex(shares.to_bytes(sums[p])) for p in (1, 2)},
            body_hash=sha256_hex(body),
        )
        stage.liar.opened = {
            "sum": self.body,
            "opening": body,
            "pads": shares.to_bytes(sums[3]),
            "key": stage.liar.blobs[str(stage.key.payload["key_hash"])],
        }
        return RoundEvidence(
            plan=stage.plan,
            commitments=self.sealed,
            key=stage.key,
            opening=seal(stage.keyholder.home.identity(), "opening", opening),
            helped=tuple(self.sums_of(name, sums) for name in self.liars if name != "keyholder"),
            attestations=tuple(closed[1]),
            pad_commitments=tuple(stage.shown(closed).values()),
        )

    def salt(self, part: int) -> bytes:
        own = next(own for own in self.true.values() if part in own.sums)
        return own.salt(self.stage.proposal, part, self.listed.list_hash)

    def sums_of(self, helper: str, sums: dict[int, shares.PartSum]) -> Signed:
        parts = {str(p): sha256_hex(shares.to_bytes(sums[p])) for p in parts_of(self.stage.proposal, helper)}
        said = PadSums(
            study=self.stage.proposal.study,
            round=1,
            list_hash=self.listed.list_hash,
            helper=helper,
            parts=parts,
            salt=self.salt(3).hex(),
        )
        return seal(self.stage.consortium.homes[helper].identity(), "pads", said)


def test_the_same_parties_without_a_lie_are_believed(helped: HelpedStage) -> None:
    told = Coalition(helped, ("keyholder",), 1)
    told.false = told.true["keyholder"].sums[1]
    assert helped.recompute(told.evidence(told.signed("keyholder", H)))


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("witness", [H, J])
def test_orchestrator_and_keyholder_hide_a_helper_and_shift_the_sum(
    helped: HelpedStage, part: int, witness: str
) -> None:
    told = Coalition(helped, ("keyholder",), part)
    closed = told.signed("keyholder", witness)
    if part in parts_of(helped.proposal, witness):  # the two commit to different sums, and no hospital signs
        assert not closed[1]
        assert "commit to different pad sums" in helped.refusal("site-0")
        return
    assert len(closed[1]) == 4  # nothing is to be seen yet
    with pytest.raises(Refused, match=f"pad sum {part} is not the one that the hospitals of the list vouch for"):
        helped.recompute(told.evidence(closed))


@pytest.mark.parametrize("part", [1, 2])
def test_a_lie_that_is_made_up_after_the_signatures_fails_as_well(helped: HelpedStage, part: int) -> None:
    told = Coalition(helped, (), part)
    with pytest.raises(Refused, match=f"pad sum {part} is not"):
        helped.recompute(told.evidence(told.signed("keyholder", H)))


@pytest.mark.parametrize(("liar", "part"), [(H, 3), (J, 3), (H, 2), (J, 1)])
def test_orchestrator_and_one_helper_hide_the_other_and_the_keyholder_decrypts_nothing(
    helped: HelpedStage, liar: str, part: int
) -> None:
    told = Coalition(helped, (liar,), part)
    closed = told.signed("keyholder", liar)
    sums = {**told.true[liar].sums, part: told.false}
    helped.liar.blob(shares.to_bytes(sums[3]))
    documents = {**helped.shown(closed), f"pads/{liar}": told.sums_of(liar, sums)}
    assert helped.decrypt(*closed, documents=documents) is None
    if part != shares.MISSING_PART:
        assert "commit to different pad sums" in helped.refusal("site-0")
        assert not closed[1]
    else:
        assert f"those of {liar} are not right" in helped.refusal("keyholder")


@pytest.mark.parametrize(
    ("liars", "part"),
    [(("keyholder", H), 2), (("keyholder", J), 1), ((H, J), 3), *((HOLDERS, part) for part in (1, 2, 3))],
    ids=["keyholder and one", "keyholder and other", "both helpers", "all: 1", "all: 2", "all: 3"],
)
def test_holders_that_lie_together_are_not_believed_by_a_hospital(
    helped: HelpedStage, liars: tuple[str, ...], part: int
) -> None:
    told = Coalition(helped, liars, part)
    closed = told.signed(*HOLDERS)
    with pytest.raises(Refused, match=f"pad sum {part} is not"):
        helped.recompute(told.evidence(closed))


def test_commitments_that_differ_from_hospital_to_hospital_are_answered_by_nobody(helped: HelpedStage) -> None:
    told = Coalition(helped, ("keyholder",), 1)
    lie = told.commitments("keyholder", H)
    told.liars = ()
    truth = told.commitments("keyholder", H)
    signed = [*helped.attested(told.sealed, (0, 1), truth), *helped.attested(told.sealed, (2, 3), lie)]
    assert len(signed) == 4
    helped.commitments[told.sealed.signature] = truth
    assert helped.ask_pads(H, (told.sealed, signed)) is None
    assert "site-2 signed the list under other commitments" in helped.refusal(H)


def test_a_hospital_tags_its_pads_under_one_set_of_commitments(helped: HelpedStage) -> None:
    """Two sets would show two tags of one pad with one mask, and their difference has no mask."""
    told = Coalition(helped, (), 1)
    first = told.signed("keyholder", H)
    again = helped.attested(told.sealed, ALL, told.commitments(*HOLDERS))
    assert again == []
    assert "was signed under other commitments" in helped.refusal("site-0")
    assert helped.attested(told.sealed, ALL, told.commitments("keyholder", H)) == first[1]


def test_a_hospital_that_was_started_anew_repeats_its_signature_and_makes_no_other(helped: HelpedStage) -> None:
    told = Coalition(helped, (), 1)
    first = told.signed("keyholder", H)
    helped.restart_hospital(0)
    assert helped.attested(told.sealed, (0,), helped.shown(first)) == first[1][:1]
    assert helped.attested(told.sealed, (0,), told.commitments(*HOLDERS)) == []


def test_masks_are_other_ones_for_every_list(helped: HelpedStage) -> None:
    told = Coalition(helped, (), 1)
    first = told.signed("keyholder", H)
    voids = helped.voids(first)
    second = helped.listed(1, 2, 3, closing=2, documents=voids)
    tags = [parse(Attestation, dict(s.payload)).pad_tags for closed in (first, second) for s in closed[1]]
    numbers = [number for tag in tags for part in tag.values() for number in part]
    assert len(set(numbers)) == len(numbers) == (4 + 3) * 3 * 4


@pytest.mark.parametrize("missing", ["keyholder", H])
def test_no_hospital_signs_without_the_keyholders_and_a_helpers_commitment(helped: HelpedStage, missing: str) -> None:
    told = Coalition(helped, (), 1)
    assert told.signed(*({"keyholder", H} - {missing}))[1] == []
    assert "expected the keyholder's commitment to the list's pad sums, and a helper's" in helped.refusal("site-0")


def test_a_commitment_in_anothers_name_or_to_another_list_counts_for_nothing(helped: HelpedStage) -> None:
    told = Coalition(helped, (), 1)
    true = told.commitments("keyholder", H)
    said = commit_to(helped.proposal, told.listed, H, told.true[H], helped.proposal.encryption)
    for identity, changes in (
        (helped.liar.identity, {}),
        (helped.consortium.homes[J].identity(), {}),
        (helped.consortium.homes[H].identity(), {"list_hash": "0" * 64}),
        (helped.consortium.homes[H].identity(), {"round": 2}),
        (helped.consortium.homes[H].identity(), {"parts": {"1": "0" * 64, "2": "0" * 64}}),
    ):
        false = {**true, f"commitment/{H}": seal(identity, "pad-commitment", replace(said, **changes))}
        assert helped.attested(told.sealed, (0,), false) == []


@pytest.mark.parametrize(("part", "names"), [(1, ("keyholder", J)), (2, ("keyholder", H)), (3, (H, J))])
def test_a_hospital_that_tags_another_pad_is_named_by_both_who_know_it(
    helped: HelpedStage, part: int, names: tuple[str, str]
) -> None:
    told = Coalition(helped, (), 1)
    participant = helped.consortium.hospitals[1].participant
    place = (helped.proposal.study, 1)
    sent = participant.sent_now[place]
    seeds = list(sent.own.seeds)
    seeds[part - 1] = shares.new_seeds()[0]
    participant.sent_now[place] = replace(sent, own=OwnPads(seeds=tuple(seeds), rows=sent.own.rows))
    closed = told.signed(*HOLDERS)
    for name in names:
        if name == "keyholder":
            assert helped.decrypt(*closed, documents=helped.shown(closed)) is None
        else:
            assert helped.ask_pads(name, closed) is None
        assert "the pads of site-1 are not those that they tagged" in helped.refusal(name)


def test_hospitals_that_tag_nothing_are_answered_by_nobody(helped: HelpedStage) -> None:
    told = Coalition(helped, (), 1)
    closed = told.signed("keyholder", H)
    bare = []
    for i, signed in enumerate(closed[1]):
        said = replace(parse(Attestation, dict(signed.payload)), pad_tags={}, pad_commitments="")
        bare.append(seal(helped.consortium.homes[f"site-{i}"].identity(), "attestation", said))
    assert helped.ask_pads(H, (told.sealed, bare)) is None
    assert "expected every hospital of the list to tag its pads" in helped.refusal(H)
    assert helped.ask_pads(H, (told.sealed, [bare[0], *closed[1][1:]])) is None
    assert "site-0 signed the list under other commitments" in helped.refusal(H)


def test_a_listed_hospital_that_lies_with_them_shifts_the_sum_as_its_own_update_could(helped: HelpedStage) -> None:
    """What remains: the shift is fixed before an honest hospital signs, and within what the slot check allows."""
    told = Coalition(helped, ("keyholder",), 1)
    participant = helped.consortium.hospitals[0].participant
    place = (helped.proposal.study, 1)
    sent = participant.sent_now[place]
    prime = np.uint64(helped.proposal.encryption.data_prime)
    offset = (told.false["shared"] + prime - told.true["keyholder"].sums[1]["shared"]) % prime
    rows = {**sent.own.rows, 1: {"shared": (sent.own.rows[1]["shared"] + offset) % prime}}
    participant.sent_now[place] = replace(sent, own=OwnPads(seeds=sent.own.seeds, rows=rows))
    found = helped.recompute(told.evidence(told.signed("keyholder", H)))
    true = sum(steps_of(i, "shared", 700) for i in ALL)
    assert (load(found)["shared"] - true).tolist() == [SHIFT] * 700


def test_a_hospital_keeps_no_seed_once_a_study_is_over(helped: HelpedStage) -> None:
    helped.train_all()
    participant = helped.consortium.hospitals[0].participant
    seeds = participant.sent_now[(helped.proposal.study, 1)].own.seeds
    files = [p for p in participant.home.folder.rglob("*") if p.is_file()]
    assert not any(seed in path.read_bytes() for seed in seeds for path in files)
    participant.handle(helped.item("finished"))
    assert (helped.proposal.study, 1) not in participant.sent_now


def test_no_seed_opens_what_it_did_not_seal(helped: HelpedStage) -> None:
    """The coalition's helper above opens real seeds with real keys: with another key none opens."""
    told = Coalition(helped, (), 1)
    label = pads.PadLabel(study=helped.proposal.study, round=1, plan_hash=told.listed.plan_hash, site="")
    sealed = {site: header.pad for site, header in told.headers.items()}
    with pytest.raises(Refused, match="no seed opens with the key that is held here"):
        open_parts(told.headers, sealed, (1, 2), pads.generate_pad_key(hybrid=True).private, label)


def test_a_strangers_commitment_is_no_helpers():
    """With the keyholder's it would stand for "and a helper's", and sites would sign what nobody can check."""
    stranger, keyholder, helper = (Identity.from_seed(bytes([n]) * 32) for n in (1, 2, 3))
    party = {"study": "s", "round": 1, "list_hash": "a" * 64}
    own = {str(part): "0" * 64 for part in shares.KEYHOLDER_PARTS}
    proposal: Any = SimpleNamespace(
        study="s",
        canonical=NEWEST,
        keyholder=SimpleNamespace(name="keyholder", public_key=keyholder.public_key),
        helpers=(SimpleNamespace(name=H, public_key=helper.public_key),),
    )
    said = [
        seal(keyholder, "pad-commitment", PadCommitment(party="keyholder", parts=own, **party)),
        seal(stranger, "pad-commitment", PadCommitment(party="", parts={"0": "junk"}, **party)),
    ]
    with pytest.raises(Refused, match="neither the keyholder nor a helper"):
        opened_commitments(proposal, cast("Commitments", SimpleNamespace(**party)), said)
