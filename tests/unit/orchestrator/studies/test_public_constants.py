"""Constants from public tables: what the file holds, what a proposal binds, and what every hospital refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasites.portal.shown.words import summary
from datasites.study.messages import RoundPlan
from datasites.study.proposal import DatasetReference, Party, Proposal
from datasites.study.recomputed.centring import moment_of, shrunk
from datasites.study.recomputed.chain import ModelChain
from datasites.study.recomputed.next_model import mean_updates, model_from_bytes, model_to_bytes, noise_deviation
from datasites.study.schema.public_constants import MOST_WEIGHT, check_constants
from datasites.training.encoding import encode_update
from orchestrator.simulation.public_constants import PublicPatients, make_constants
from orchestrator.studies.proposing.brought import Brought
from orchestrator.studies.proposing.constants import ConstantsFile, ModalityConstants, read_constants
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.schedule import constants_help, private_schedule, with_schedule
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.canonical import sha256_hex
from privacy.dp.randomness import Randomness
from privacy.errors import InvalidInput, Refused

NAMES = ("alba", "bruna", "corva", "dorna")
GENES = tuple(f"G{i}" for i in range(200))
SETTINGS = StudySettings(
    study="pilot", purpose="To see.", legal_basis="None.", task="early-late", rounds=1, noise="shared", epsilon=1.0
)  # fmt: skip


def public(patients: int = 400, seed: int = 0) -> PublicPatients:
    """Two public cancers of which the second is late more often; the first ten genes say who is late."""
    draw = np.random.default_rng(seed)
    inputs = draw.normal(0.3, 1.0, size=(patients, 200)).astype(np.float32)
    group = np.arange(patients) % 2
    later = inputs[:, :10].sum(axis=1) + 2.0 * group - 4.0 + draw.normal(size=patients) > 0
    return PublicPatients(
        task="early-late", classes=2, names={"mrna": GENES}, inputs={"mrna": inputs},
        present={"mrna": np.ones(patients, dtype=bool)}, gains={}, group=group, label=later.astype(np.int64),
        tables={"KIRC/mrna.parquet": "a" * 64},
    )  # fmt: skip


def offers(names: tuple[str, ...] = GENES) -> list[Offer]:
    return [
        Offer(
            party=Party(name=name, institution=f"Hospital {name}", public_key=f"{i}" * 64), cohort="LUSC",
            modalities=("mrna",), features={"mrna": len(names)}, cohorts=("LUSC",), task="early-late",
            dataset=DatasetReference(name=name, version=1, fingerprint="a" * 64, schema_hash="b" * 64, patients=300),
            names={"mrna": names},
        )
        for i, name in enumerate(NAMES)
    ]  # fmt: skip


def proposed(constants: ConstantsFile | None, names: tuple[str, ...] = GENES, **changes: Any) -> tuple[Proposal, bytes]:
    settings = with_schedule(replace(SETTINGS, **changes), None, constants=constants is not None)
    return build_proposal(
        settings,
        offers(names),
        orchestrator=Party(name="lang", institution="University", public_key="e" * 64),
        keyholder=Party(name="notary", institution="Notary", public_key="f" * 64),
        code={},
        brought=Brought(constants=constants),
    )


@pytest.fixture(scope="module")
def made() -> ConstantsFile:
    return make_constants(public(), "TCGA kidney cancer")


def test_the_same_tables_make_the_same_file_and_its_weights_say_who_is_late(
    made: ConstantsFile, tmp_path: Path
) -> None:
    assert make_constants(public(), "TCGA kidney cancer").data == made.data
    (tmp_path / "c.json").write_bytes(made.data)
    assert read_constants(tmp_path / "c.json") == made
    mrna = made.modalities["mrna"]
    assert np.allclose(mrna.centres, 0.3, atol=0.25)
    weights = np.array(mrna.weights)
    assert weights[:10].min() > 0 and weights[:10].mean() > 5 * np.abs(weights[10:]).mean()
    assert not make_constants(public(), "x", weights=False).modalities["mrna"].weights


def test_a_proposal_binds_the_constants_in_the_order_of_the_hospitals_features(made: ConstantsFile) -> None:
    names = (*reversed(GENES), "another")
    proposal, model = proposed(made, names)
    arrays, scale = model_from_bytes(model), 1.2 / math.sqrt(201)
    known = made.modalities["mrna"]
    assert arrays["centres.mrna"][0] == pytest.approx(known.centres[-1] * scale)
    assert arrays["centres.mrna"][-1] == 0.0
    # a weight of a scaled input times the scale is the weight of the input, but for the bound on their norm
    ratio = arrays["branches.mrna.weight"][0, :200] * scale / np.array(known.weights[::-1])
    assert ratio == pytest.approx(ratio[0], rel=1e-4) and 0 < ratio[0] <= 1.0 + 1e-6
    assert proposal.constants == made.stated and proposal.chain is not None
    assert (proposal.chain.origin, proposal.chain.model_hash) == ("public", sha256_hex(model))
    assert moment_of(proposal.model, 1) is None  # the first round trains
    ModelChain(proposal, model)
    without, _ = proposed(None)
    assert "constants" not in json.dumps(list(without.proposal_hash)) and without.constants is None
    assert moment_of(without.model, 1) == "means"


def test_who_decides_reads_the_source_and_the_hashes(made: ConstantsFile) -> None:
    text = " ".join(summary(proposed(made)[0], "alba", None))
    assert "400 public patients: TCGA kidney cancer." in text
    assert made.stated.tables_hash[:16] in text and made.constants_hash[:16] in text
    assert "averages instead" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.update({"centres.mrna": a["centres.mrna"] * 100}), "larger than 4"),
        (lambda a: a.update({"branches.mrna.weight": a["branches.mrna.weight"] * 100}), "norm of at most 3"),
        (lambda a: a.update({"cohort.weight": a["cohort.weight"] + 1}), "cohort.weight is not zero"),
        (lambda a: a["centres.mrna"].__setitem__(0, np.nan), "not finite"),
    ],
    ids=["means", "weights", "bias", "nan"],
)
def test_a_hospital_refuses_constants_that_could_silence_somebody(made: ConstantsFile, change: Any, words: str) -> None:
    proposal, model = proposed(made)
    arrays = {name: values.copy() for name, values in model_from_bytes(model).items()}
    change(arrays)
    assert proposal.constants is not None and proposal.chain is not None
    with pytest.raises(Refused, match=words):
        check_constants(arrays, proposal.constants)
    bytes_ = model_to_bytes(arrays)
    bound = replace(proposal, chain=replace(proposal.chain, model_hash=sha256_hex(bytes_)))
    with pytest.raises(Refused, match=words):
        ModelChain(bound, bytes_)
    with pytest.raises(Refused, match="not the one"):
        ModelChain(proposal, bytes_)


def test_means_alone_leave_no_room_for_weights(made: ConstantsFile) -> None:
    proposal, model = proposed(make_constants(public(), "x", weights=False))
    arrays = model_from_bytes(model)
    assert proposal.constants is not None and not arrays["branches.mrna.weight"].any()
    arrays["branches.mrna.weight"] = arrays["branches.mrna.weight"] + np.float32(0.01)
    with pytest.raises(Refused, match="at most 0"):
        check_constants(arrays, proposal.constants)
    norm = np.linalg.norm(model_from_bytes(proposed(made)[1])["branches.mrna.weight"])
    assert norm <= MOST_WEIGHT * 1.0001


def test_constants_that_do_not_fit_are_refused_before_anything_is_sent(made: ConstantsFile) -> None:
    with pytest.raises(InvalidInput, match="at least half"):
        proposed(made, tuple(f"other{i}" for i in range(200)))
    with pytest.raises(InvalidInput, match="of the task ordinal"):
        proposed(replace(made, task="ordinal"))
    huge = ModalityConstants(names=GENES, centres=(1e3,) * 200)
    with pytest.raises(InvalidInput, match="too large"):
        proposed(replace(made, modalities={"mrna": huge}))
    with pytest.raises(InvalidInput, match="at least 50"):
        make_constants(public(40), "x")
    with pytest.raises(InvalidInput, match="centres-only"):
        make_constants(replace(public(), classes=0), "x")
    proposal, _ = proposed(made)
    with pytest.raises(InvalidInput, match="together"):
        replace(proposal, constants=None)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format":"x"}', "\x00"], ids=["empty", "list", "none", "other", "bytes"]
)
def test_a_file_that_holds_no_constants_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InvalidInput):
        read_constants(tmp_path / "c.json")
    with pytest.raises(InvalidInput, match="could not read one"):
        read_constants(tmp_path / "absent.json")


def test_the_schedule_takes_what_helps_at_each_epsilon_and_noise(made: ConstantsFile) -> None:
    taken = {(n, e): constants_help(e, n) for n in ("shared", "local") for e in (1.0, 2.0, 4.0, 8.0)}
    assert [key for key, helps in taken.items() if helps] == [("shared", 1.0), ("local", 1.0), ("local", 2.0)]
    assert private_schedule("linear", 1.0, "shared").shrunk and private_schedule("linear", 4.0, "local").shrunk
    assert not private_schedule("linear", 2.0, "shared").shrunk and not private_schedule("linear", 8.0, "local").shrunk
    settings = with_schedule(replace(SETTINGS, epsilon=8.0), None, constants=True)
    assert settings.centred and not settings.public_centres
    proposal, _ = proposed(made, epsilon=8.0)
    assert proposal.constants is None
    assert not with_schedule(replace(SETTINGS, standardised=("mrna",)), None, constants=True).public_centres


def test_means_are_shrunk_only_where_noise_is_larger() -> None:
    draw = np.random.default_rng(0)
    means = draw.normal(size=4000).astype(np.float32)
    assert shrunk(means, 0.5) is means
    noisy = means + draw.normal(0, 2.0, size=4000).astype(np.float32)
    found = shrunk(noisy, 2.0)
    assert np.square(found - means).mean() < 0.9 < 3.5 < np.square(noisy - means).mean()
    assert not shrunk(np.zeros(5, np.float32), 1.0).any()


@pytest.mark.parametrize("noise", ["shared", "local"])
def test_the_noise_of_a_released_mean_is_what_is_computed_from_public_numbers(noise: str) -> None:
    """Hospitals without a signal send noise alone; its spread in the mean update is the computed one."""
    names = tuple(f"G{i}" for i in range(1500))
    proposal, model = proposed(None, names, noise=noise, seed=3)
    weights = {b.name: dict.fromkeys(NAMES, 1.0) for b in proposal.blocks}
    plan = RoundPlan(
        study="pilot", proposal_hash=proposal.proposal_hash, round=1, model_hash=sha256_hex(model), key_hash="0" * 64,
        weights=weights, scales={}, deadline_seconds=60, canonical=proposal.canonical,
    )  # fmt: skip
    arrays, totals = model_from_bytes(model), {}
    for site in NAMES:
        stream = Randomness.public(5, site=site, study="x", round=1, plan_hash="")
        sent = {
            block.name: proposal.noise_mode.without_data(
                proposal, plan, block, np.zeros(block.length, np.float32), 300.0, stream.child(site)
            )
            for block in proposal.blocks_of(site)
        }
        for name, values in encode_update(proposal, plan, site, sent, stream.child("rounding")).items():
            totals[name] = totals.get(name, 0) + values
    (block,) = (b for b in proposal.exchanged_blocks() if b.modality == "mrna")
    found = mean_updates(proposal, plan, arrays, totals, NAMES)[block.name]
    assert float(found.std()) == pytest.approx(noise_deviation(proposal, plan, block, NAMES), rel=0.08)
