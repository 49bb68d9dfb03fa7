"""A study that begins with the last model of an earlier one: what is proposed, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from datasites.study.proposal import Chain, DatasetReference, Party, Proposal
from datasites.study.recomputed.centring import releases_centres
from datasites.study.signing import dump
from orchestrator.studies.proposing.beginning import Beginning, beginning_of, continued_settings
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused

NAMES = ("alba", "bruna", "corva", "dorna")
SETTINGS = StudySettings(
    study="pilot", purpose="To go on.", legal_basis="None needed.", task="early-late", rounds=20, noise="shared"
)


def offers(features: int = 6) -> list[Offer]:
    return [
        Offer(
            party=Party(name=name, institution=f"Hospital {name}", public_key=f"{i}" * 64),
            cohort="LUSC",
            modalities=("mrna",),
            dataset=DatasetReference(name=name, version=1, fingerprint="a" * 64, schema_hash="b" * 64, patients=300),
            features={"mrna": features},
            cohorts=("LUSC",),
            task="early-late",
        )
        for i, name in enumerate(NAMES)
    ]


def built(beginning: Beginning | None = None, features: int = 6, **changes: Any) -> tuple[Proposal, bytes]:
    return build_proposal(
        continued_settings(replace(SETTINGS, **changes), beginning, NAMES),
        offers(features),
        orchestrator=Party(name="lang", institution="University", public_key="e" * 64),
        keyholder=Party(name="notary", institution="Notary", public_key="f" * 64),
        code={},
        beginning=beginning,
    )


class Served:
    """What the orchestrator shows of one study."""

    def __init__(self, state: str, proposal: Proposal, model: bytes) -> None:
        checkpoints = [{"model_hash": sha256_hex(model)}]
        self.status = {"state": state, "proposal": {"payload": dump(proposal)}, "checkpoints": checkpoints}
        self.model = model

    def get_json(self, path: str) -> Any:
        assert path == "/studies/first"
        return self.status

    def get_bytes(self, path: str) -> bytes:
        assert path == f"/blobs/{self.status['checkpoints'][0]['model_hash']}"
        return self.model


def test_a_study_binds_the_last_model_of_the_one_it_continues() -> None:
    earlier, _ = built()
    _, model = built(seed=5)  # any other model of the same layout
    found = beginning_of(Served("finished", earlier, model), "first", centred=False)  # type: ignore[arg-type]
    assert found == Beginning(study=earlier.proposal_hash, model=model)
    made, initial = built(found)
    assert initial == model
    assert made.chain == Chain(model_hash=sha256_hex(model), origin="study", study=earlier.proposal_hash)


def test_a_study_that_continues_none_begins_with_its_seed() -> None:
    made, initial = built()
    assert made.chain == Chain(model_hash=sha256_hex(initial))
    assert beginning_of(Served("running", made, initial), "", centred=False) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["running", "paused", "cancelled", "waiting"])
def test_only_a_finished_study_is_continued(state: str) -> None:
    served = Served(state, *built())
    with pytest.raises(Refused, match=f"is {state}; only a finished one"):
        beginning_of(served, "first", centred=False)  # type: ignore[arg-type]


def test_another_model_than_the_studys_last_one_is_noticed() -> None:
    served = Served("finished", *built())
    served.model = served.model[:-1] + bytes([served.model[-1] ^ 1])
    with pytest.raises(Refused, match="another model"):
        beginning_of(served, "first", centred=False)  # type: ignore[arg-type]


def test_a_model_of_another_layout_is_refused_with_what_to_do() -> None:
    _, other = built(features=7)
    with pytest.raises(InvalidInput, match="choose the same --model"):
        built(Beginning(study="a" * 64, model=other))
    with pytest.raises(InvalidInput, match="choose the same --model"):
        built(Beginning(study="a" * 64, model=b"no model"))


def test_a_centred_study_begins_with_weights_at_zero() -> None:
    served = Served("finished", *built())
    with pytest.raises(InvalidInput, match="expected --rounds with --from"):
        beginning_of(served, "first", centred=True)  # type: ignore[arg-type]
    made, model = built(centred=True)
    with pytest.raises(InvalidInput, match="cannot begin with the model of another study"):
        replace(made, chain=Chain(model_hash=sha256_hex(model), origin="study", study="a" * 64))


def continues(earlier: Proposal, model: bytes) -> Beginning:
    found = beginning_of(Served("finished", earlier, model), "first", centred=False)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_centred_model_is_continued_with_the_means_that_its_own_study_released() -> None:
    earlier, model = built(centred=True, cohort_gain=0.3, learning_rate=60.0, max_grad_norm=0.6, steps_per_round=1)
    made, initial = built(continues(earlier, model), rounds=1)
    assert initial == model and made.rounds == 1 and made.chain is not None and made.chain.origin == "study"
    assert made.model.centred and made.model.public_centres and made.constants is None
    assert (made.model.cohort_gain, made.training.learning_rate, made.mechanism.max_grad_norm) == (0.3, 60.0, 0.6)
    assert not any(releases_centres(made.model, number) for number in (1, 2))
    with pytest.raises(InvalidInput, match="expected public constants"):
        replace(made, chain=Chain(model_hash=sha256_hex(model)))


def test_a_model_that_divides_by_released_spreads_is_not_continued() -> None:
    earlier, model = built(centred=True, standardised=("mrna",), steps_per_round=1)
    with pytest.raises(InvalidInput, match="released spreads of features"):
        built(continues(earlier, model))


@pytest.mark.parametrize("centred", [False, True])
def test_nobody_whom_the_model_was_trained_on_is_evaluated(centred: bool) -> None:
    once: dict[str, Any] = {"rounds": 1, "evaluation_share": 1.0, "evaluation_by": ("site",)}
    usual: dict[str, Any] = {"centred": centred, "steps_per_round": 1}
    with pytest.raises(InvalidInput, match="trained on all patients of alba"):
        built(continues(*built(**usual)), **once)
    kept, model = built(evaluation_share=0.2, **usual)
    made, initial = built(continues(kept, model), **once)
    assert initial == model and made.mechanism.evaluation is not None and made.mechanism.releases_evaluation(1)
    elsewhere = replace(SETTINGS, **once)
    assert continued_settings(elsewhere, continues(*built()), ["nova", "prima", "terza"]) == elsewhere
