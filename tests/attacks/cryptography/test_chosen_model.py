"""The orchestrator chooses the model of a round, so that the sum of all hospitals is the update of a single one.

Played: a made-up initial model; a made-up model in the second round; made-up weights and scales; integers, lists and
results that nobody signed; lost rounds of somebody else. Each hospital refuses before a charge and takes the honest
plan afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from harness.consortium import zeros
from support.liar import LENGTH, SITES, Stage

from datasites.study.messages import Commitments, LostRound, RoundPlan, SumResult
from datasites.study.proposal import Chain
from datasites.study.recomputed.chain import ModelChain, RoundEvidence, check_layout, voids
from datasites.study.recomputed.next_model import model_to_bytes
from datasites.study.signing import parse, seal
from models.batch import to_tensors
from models.build import build_model, record_loss
from models.config import ModelConfig
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity

STRANGER = Identity.from_seed(b"x" * 32)


def charged(stage: Stage, index: int) -> int:
    entries = stage.consortium.hospitals[index].participant.journal.entries(kind="round-charged")
    return sum(entry.body["study"] == stage.proposal.study for entry in entries)


def refused(stage: Stage, index: int, **changes: Any) -> str:
    """Return why a hospital refuses a changed plan; nothing was charged for it."""
    before = charged(stage, index)
    assert not stage.train(index, plan=seal(stage.liar.identity, "round-plan", stage.round_plan(**changes)))
    assert charged(stage, index) == before
    return stage.liar.reasons(f"site-{index}")[-1]


def made_up(stage: Stage) -> str:
    return stage.liar.blob(model_to_bytes({"shared": np.full(LENGTH, 1e6, np.float32)}))


def answered(stage: Stage) -> None:
    stage.train_all()
    assert stage.decrypt(*stage.close()) is not None


def test_a_model_chosen_for_it_makes_a_sum_of_four_one_hospitals_update() -> None:
    """What the chain is for: with parameters of its choice an orchestrator lets the gradient of one hospital pass."""
    config = ModelConfig(architecture="mlp", features={"mrna": 8}, cohorts=("A", "B", "C", "D"), classes=2)
    model = build_model(config, seed=1)
    with torch.no_grad():
        bias = next(p for n, p in model.named_parameters() if n.startswith("encoders.mrna") and p.dim() == 1)
        bias.fill_(-1e6)  # a gate that is shut for every record...
        weight = next(p for n, p in model.named_parameters() if n.startswith("encoders.mrna") and p.dim() == 2)
        weight[:, 0] = 1e6  # ...but for those with feature 0, which the orchestrator knows one hospital to have
    generator = np.random.default_rng(0)

    def gradient(hospital: int) -> np.ndarray:
        values = generator.normal(size=(20, 8)).astype(np.float32)
        values[:, 0] = 10.0 if hospital == 2 else -10.0
        batch = to_tensors(
            {
                "mrna": values,
                "presence": np.eye(3, dtype=np.float32)[[0]].repeat(20, 0),
                "cohort": np.full(20, hospital),
                "label": generator.integers(0, 2, 20),
            }
        )
        model.zero_grad()
        record_loss(model, batch).sum().backward()
        names = [n for n, p in model.named_parameters() if n.startswith("encoders.mrna") and p.grad is not None]
        return np.concatenate([model.get_parameter(n).grad.numpy().ravel() for n in names])  # type: ignore[union-attr]

    single = [gradient(hospital) for hospital in range(4)]
    total = np.sum(single, axis=0)
    assert np.linalg.norm(single[2]) > 0
    assert float(total @ single[2] / np.linalg.norm(total) / np.linalg.norm(single[2])) > 0.9999


def test_a_made_up_model_is_refused_by_every_hospital_in_the_first_round(stage: Stage) -> None:
    for index in range(SITES):
        assert "another model than follows" in refused(stage, index, model_hash=made_up(stage))
    stage.train_all()


def test_a_made_up_model_is_refused_by_every_hospital_in_a_later_round(stage: Stage) -> None:
    answered(stage)
    later = stage.following()
    for index in range(SITES):
        assert "another model than follows" in refused(later, index, model_hash=made_up(stage))
    later.train_all()


def test_an_earlier_model_is_refused_in_a_later_round(stage: Stage) -> None:
    first = stage.liar.model_hash
    answered(stage)
    later = stage.following()
    assert "another model than follows" in refused(later, 1, model_hash=first)


@pytest.mark.parametrize("low", [0.25, 0.999999])
def test_weights_within_the_bounds_are_no_choice_either(stage: Stage, low: float) -> None:
    weights = {"shared": {"site-0": low, "site-1": 1.0, "site-2": 1.0, "site-3": 1.0}}
    assert "other weights than follow" in refused(stage, 0, weights=weights)


def test_a_study_whose_proposal_binds_another_initial_model_is_not_trained(stage: Stage) -> None:
    bound = replace(stage.proposal, chain=Chain(model_hash=made_up(stage)), nonce="1" * 32)
    models = stage.consortium.hospitals[0].participant.models
    with pytest.raises(Refused, match="give another initial model than it binds"):
        models.before(bound, replace(stage.round_plan(), proposal_hash=bound.proposal_hash))


def test_a_study_that_names_a_known_study_begins_with_its_last_model_or_not_at_all(stage: Stage) -> None:
    hospital = stage.consortium.hospitals[1].participant
    body = {"study": "earlier", "proposal_hash": "a" * 64, "model_hash": stage.liar.model_hash, "from_seed": True}
    hospital.journal.append("models-followed", body)
    bound = replace(stage.proposal, chain=Chain(model_hash=made_up(stage), origin="study", study="a" * 64))
    with pytest.raises(Refused, match="than the last one of the study"):
        hospital.models.before(bound, replace(stage.round_plan(), proposal_hash=bound.proposal_hash))
    assert "names another one" in voids(bound, knows=hospital.models.known) and "initial model" in voids(bound)
    true = replace(bound, chain=Chain(model_hash=stage.liar.model_hash, origin="study", study="a" * 64))
    assert not voids(true, knows=hospital.models.known)


Lie = Callable[[RoundEvidence, bytes, Stage], tuple[RoundEvidence, bytes]]


def _other_integers(evidence: RoundEvidence, integers: bytes, stage: Stage) -> tuple[RoundEvidence, bytes]:
    return evidence, integers[:-1] + bytes([integers[-1] ^ 1])


def _own_result(evidence: RoundEvidence, integers: bytes, stage: Stage) -> tuple[RoundEvidence, bytes]:
    assert evidence.result is not None
    return replace(evidence, result=seal(stage.liar.identity, "sum-result", _result(evidence))), integers


def _result(evidence: RoundEvidence) -> SumResult:
    assert evidence.result is not None
    return parse(SumResult, dict(evidence.result.payload))


def _without_result(evidence: RoundEvidence, integers: bytes, stage: Stage) -> tuple[RoundEvidence, bytes]:
    return replace(evidence, result=None), integers


def _shorter_list(evidence: RoundEvidence, integers: bytes, stage: Stage) -> tuple[RoundEvidence, bytes]:
    assert evidence.commitments is not None
    payload = dict(evidence.commitments.payload)
    identity = stage.liar.identity
    signed = seal(identity, "commitments", commitments_of({**payload, "updates": payload["updates"][1:]}))
    return replace(evidence, commitments=signed), integers


def _other_plan(evidence: RoundEvidence, integers: bytes, stage: Stage) -> tuple[RoundEvidence, bytes]:
    return replace(
        evidence, plan=seal(stage.liar.identity, "round-plan", stage.round_plan(deadline_seconds=9))
    ), integers


def _lost_elsewhere(evidence: RoundEvidence, integers: bytes, stage: Stage) -> tuple[RoundEvidence, bytes]:
    lost = LostRound(study="another", proposal_hash=stage.proposal.proposal_hash, round=1, reason="")
    return RoundEvidence(lost=seal(stage.liar.identity, "round-lost", lost)), b""


def _lost_by_a_stranger(evidence: RoundEvidence, integers: bytes, stage: Stage) -> tuple[RoundEvidence, bytes]:
    lost = LostRound(study=stage.proposal.study, proposal_hash=stage.proposal.proposal_hash, round=1, reason="")
    return RoundEvidence(lost=seal(STRANGER, "round-lost", lost)), b""


def commitments_of(value: dict[str, Any]) -> Commitments:
    return parse(Commitments, value)


LIES: dict[str, Lie] = {
    "integers with one bit changed": _other_integers,
    "a result that the orchestrator signed": _own_result,
    "no result": _without_result,
    "a list without one hospital": _shorter_list,
    "a plan that nobody trained under": _other_plan,
    "a lost round of another study": _lost_elsewhere,
    "a lost round that a stranger signed": _lost_by_a_stranger,
}


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_evidence_that_does_not_hold_trains_nobody(stage: Stage, lie: str) -> None:
    answered(stage)
    later, true = stage.following(), stage.liar.evidence[1]
    stage.liar.evidence[1] = LIES[lie](*true, stage)
    before = charged(stage, 0)
    assert not later.train(0) and charged(stage, 0) == before
    stage.liar.evidence[1] = true
    assert later.train(0)


def test_a_round_declared_lost_keeps_the_model_and_is_journaled_where_its_sum_was_known(stage: Stage) -> None:
    first = stage.liar.model_hash
    answered(stage)
    later = stage.following()
    assert later.train(0)  # has recomputed round 1
    (stage.consortium.hospitals[0].home.round_folder(stage.proposal.study, 2) / "header.json").unlink()
    lost = LostRound(study=stage.proposal.study, proposal_hash=stage.proposal.proposal_hash, round=1, reason="restored")
    stage.liar.evidence[1] = (RoundEvidence(lost=seal(stage.liar.identity, "round-lost", lost)), b"")
    assert "another plan already" in refused(later, 0, model_hash=first)
    journal = stage.consortium.hospitals[0].participant.journal
    assert [e.body["round"] for e in journal.entries(kind="round-lost-later")][-1:] == [1]
    later.liar.model_hash = first
    assert later.train(1, plan=seal(stage.liar.identity, "round-plan", later.round_plan()))


def test_a_sum_that_was_recomputed_is_never_exchanged_for_another(stage: Stage) -> None:
    answered(stage)
    chain, other = ModelChain(stage.proposal, zeros(stage.proposal)), ModelChain(stage.proposal, zeros(stage.proposal))
    chain.take(*stage.liar.evidence[1])
    kept = ModelChain.from_bytes(stage.proposal, chain.to_bytes())
    assert (kept.model, kept.links) == (chain.model, chain.links)
    with pytest.raises(Refused, match="expected the plan of round 2"):
        kept.check_plan(stage.round_plan())
    with pytest.raises(Refused, match="cannot be recomputed"):
        other.take(stage.liar.evidence[1][0], b"no integers")


@pytest.mark.parametrize("stage", [{"chain": None}], indirect=True, ids=["unchecked chain"])
def test_an_unchecked_study_says_so_and_takes_no_model_of_another_layout(stage: Stage) -> None:
    assert "any model in any round" in voids(stage.proposal)
    bad = {
        "other parameters": {"shared": np.zeros(LENGTH + 1, np.float32)},
        "not finite": {"shared": np.full(LENGTH, np.inf, np.float32)},
        "other param": {"other": np.zeros(LENGTH, np.float32)},
    }
    for why, model in bad.items():
        assert why in refused(stage, 0, model_hash=stage.liar.blob(model_to_bytes(model)))
    assert "no safetensors" in refused(stage, 0, model_hash=stage.liar.blob(bytes(LENGTH * 4)))
    assert stage.train(0, plan=seal(stage.liar.identity, "round-plan", stage.round_plan(model_hash=made_up(stage))))


def test_a_huge_model_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(Refused, match="expected a model of about"):
        check_layout(bytes(1 << 20), model_to_bytes({"shared": np.zeros(4, np.float32)}))


@pytest.mark.parametrize(
    "fields",
    [
        {"model_hash": "A" * 64},
        {"model_hash": "a" * 64, "study": "b" * 64},
        {"model_hash": "a" * 64, "origin": "study"},
    ],
)
def test_a_chain_says_exactly_one_beginning(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        Chain(**fields)  # type: ignore[arg-type]


def test_the_plan_of_a_checked_study_is_what_everybody_computes(stage: Stage) -> None:
    plan = stage.round_plan()
    chain = ModelChain(stage.proposal, zeros(stage.proposal))
    chain.check_plan(plan)
    for changed in (replace(plan, scales={"shared": 0.5}), replace(plan, round=2)):
        with pytest.raises(Refused):
            chain.check_plan(RoundPlan(**{**vars(changed)}))
