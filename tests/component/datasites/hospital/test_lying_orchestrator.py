"""The orchestrator as liar: real hospitals and a real keyholder, and every lie it could tell them, told once.

No network here: the liar answers the others' requests itself and signs whatever it likes with the true key.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import Hospital, steps_of
from support.liar import LENGTH, SITES, Stage

from datasites.study.messages import (
    Attestation,
    Commitments,
    Refusal,
    RoundKey,
    UpdateHeader,
)
from datasites.study.recomputed.next_model import model_to_bytes
from datasites.study.signing import Signed, parse, seal
from privacy.canonical import sha256_hex
from privacy.encryption import ciphertexts, tags
from privacy.encryption.ciphertexts import coefficients
from privacy.identity import Identity

STRANGER = Identity.from_seed(b"x" * 32)


def total(*sites: int) -> list[int]:
    return [int(v) for v in sum(steps_of(i, "shared", LENGTH) for i in sites)]


def test_the_honest_round_is_answered_exactly_and_again_the_same(stage: Stage) -> None:
    stage.train_all()
    closed = stage.close()
    first, again = stage.decrypt(*closed), stage.decrypt(*closed)
    assert first is not None and again is not None
    assert first.tolist() == again.tolist() == total(0, 1, 2, 3)
    kinds = [e.kind for e in stage.keyholder.journal.entries()]
    assert kinds.count("decrypted") == 1


def test_a_second_sum_of_an_answered_round_is_never_answered(stage: Stage) -> None:
    stage.train_all()
    assert stage.decrypt(*stage.close()) is not None
    stage.bodies.pop("site-3"), stage.updates.pop("site-3")
    assert stage.decrypt(*stage.close(attest=(0, 1, 2))) is None
    assert "answered with another sum" in stage.why


def changed_body(body: bytes) -> bytes:
    return body[:100] + bytes([body[100] ^ 1]) + body[101:]


Lie = Callable[[Stage], bytes]
SUM_LIES: dict[str, Lie] = {
    "a ciphertext swapped for one of its own": lambda s: s.sum_of([changed_body(s.bodies["site-0"]), *others(s)]),
    "a ciphertext dropped": lambda s: s.sum_of(others(s)),
    "a ciphertext doubled": lambda s: s.sum_of([s.bodies["site-0"], *list(s.bodies.values())[:-1]]),
    "a single update for a sum": lambda s: s.bodies["site-0"],
    "a single update doubled to look like a sum": lambda s: s.sum_of([s.bodies["site-0"]] * 4),
    "a sum with one coefficient changed": lambda s: changed_body(s.sum_of(list(s.bodies.values()))),
}


def others(stage: Stage) -> list[bytes]:
    return [b for name, b in stage.bodies.items() if name != "site-0"]


@pytest.mark.parametrize("lie", SUM_LIES, ids=str)
def test_a_sum_that_is_not_the_sum_of_the_list_is_not_decrypted(stage: Stage, lie: str) -> None:
    stage.train_all()
    commitments, attestations = stage.close(body=SUM_LIES[lie](stage))
    assert len(attestations) == SITES  # no hospital can see it, the tags do
    assert stage.decrypt(commitments, attestations) is None
    assert "the tags do not add up" in stage.why
    assert stage.close(closing=2)[1] == []  # hospitals sign another list only once this one is void
    stage.keyholder.handle(stage.item("void", {"commitments": commitments}))
    void = {"void/1/keyholder": stage.liar.sent["void"][-1]}
    assert stage.decrypt(*stage.close(closing=2, documents=void)) is not None  # the truth is still answered


def test_a_sum_replaced_after_it_was_attested_is_not_decrypted(stage: Stage) -> None:
    stage.train_all()
    sealed, attestations = stage.close()
    lied = replace(parse(Commitments, dict(sealed.payload)), sum_hash=stage.liar.blob(stage.bodies["site-0"]))
    assert stage.decrypt(seal(stage.liar.identity, "commitments", lied), attestations) is None
    assert "attested another list, plan or sum" in stage.why
    stage.liar.blobs[str(sealed.payload["sum_hash"])] = stage.bodies["site-0"]
    assert stage.decrypt(sealed, attestations) is None
    assert "do not have the hash" in stage.why


def test_an_update_replayed_from_an_earlier_round_is_refused_by_all(stage: Stage) -> None:
    stage.train_all()
    assert stage.decrypt(*stage.close()) is not None
    later = stage.following()
    for index in (1, 2, 3):
        assert later.train(index)
    later.updates["site-0"], later.bodies["site-0"] = stage.updates["site-0"], stage.bodies["site-0"]
    commitments, attestations = later.close(attest=(1, 2, 3))
    assert not attestations and "another plan in this round" in stage.liar.reasons("site-1")[-1]
    assert later.decrypt(commitments, stage.liar.sent["attestation"][:4]) is None
    assert "another study, round or plan" in stage.why


def test_a_hospital_refuses_every_plan_of_a_round_but_the_first_for_ever(stage: Stage) -> None:
    other = stage.liar.blob(model_to_bytes({"shared": np.ones(LENGTH, np.float32)}))
    second = seal(stage.liar.identity, "round-plan", stage.round_plan(model_hash=other))
    assert stage.train(0)
    for _ in range(2):
        assert not stage.train(0, plan=second)
        assert "another plan already; one plan per round" in stage.liar.reasons("site-0")[-1]
    assert stage.train(0)
    reopened = Hospital.open(stage.consortium.hospitals[0].home, lambda _: None)
    folder = reopened.home.round_folder(stage.proposal.study, 1)
    kept = json.loads((folder / "plan.json").read_bytes())
    reopened.close()
    assert kept["model_hash"] == stage.liar.model_hash


@pytest.mark.parametrize("stage", [{"chain": None}], indirect=True, ids=["unchecked chain"])
def test_different_models_to_different_hospitals_never_meet_in_a_sum(stage: Stage) -> None:
    other = stage.liar.blob(model_to_bytes({"shared": np.ones(LENGTH, np.float32)}))
    second = seal(stage.liar.identity, "round-plan", stage.round_plan(model_hash=other))
    assert all([stage.train(0, plan=second), stage.train(1), stage.train(2), stage.train(3)])
    commitments, attestations = stage.close()
    assert not attestations
    assert "was given another plan" in stage.liar.reasons("site-1")[-1]
    assert "another round or plan" in stage.liar.reasons("site-0")[-1]
    forged = [
        seal(STRANGER, "attestation", Attestation(
            study=stage.proposal.study, round=1, plan_hash="0" * 64, list_hash="0" * 64, sum_hash="0" * 64,
            site="site-0", tags=("0", "0", "0", "0"),
        ))
    ]  # fmt: skip
    assert stage.decrypt(commitments, forged) is None
    assert "made for another study, round or plan" in stage.why


@pytest.mark.parametrize(
    "weights",
    [
        {"site-0": 1.0, "site-1": 1e-6, "site-2": 1e-6, "site-3": 1e-6},
        {"site-0": 1.0, "site-1": 0.25, "site-2": 0.25, "site-3": 0.25},
        {"site-0": 1.0, "site-1": 1.0, "site-2": 1.0},
        {"site-0": 2.0, "site-1": 1.0, "site-2": 1.0, "site-3": 1.0},
        {"site-0": 1.0, "site-1": 1.0, "site-2": 1.0, "site-3": 1.0, "invented": 1.0},
    ],
)
def test_weights_out_of_bounds_are_refused_by_hospitals_and_keyholder(stage: Stage, weights: dict[str, float]) -> None:
    plan = seal(stage.liar.identity, "round-plan", stage.round_plan(weights={"shared": weights}))
    assert not stage.train(1, plan=plan)
    assert "weight" in stage.liar.reasons("site-1")[-1]
    stage.train_all()
    assert stage.decrypt(*stage.close(), plan=plan) is None
    assert "weight" in stage.why


def test_an_invented_participant_is_refused_by_all(stage: Stage) -> None:
    stage.train_all()
    payload = dict(stage.updates["site-0"].payload)
    for signer, name in ((STRANGER, "invented"), (STRANGER, "site-0")):
        invented = seal(signer, "update", replace(parse(UpdateHeader, payload), site=name))
        updates = [*[u for n, u in stage.updates.items() if n != name], invented]
        commitments, attestations = stage.close(updates=updates)
        assert not attestations
        assert stage.decrypt(commitments, attestations) is None
        assert "takes no part" in stage.why


def test_a_study_with_an_invented_participant_gets_no_key(stage: Stage, tmp_path: Path) -> None:
    extra = replace(stage.proposal.participants[0], name="invented", public_key=STRANGER.public_key)
    proposal = replace(stage.proposal, study="invented", participants=(*stage.proposal.participants, extra))
    stage.liar.proposal = proposal
    stage.keyholder.handle(replace(stage.item("key"), study="invented"))
    assert "not in the roster that was confirmed here: invented" in stage.why


def test_too_few_hospitals_are_never_decrypted_whatever_the_list_says(stage: Stage) -> None:
    stage.train_all()
    names = ["site-0", "site-1"]
    body = stage.sum_of([stage.bodies[n] for n in names])
    closed = stage.close(body=body, updates=[stage.updates[n] for n in names], attest=(0, 1))
    assert len(closed[1]) == 2
    assert stage.decrypt(*closed) is None
    assert "at least 3 institutions" in stage.why


def test_a_hospital_that_is_missing_or_doubled_in_the_list_does_not_sign(stage: Stage) -> None:
    stage.train_all()
    updates = list(stage.updates.values())
    _, attestations = stage.close(updates=updates[1:], attest=(0,))
    assert not attestations and "our own update is not in the list" in stage.liar.reasons("site-0")[-1]
    _, attestations = stage.close(updates=[*updates, updates[1]], attest=(0,))
    assert not attestations and "stands twice" in stage.liar.reasons("site-0")[-1]


def test_a_key_the_keyholder_did_not_make_is_refused_by_hospitals(stage: Stage) -> None:
    key = parse(RoundKey, dict(stage.key.payload))
    own = stage.liar.blob(b"k" * key.key_bytes)
    plan = seal(stage.liar.identity, "round-plan", stage.round_plan(key_hash=own))
    forged = seal(stage.liar.identity, "round-key", replace(key, key_hash=own))
    assert not stage.train(0, plan=plan, key=forged)
    assert "another key" in stage.liar.reasons("site-0")[-1]


def test_a_list_for_a_round_that_was_not_trained_is_not_signed(stage: Stage) -> None:
    later = replace(stage.item("attest", {"commitments": stage.key}), round=2)
    stage.consortium.hospitals[0].participant.handle(later)
    assert "was not trained here" in stage.liar.reasons("site-0")[-1]


def test_a_plan_whose_signature_does_not_hold_is_refused_and_told(stage: Stage) -> None:
    forged = replace(stage.plan, payload={**stage.plan.payload, "deadline_seconds": 31})
    assert not stage.train(0, plan=forged)
    assert "signature does not hold" in stage.liar.reasons("site-0")[-1]


def test_no_plan_of_a_round_is_trained_whose_folder_is_gone_since_its_update_may_have_left(stage: Stage) -> None:
    assert stage.train(0)
    hospital = stage.consortium.hospitals[0]
    shutil.rmtree(hospital.home.round_folder(stage.proposal.study, stage.number))
    changed = stage.round_plan(deadline_seconds=31)
    assert not stage.train(0, plan=seal(stage.liar.identity, "round-plan", changed))
    assert "another plan already" in stage.liar.reasons("site-0")[-1]
    assert not stage.train(0)
    assert "it is not done twice" in stage.liar.reasons("site-0")[-1]


def forge_last_tag(stage: Stage, sealed: Signed, attested: list[Signed], body: bytes) -> list[Signed]:
    """Return attestations in which the last hospital, a colluder, says whatever makes ``body`` add up."""
    parameters, commitments = stage.proposal.encryption, parse(Commitments, dict(sealed.payload))
    challenge = tags.challenges(commitments.list_hash, commitments.sum_hash)
    chunks = {"shared": parameters.ciphertexts_for(LENGTH)}
    wanted = tags.tag(ciphertexts.unpack(body, chunks, parameters), challenge, parameters)
    sent = [tuple(map(int, parse(Attestation, dict(a.payload)).tags)) for a in attested[:3]]
    honest = tags.combine(sent, parameters)
    forged = tuple(str((w - h) % parameters.data_prime) for w, h in zip(wanted, honest, strict=True))
    lie = replace(parse(Attestation, dict(attested[3].payload)), tags=forged)
    colluder = stage.consortium.hospitals[3].home.identity()
    return [*attested[:3], seal(colluder, "attestation", lie)]


COLLUSIONS: dict[str, Lie] = {
    "one update alone": lambda s: s.bodies["site-0"],
    "one update and the colluder's": lambda s: s.sum_of([s.bodies["site-0"], s.bodies["site-3"]]),
    "all but one": lambda s: s.sum_of(others(s)),
    "one update twice": lambda s: s.sum_of([s.bodies["site-0"], *s.bodies.values()][:4]),
}


@pytest.mark.parametrize("collusion", COLLUSIONS, ids=str)
def test_an_orchestrator_with_one_hospital_gets_no_other_sum_decrypted_though_the_tags_add_up(
    stage: Stage, collusion: str
) -> None:
    stage.train_all()
    body = COLLUSIONS[collusion](stage)
    sealed, attested = stage.close(body=body)
    assert stage.decrypt(sealed, forge_last_tag(stage, sealed, attested, body)) is None
    assert "not one of honest updates" in stage.why  # the tags agreed; the pads of the others did not go away


def test_a_colluder_that_cancels_the_others_ciphertexts_cancels_no_pad(stage: Stage) -> None:
    """The colluder sends first's update less all others', so that the true sum would be first's update alone."""
    stage.train_all()
    parameters = stage.proposal.encryption
    chunks = {"shared": parameters.ciphertexts_for(LENGTH)}
    arrays = [
        np.stack([coefficients(c, parameters) for c in ciphertexts.unpack(b, chunks, parameters)["shared"]])
        for name, b in stage.bodies.items()
        if name in ("site-1", "site-2")
    ]
    prime = np.uint64(parameters.data_prime)
    cancelling = (2 * prime - arrays[0] - arrays[1]) % prime
    body = ciphertexts.pack({"shared": [chunk.tobytes() for chunk in cancelling]})
    colluder = stage.consortium.hospitals[3].home.identity()
    header = parse(UpdateHeader, dict(stage.updates["site-3"].payload))
    stage.updates["site-3"] = seal(colluder, "update", replace(header, body_hash=sha256_hex(body)))
    stage.bodies["site-3"] = body
    sealed, attested = stage.close(attest=(0, 1, 2))
    whole = stage.sum_of(list(stage.bodies.values()))
    assert whole == stage.bodies["site-0"]  # the sum really is one update
    last = replace(parse(Attestation, dict(attested[0].payload)), site="site-3")
    attestations = forge_last_tag(stage, sealed, [*attested, seal(colluder, "attestation", last)], whole)
    assert stage.decrypt(sealed, attestations) is None
    assert "not one of honest updates" in stage.why


def test_a_pad_that_was_copied_from_another_hospital_names_the_copier(stage: Stage) -> None:
    stage.train_all()
    colluder = stage.consortium.hospitals[3].home.identity()
    header = parse(UpdateHeader, dict(stage.updates["site-3"].payload))
    copied = replace(header, pad=str(stage.updates["site-0"].payload["pad"]))
    stage.updates["site-3"] = seal(colluder, "update", copied)
    sealed, attested = stage.close(attest=(0, 1, 2))
    last = replace(parse(Attestation, dict(attested[0].payload)), site="site-3")
    attestations = forge_last_tag(
        stage, sealed, [*attested, seal(colluder, "attestation", last)], stage.sum_of(list(stage.bodies.values()))
    )
    assert stage.decrypt(sealed, attestations) is None
    assert "pads of site-3 do not open" in stage.why
    refusal = parse(Refusal, dict(stage.liar.sent["refusal"][-1].payload))
    assert refusal.without == ("site-3",)
