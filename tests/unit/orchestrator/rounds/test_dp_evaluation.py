"""The estimate from noised score histograms: right without noise, honest about its error with it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata

from datasites.study.proposal import DatasetReference, Party
from datasites.study.recomputed.released_numbers import VALIDATION, expected_names, named_histograms
from datasites.study.signing import dump, parse
from orchestrator.rounds.scoring.dp_evaluation import DpEvaluation, dp_evaluation
from orchestrator.studies.facts import EvaluationFact
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.dp.randomness import Randomness
from privacy.dp.releases import score_histograms
from privacy.identity import Identity

PATIENTS = 1500


def offer(index: int, task: str) -> Offer:
    name, cohort = f"site-{index}", ("BRCA", "LUSC")[index % 2]
    key = Identity.from_seed(bytes([index]) * 32).public_key
    return Offer(
        party=Party(name=name, institution=f"Hospital {index}", public_key=key),
        cohort=cohort,
        modalities=("mrna",),
        dataset=DatasetReference(name=name, version=1, fingerprint="0" * 64, schema_hash="5" * 64, patients=PATIENTS),
        features={"mrna": 2},
        cohorts=("BRCA", "LUSC"),
        task=task,
    )


def study(noise: float, *, classes: int = 2):
    """A study of four rounds and four hospitals of two cohorts, evaluated in its last round."""
    task = {2: "early-late", 3: "ordinal"}[classes]
    people = Party(name="office", institution="Office", public_key="1" * 64)
    settings = StudySettings(
        study="s", purpose="p", legal_basis="l", task=task, rounds=4, epsilon=None, evaluation_share=0.1
    )
    offers = [offer(index, task) for index in range(4)]
    proposal, _ = build_proposal(settings, offers, orchestrator=people, keyholder=people, code={})
    release = replace(proposal.mechanism.evaluation, noise_multiplier=noise)
    return replace(proposal, mechanism=replace(proposal.mechanism, evaluation=release))


def scored(site: int, classes: int = 2, shift: float = 1.2):
    """Return made-up scores [n, classes - 1] and labels [n] of one site's validation records."""
    generator = np.random.default_rng(site)
    labels = generator.integers(0, classes, round(VALIDATION * PATIENTS))
    raw = generator.normal(size=labels.size)[:, None] + shift * labels[:, None] - np.arange(1, classes)[None]
    return 1 / (1 + np.exp(-raw)), labels


def released(proposal, *, seed: int = 0):
    found = {}
    for index, participant in enumerate(proposal.participants):
        scores, labels = scored(index, proposal.model.classes)
        stream = Randomness.public(seed, site=participant.name, study="s", round=1, plan_hash="p")
        histograms = score_histograms(
            scores,
            labels,
            classes=proposal.model.classes,
            release=proposal.mechanism.evaluation,
            randomness=stream,
        )
        found[participant.name] = named_histograms(histograms)
    return found


def exact_area(proposal) -> float:
    areas = []
    for cohort in sorted({p.cohort for p in proposal.participants}):
        pairs = [scored(i, proposal.model.classes) for i, p in enumerate(proposal.participants) if p.cohort == cohort]
        scores, labels = np.concatenate([s for s, _ in pairs]), np.concatenate([y for _, y in pairs])
        for k in range(proposal.model.classes - 1):
            late = labels > k
            ranks = rankdata(scores[:, k])
            areas.append((ranks[late].sum() - late.sum() * (late.sum() + 1) / 2) / (late.sum() * (~late).sum()))
    return float(np.mean(areas))


def test_a_round_without_evaluation_has_no_estimate():
    proposal = study(0.0)
    assert expected_names(proposal, proposal.participants[0].name, 3) == frozenset()
    assert dp_evaluation(proposal, 3, {"site-0": {}}) is None
    assert dp_evaluation(replace(proposal, mechanism=replace(proposal.mechanism, evaluation=None)), 4, {}) is None


@pytest.mark.parametrize("classes", [2, 3])
def test_without_noise_the_estimate_is_the_exact_area_up_to_the_bins(classes):
    proposal = study(0.0, classes=classes)
    found = dp_evaluation(proposal, 4, released(proposal))
    assert isinstance(found, DpEvaluation)
    assert found.auroc == pytest.approx(exact_area(proposal), abs=0.01)
    assert found.records == len(proposal.participants) * round(VALIDATION * PATIENTS)
    assert 0 < found.auroc_error < 0.03


def test_with_noise_the_truth_lies_within_the_stated_errors():
    proposal = study(2.0)
    truth = exact_area(proposal)
    found = [dp_evaluation(proposal, 4, released(proposal, seed=seed)) for seed in range(30)]
    distances = [abs(f.auroc - truth) / f.auroc_error for f in found]
    assert np.mean([d < 2 for d in distances]) >= 0.85
    assert abs(np.mean([f.auroc for f in found]) - truth) < 0.02
    entropies = [f.cross_entropy for f in found]
    assert np.std(entropies) < 1.5 * found[0].cross_entropy_error


def test_more_noise_states_a_larger_error():
    errors = [
        dp_evaluation(proposal, 4, released(proposal)).auroc_error for proposal in (study(0.5), study(2.0), study(8.0))
    ]
    assert errors == sorted(errors)


def test_the_report_reads_what_the_checkpoint_holds():
    proposal = study(1.0)
    found = dp_evaluation(proposal, 4, released(proposal))
    assert parse(EvaluationFact, dump(found)).auroc == found.auroc
