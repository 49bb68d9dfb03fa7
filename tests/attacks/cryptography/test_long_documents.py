"""One party signs a document so long that no hospital reads the evidence of the round, and the study stands still.

Played: a hospital whose attestation names a million letters as an earlier list, or any number of lists; heads of chains
of 200 KB; a helper's hashes that are long strings. The orchestrator took them, keyholder and helpers answered, and
every hospital refused evidence beyond its bound, so that no later round came about and nobody was named. Studies of
many hospitals that release many numbers met the same bound honestly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.helped import H
from support.played import Played, commit_falsely, played

from datasites.hospital.rounds.attesting import Attesting
from datasites.study.messages import MOST_EARLIER, Attestation, BlockShape, Commitments, RoundPlan, UpdateHeader
from datasites.study.proposal import DatasetReference, Party, Proposal
from datasites.study.recomputed.chain import RoundEvidence
from datasites.study.recomputed.released_numbers import expected_names
from datasites.study.recomputed.shown import MOST_BYTES, documents_limit, header_limit, require_short, shown_header
from datasites.study.signing import Signed, dump, parse, seal
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.canonical import plain_json
from privacy.encryption import pads
from privacy.encryption.tags import REPETITIONS
from privacy.errors import InvalidInput
from privacy.identity import Identity

__all__ = ["played"]
LENGTH, LIAR = 100, "site-1"
MODALITIES = ("mrna", "clinical", "image")
LONGEST = -2.2250738585072014e-308


def evidence_bytes(played: Played, number: int) -> int:
    with played.signed("site-0") as client:
        return len(client.get_bytes(f"/studies/pilot/rounds/{number}/evidence"))


def test_a_long_attestation_costs_its_sender_alone_the_round(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    real, ways = Attesting._attestation, [("x" * 1_000_000,), ("0" * 64,) * (MOST_EARLIER + 1)]

    def attestation(own: Attesting, proposal: Any, plan: RoundPlan, *arguments: Any, **more: Any) -> Attestation:
        true = real(own, proposal, plan, *arguments, **more)
        return replace(true, earlier=ways[plan.round - 1]) if own.site == LIAR and plan.round < 3 else true

    monkeypatch.setattr(Attesting, "_attestation", attestation)
    played.propose("pilot", length=LENGTH, rounds=3)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    others = ["site-0", "site-2", "site-3"]
    assert [checkpoint["sites"] for checkpoint in status["checkpoints"]] == [others, others, sorted([*others, LIAR])]
    proposal = played.service.runner("pilot").proposal
    assert all(evidence_bytes(played, number) < documents_limit(proposal) for number in (1, 2, 3))
    entries = played.service.journal.entries(kind="tags-refused")
    assert {(entry.body["site"], entry.body["round"]) for entry in entries} == {(LIAR, 1), (LIAR, 2)}


def test_a_helpers_long_answer_is_refused_and_the_other_one_answers(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_falsely(monkeypatch, H, lambda _, parts: {**parts, "3": "0" * 900_000})
    played.propose("pilot", length=LENGTH, rounds=2)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    entries = played.service.journal.entries(kind="part-refused")
    assert {(entry.body["party"], entry.body["what"]) for entry in entries} == {(H, "commitment")}


def large_study(sites: int, *, by: tuple[str, ...], classes: int) -> Proposal:
    """Return a study of three modalities that releases histograms, of hospitals with long names."""
    keys = [Identity.from_seed(bytes([index + 1]) * 32).public_key for index in range(sites)]
    offers = [
        Offer(
            party=Party(name=f"hospital-{index:03}", institution=f"Hospital {index}", public_key=key),
            cohort="BRCA",
            modalities=MODALITIES,
            dataset=DatasetReference(
                name=f"d{index}", version=1, fingerprint="0" * 64, schema_hash="5" * 64, patients=3000
            ),
            features=dict.fromkeys(MODALITIES, 8),
            cohorts=("BRCA", "LUSC"),
            task="early-late",
            own_evaluation=True,
        )
        for index, key in enumerate(keys)
    ]
    people = Party(name="office", institution="Office", public_key="1" * 64)
    settings = StudySettings(
        study="s" * 40, purpose="p", legal_basis="l", task="early-late", rounds=4, epsilon=None, evaluation_share=0.1,
        evaluation_by=by,
    )  # fmt: skip
    proposal, _ = build_proposal(settings, offers, orchestrator=people, keyholder=people, code={})
    model = replace(proposal.model, classes=classes)
    assert proposal.mechanism.evaluation is not None
    release = replace(proposal.mechanism.evaluation, outputs=max(1, model.scores))
    return replace(proposal, model=model, mechanism=replace(proposal.mechanism, evaluation=release))


def longest_header(proposal: Proposal, site: str) -> Signed:
    """Return the longest honest header of a site: all numbers, both helpers, a block per modality."""
    sealed = "f" * (pads.SEALED_HEX + 2 * pads.SEED_BYTES + 2 * 1088)
    header = UpdateHeader(
        study=proposal.study,
        proposal_hash="f" * 64,
        round=proposal.rounds,
        plan_hash="f" * 64,
        site=site,
        blocks=tuple(BlockShape(name=b.name, values=2**53, ciphertexts=2**53) for b in proposal.blocks_of(site)),
        body_hash="f" * 64,
        body_bytes=2**53 - 1,
        pad=sealed,
        releases=dict.fromkeys([*expected_names(proposal, site, proposal.rounds), "proximity.cosine"], LONGEST),
        journal_head="f" * 64,
        ledger_head="f" * 64,
        helper_pads={"a" * 100: sealed, "b" * 100: sealed},
        seed_hashes=("f" * 64,) * 3,
        begun="f" * 64,
    )
    return Signed(kind="update", payload=dump(header), public_key="f" * 64, signature="f" * 88, canonical=2)


def longest_attestation(proposal: Proposal, site: str) -> Signed:
    tag = ("-" + "9" * 30,) * REPETITIONS
    said = Attestation(
        study=proposal.study,
        round=proposal.rounds,
        plan_hash="f" * 64,
        list_hash="f" * 64,
        sum_hash="f" * 64,
        site=site,
        tags=tag,
        earlier=("f" * 64,) * MOST_EARLIER,
        fresh="f" * 200,
        pad_tags={str(part): tag for part in (1, 2, 3)},
        pad_commitments="f" * 64,
    )
    return Signed(kind="attestation", payload=dump(said), public_key="f" * 64, signature="f" * 88, canonical=2)


STUDIES: dict[str, Callable[[], Proposal]] = {
    "few": lambda: large_study(3, by=(), classes=2),
    "as in the report": lambda: large_study(9, by=("pattern",), classes=4),
    "many": lambda: large_study(24, by=("site", "pattern"), classes=6),
}


@pytest.mark.parametrize("which", STUDIES)
def test_every_honest_document_is_taken_however_many_numbers_a_study_releases(which: str) -> None:
    proposal = STUDIES[which]()
    for participant in proposal.participants[:2]:
        require_short(longest_header(proposal, participant.name), header_limit(proposal, participant.name))
        require_short(longest_attestation(proposal, participant.name))


@pytest.mark.parametrize("which", STUDIES)
def test_the_longest_documents_that_are_taken_fit_into_the_evidence_that_hospitals_read(which: str) -> None:
    proposal = STUDIES[which]()
    names = [p.name for p in proposal.participants]

    def filled(kind: str, most: int) -> Signed:
        """Return a document of exactly ``most`` bytes; one more is refused."""
        bare = Signed(kind=kind, payload={"x": ""}, public_key="f" * 64, signature="f" * 88)
        payload = {"x": "a" * (most - len(plain_json(dump(bare))))}
        require_short(replace(bare, payload=payload), most)
        with pytest.raises(InvalidInput, match="of at most"):
            require_short(replace(bare, payload={"x": payload["x"] + "a"}), most)
        return replace(bare, payload=payload)

    plan = RoundPlan(
        study=proposal.study,
        proposal_hash="f" * 64,
        round=proposal.rounds,
        model_hash="f" * 64,
        key_hash="f" * 64,
        weights={b.name: dict.fromkeys(proposal.contributors(b), LONGEST) for b in proposal.exchanged_blocks()},
        scales={b.name: LONGEST for b in proposal.exchanged_blocks()},
        deadline_seconds=10**9,
    )
    listed = Commitments(
        study=proposal.study,
        round=proposal.rounds,
        plan_hash="f" * 64,
        closing=MOST_EARLIER,
        updates=tuple(filled("update", header_limit(proposal, name)) for name in names),
        sum_hash="f" * 64,
    )
    identity = Identity.from_seed(b"." * 32)
    evidence = RoundEvidence(
        plan=seal(identity, "round-plan", plan),
        commitments=seal(identity, "commitments", listed),
        result=filled("sum-result", MOST_BYTES),
        key=filled("round-key", MOST_BYTES),
        opening=filled("opening", MOST_BYTES),
        helped=(filled("pads", MOST_BYTES),) * 2,
        attestations=tuple(filled("attestation", MOST_BYTES) for _ in names),
        pad_commitments=(filled("pad-commitment", MOST_BYTES),) * 3,
    )
    whole = shown_header(plain_json(dump(evidence)), {"opening": 2**53, "pads": 2**53, "sum": 2**53})
    assert len(whole) < documents_limit(proposal)


@pytest.mark.parametrize("changes", [{"journal_head": "0" * 200_000}, {"ledger_head": "0"}, {"begun": "x" * 99}])
def test_a_header_holds_hashes_and_nothing_else(changes: dict[str, str]) -> None:
    true = dump(parse(UpdateHeader, dict(longest_header(large_study(3, by=(), classes=2), "hospital-000").payload)))
    with pytest.raises(InvalidInput, match="not a valid UpdateHeader"):
        parse(UpdateHeader, true | changes)
