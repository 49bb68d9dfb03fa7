"""Figures beside the charge: each smaller or larger than it for a reason, and absent where nothing proves them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from datasites.study.proposal import DatasetReference, Party
from datasites.study.second_figures import noise_in_sums, second_figures
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.schedule import with_schedule
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.identity import Identity

DELTA = 1e-4
OFFICE = Party(name="office", institution="Office", public_key="1" * 64)
KEYS = Party(name="keys", institution="Keys", public_key="2" * 64)


def offer(index: int, patients: int) -> Offer:
    name = f"site-{index}"
    key = Identity.from_seed(bytes([index + 1]) * 32).public_key
    return Offer(
        party=Party(name=name, institution=f"Hospital {index}", public_key=key),
        cohort="BRCA",
        modalities=("mrna",),
        dataset=DatasetReference(name=name, version=1, fingerprint="0" * 64, schema_hash="5" * 64, patients=patients),
        features={"mrna": 200},
        cohorts=("BRCA",),
        task="early-late",
    )


def study(patients: tuple[int, ...] = (100,) * 9, **wishes):
    settings = StudySettings(
        study="s", purpose="p", legal_basis="l", task="early-late", **{"noise": "local", "rounds": 6, **wishes}
    )
    offers = [offer(i, n) for i, n in enumerate(patients)]
    rounds = wishes.get("rounds")
    proposal, _ = build_proposal(with_schedule(settings, rounds), offers, orchestrator=OFFICE, keyholder=KEYS, code={})
    return proposal


def figures(proposal, site: str = "site-0") -> dict[str, float]:
    return {figure.kind: figure.epsilon for figure in second_figures(proposal, site, DELTA)}


def test_nine_equal_hospitals_with_local_noise_at_epsilon_8_are_epsilon_2_3_to_readers_of_sums() -> None:
    proposal = study()
    found = figures(proposal)
    assert proposal.mechanism.epsilon(DELTA) == pytest.approx(8.0, abs=0.01)
    assert found["sums of 9"] == pytest.approx(2.3, abs=0.05)
    assert found["sums of 9"] < found["sums of 3"] < 8.0
    assert found["two hospitals"] > 8.0


def test_where_every_hospital_is_needed_readers_of_sums_have_one_figure() -> None:
    found = second_figures(study((100,) * 3, min_sites=3), "site-0", DELTA)
    assert len([figure for figure in found if figure.of_sums]) == 1


def test_every_figure_says_against_whom_it_is() -> None:
    for figure in second_figures(study(), "site-0", DELTA):
        assert figure.label
        assert ("orchestrator and keyholder" in figure.against) == figure.kind.startswith("sums of")


def test_a_hospital_among_unequal_ones_counts_on_the_noise_that_is_there() -> None:
    """Weights follow counts, within a factor of four, so a very large hospital adds less noise than the others."""
    proposal = study((1000, 50, 50, 50))
    assert noise_in_sums(proposal, "site-0") is None  # its own noise is under three rounding steps
    all_in, few = noise_in_sums(proposal, "site-1")
    assert (all_in, few) == pytest.approx((2**0.5, 1.0), rel=0.1)  # one of the three others colludes, one is too quiet
    assert figures(proposal, "site-1")["sums of 4"] < 8.0


def test_shared_noise_shows_the_figure_when_nobody_colludes() -> None:
    found = figures(study(noise="shared"))
    assert set(found) == {"nobody colludes", "two hospitals"}
    assert found["nobody colludes"] < 8.0 < found["two hospitals"]


@pytest.mark.parametrize(
    "change",
    [
        {"steps_per_round": 4, "rounds": 5},  # a site's own noise feeds back into its update
        {"aggregation": "pcw", "rounds": 8, "steps_per_round": 1},  # weights follow single updates
    ],
)
def test_where_sums_prove_nothing_there_is_no_figure_for_them(change: dict[str, object]) -> None:
    proposal = study(**change)
    assert noise_in_sums(proposal, "site-0") is None
    assert set(figures(proposal)) == {"two hospitals"}


def test_public_noise_and_no_noise_have_no_figures() -> None:
    assert second_figures(replace(study(), seed=3), "site-0", DELTA) == ()
    assert second_figures(study(epsilon=math.inf), "site-0", DELTA) == ()
