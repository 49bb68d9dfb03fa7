"""Figures of a cohort, a hospital that allows it, and a pattern of modalities: right without noise, honest with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from datasites.language import speaking
from datasites.review.policy import Policy, check
from datasites.study.proposal import DatasetReference, Party
from datasites.study.recomputed.released_numbers import (
    VALIDATION,
    empty_numbers,
    expected_names,
    histograms_of,
    pattern_name,
    patterns,
)
from datasites.study.signing import dump, parse
from datasites.training.statistics import released_scores
from orchestrator.rounds.scoring.dp_evaluation import dp_evaluation
from orchestrator.studies.facts import EvaluationFact, OutcomeFact
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from orchestrator.studies.shown import _groups
from privacy.dp.randomness import Randomness
from privacy.errors import InvalidInput
from privacy.identity import Identity

PATIENTS, SITES = 3000, 4
MODALITIES = ("mrna", "clinical")
BOTH = ("site", "pattern")


def offer(index: int, *, allows: bool, task: str = "early-late", **outcome) -> Offer:
    name, key = f"site-{index}", Identity.from_seed(bytes([index]) * 32).public_key
    return Offer(
        party=Party(name=name, institution=f"Hospital {index}", public_key=key),
        cohort=("BRCA", "LUSC")[index % 2],
        modalities=MODALITIES,
        dataset=DatasetReference(name=name, version=1, fingerprint="0" * 64, schema_hash="5" * 64, patients=PATIENTS),
        features={"mrna": 1, "clinical": 1},
        cohorts=("BRCA", "LUSC"),
        task=task,
        own_evaluation=allows,
        **outcome,
    )


def study(noise: float = 0.0, by=BOTH, **outcome):
    """A study of four hospitals of two cohorts that is evaluated in its last round; hospitals 0 and 1 allow figures."""
    people = Party(name="office", institution="Office", public_key="1" * 64)
    offers = [offer(index, allows=index < 2, **outcome) for index in range(SITES)]
    settings = StudySettings(
        study="s", purpose="p", legal_basis="l", task=offers[0].task, rounds=4, epsilon=None, evaluation_share=0.1,
        evaluation_by=by,
    )  # fmt: skip
    proposal, _ = build_proposal(settings, offers, orchestrator=people, keyholder=people, code={})
    release = replace(proposal.mechanism.evaluation, noise_multiplier=noise)
    return replace(proposal, mechanism=replace(proposal.mechanism, evaluation=release))


class Told(torch.nn.Module):
    """Gives every record the logits that stand beside it."""

    def forward(self, batch):
        return batch["logits"]


def records(site: int, outcomes: int = 2):
    """Return made-up validation records of one site: some lack a modality, and these are scored worse."""
    stream = np.random.default_rng(site)
    label = stream.integers(0, outcomes, round(VALIDATION * PATIENTS))
    place = stream.integers(1, 4, label.size)
    presence = np.stack([place // 2, place % 2], axis=1).astype(np.float32)
    shift = np.where(place == 3, 1.6, 0.6)
    logits = (stream.normal(size=label.size) + shift * (label / (outcomes - 1) - 0.5)).astype(np.float32)
    return {
        "label": torch.from_numpy(label),
        "presence": torch.from_numpy(presence),
        "mrna": torch.zeros(label.size, 1),
        "clinical": torch.zeros(label.size, 1),
        "logits": torch.from_numpy(logits)[:, None],
        "place": torch.from_numpy(place),
    }


def released(proposal, seed: int = 0):
    found = {}
    for index, participant in enumerate(proposal.participants):
        found[participant.name] = released_scores(
            Told(),
            {name: value for name, value in records(index).items() if name != "place"},
            config=proposal.model,
            release=proposal.mechanism.evaluation,
            randomness=Randomness.public(seed, site=participant.name, study="s", round=4, plan_hash="p"),
            patterns_of=participant.modalities if proposal.evaluated_by_pattern else (),
        )
    return found


def truth(sites, keep=lambda found: found["label"] >= 0):
    """Return the exact AUROC, mean over cohorts, and the exact Brier score of some records."""
    areas, squares = [], []
    for cohort in sorted({site % 2 for site in sites}):
        parts = [records(site) for site in sites if site % 2 == cohort]
        kept = [keep(part) for part in parts]
        score = np.concatenate([torch.sigmoid(p["logits"][k, 0]).numpy() for p, k in zip(parts, kept, strict=True)])
        late = np.concatenate([p["label"][k].numpy() for p, k in zip(parts, kept, strict=True)]) > 0
        ranks = rankdata(score)
        areas.append((ranks[late].sum() - late.sum() * (late.sum() + 1) / 2) / (late.sum() * (~late).sum()))
        squares.append((score - late) ** 2)
    return float(np.mean(areas)), float(np.mean(np.concatenate(squares)))


def figures(found):
    return {
        (group.by, group.name): {figure.name: figure for figure in group.figures}
        for group in found.groups
    }  # fmt: skip


GROUPS = {
    ("cohort", "BRCA"): truth([0, 2]),
    ("cohort", "LUSC"): truth([1, 3]),
    ("site", "site-0"): truth([0]),
    ("site", "site-1"): truth([1]),
    ("pattern", "clinical"): truth(range(4), lambda found: found["place"] == 1),
    ("pattern", "mrna"): truth(range(4), lambda found: found["place"] == 2),
    ("pattern", "mrna+clinical"): truth(range(4), lambda found: found["place"] == 3),
}


def test_without_noise_every_group_has_its_exact_figures_up_to_the_bins():
    found = figures(dp_evaluation(study(), 4, released(study())))
    assert set(found) == set(GROUPS)  # hospitals 2 and 3 do not allow it: nothing of theirs alone
    for group, (area, brier) in GROUPS.items():
        assert found[group]["auroc"].value == pytest.approx(area, abs=0.015), group
        assert found[group]["brier"].value == pytest.approx(brier, abs=0.01), group
        assert set(found[group]) == {"auroc", "cross_entropy", "brier", "calibration_slope", "calibration_error"}
    assert found["pattern", "mrna+clinical"]["auroc"].value > found["pattern", "mrna"]["auroc"].value + 0.05


def test_with_noise_nine_of_ten_intervals_hold_the_truth():
    noised, held = study(1.5), []
    for seed in range(6):
        found = figures(dp_evaluation(noised, 4, released(noised, seed)))
        for group, truths in GROUPS.items():
            for name, true in zip(("auroc", "brier"), truths, strict=True):
                figure = found[group][name]
                held.append(figure.low <= true <= figure.high)
                assert figure.low <= figure.value <= figure.high
    assert len(held) == 84 and np.mean(held) > 0.82


def test_patterns_only_part_the_records_so_a_release_moves_with_one_patient_as_before():
    proposal, whole = study(), study(by=())
    counted, plain = released(proposal)["site-0"], released(whole)["site-0"]
    apart = histograms_of(counted, proposal.model, patterns(proposal, "site-0"))
    assert np.array_equal(apart.reshape(1, 3, 2, 32).sum(axis=1), histograms_of(plain, whole.model))
    assert apart.sum() == round(VALIDATION * PATIENTS)
    assert proposal.mechanism.evaluation.sensitivity == whole.mechanism.evaluation.sensitivity == 1.0
    assert [pattern_name(MODALITIES, place) for place in range(3)] == ["clinical", "mrna", "mrna+clinical"]


def test_a_site_whose_worker_failed_releases_the_same_names():
    proposal = study(1.0)
    stream = Randomness(b"s" * 32, study="s", round=4, plan_hash="p", dataset_fingerprint="f")
    names = expected_names(proposal, "site-0", 4)
    assert set(empty_numbers(proposal, "site-0", 4, stream)) == names == set(released(proposal)["site-0"])
    assert len(names) == 3 * 2 * 32


def test_a_study_that_asks_for_no_groups_has_cohorts_alone():
    found = dp_evaluation(study(by=()), 4, released(study(by=())))
    assert [(group.by, group.name) for group in found.groups] == [("cohort", "BRCA"), ("cohort", "LUSC")]
    assert found.brier_low < found.brier < found.brier_high


def test_only_hospitals_that_allow_it_are_marked_and_the_policy_of_the_others_refuses_the_mark():
    proposal = study()
    assert [p.evaluated_alone for p in proposal.participants] == [True, True, False, False]
    rules = {violation.rule for violation in check(Policy(), proposal, "site-0")}
    assert "study.allow_own_evaluation" in rules
    allows = Policy.parse("[study]\nallow_own_evaluation = true")
    assert "study.allow_own_evaluation" not in {violation.rule for violation in check(allows, proposal, "site-0")}
    assert "study.allow_own_evaluation" not in {violation.rule for violation in check(Policy(), proposal, "site-3")}
    assert allows.policy_hash != Policy().policy_hash


def test_the_report_reads_what_the_checkpoint_holds():
    found = dp_evaluation(study(1.0), 4, released(study(1.0)))
    assert parse(EvaluationFact, dump(found)).groups == found.groups
    with pytest.raises(InvalidInput):
        parse(OutcomeFact, dump(found))


@pytest.mark.parametrize("by", ["site", ("hospital",)])
def test_groups_that_there_are_not_are_refused(by):
    with pytest.raises(InvalidInput, match="by site, pattern or both"):
        study(by=by)


@pytest.mark.parametrize("language", ["en", "de", "fr"])
def test_the_study_report_has_a_table_for_every_group(language):
    found = parse(EvaluationFact, dump(dp_evaluation(study(1.0), 4, released(study(1.0)))))
    with speaking(language):
        tables = _groups(found)
    assert len(tables) == len(GROUPS) and all(len(table["rows"]) == 5 for table in tables)
    captions = " ".join(str(table["caption"]) for table in tables)
    assert all(name in captions for name in ("BRCA", "site-0", "mrna + clinical")) and "{" not in captions
    assert "site-2" not in captions
