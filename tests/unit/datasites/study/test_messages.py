"""The contract's values: strict parsing, stable hashes, signatures for one purpose."""

from __future__ import annotations

import dataclasses

import pytest

from datasites.study.messages import Approval, ReviewerSignature
from datasites.study.proposal import Block, Party
from datasites.study.signing import Signed, dump, open_sealed, parse, seal
from privacy.errors import InvalidInput, Tampered
from privacy.identity import Identity, verify

PARTY = Party(name="hospital-a", institution="A", public_key="00" * 32)


def test_a_value_survives_the_journey_through_json():
    approval = Approval(
        study="s",
        proposal_hash="p",
        site="hospital-a",
        reviewers=(ReviewerSignature(reviewer="r", role="steward", public_key="k", signature="s"),),
        approved="2026-01-01T00:00:00+00:00",
        expires="2026-02-01T00:00:00+00:00",
    )
    assert parse(Approval, dump(approval)) == approval


@pytest.mark.parametrize(
    "broken",
    [
        {"name": "a", "institution": "A"},
        {"name": "a", "institution": "A", "public_key": "k", "role": "admin"},
        {"name": 7, "institution": "A", "public_key": "k"},
        ["a"],
    ],
)
def test_missing_unknown_and_mistyped_fields_are_refused(broken):
    with pytest.raises(InvalidInput, match="not a valid Party"):
        parse(Party, broken)


def test_a_sealed_value_opens_only_for_its_kind_and_signer():
    identity = Identity.generate()
    signed = seal(identity, "greeting", PARTY)
    assert open_sealed(signed, "greeting", identity.public_key, Party) == PARTY
    with pytest.raises(InvalidInput, match="expected a signed farewell"):
        open_sealed(signed, "farewell", identity.public_key, Party)
    with pytest.raises(InvalidInput, match="another key"):
        open_sealed(signed, "greeting", Identity.generate().public_key, Party)


def test_a_changed_payload_or_a_borrowed_signature_is_tampering():
    identity = Identity.generate()
    signed = seal(identity, "greeting", PARTY)
    changed = dataclasses.replace(signed, payload={**signed.payload, "name": "hospital-b"})
    with pytest.raises(Tampered):
        open_sealed(changed, "greeting", identity.public_key, Party)
    other_kind = Signed(kind="order", payload=signed.payload, public_key=signed.public_key, signature=signed.signature)
    with pytest.raises(Tampered):
        open_sealed(other_kind, "order", identity.public_key, Party)


@pytest.mark.parametrize(
    "blocks", [(("weight", "weight"),), (("weight",), ("bias", "weight"))], ids=["within a block", "in two blocks"]
)
def test_under_shared_noise_no_parameter_is_sent_twice_since_only_one_noise_is_charged(new_proposal, blocks):
    found = tuple(
        Block(name=f"b{i}", modality=None, length=6 * len(names), parameters=names) for i, names in enumerate(blocks)
    )
    with pytest.raises(InvalidInput, match="every parameter once"):
        new_proposal(noise="shared", blocks=found)


def test_one_key_has_one_spelling():
    identity = Identity.from_seed(b"k" * 32)
    signature = identity.sign("greeting", {"to": "a"})
    verify(identity.public_key, "greeting", {"to": "a"}, signature)
    for spelling in (identity.public_key.upper(), f" {identity.public_key}", identity.public_key[:-1]):
        with pytest.raises(InvalidInput, match="lower case"):
            verify(spelling, "greeting", {"to": "a"}, signature)


def test_half_a_surrogate_pair_is_an_invalid_input_and_no_crash():
    with pytest.raises(InvalidInput, match="surrogate"):
        parse(Party, {"name": "\ud800", "institution": "A", "public_key": "k"})
