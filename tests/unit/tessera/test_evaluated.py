"""A released evaluation as a table."""

from __future__ import annotations

from typing import Any

import pytest

import tessera
from tessera.live import Run
from tessera.trained.evaluated import evaluation_table

CLASSES: dict[str, Any] = {
    "round": 3, "auroc": 0.7, "auroc_error": 0.05, "auroc_low": 0.61, "auroc_high": 0.79, "cross_entropy": 0.6,
    "cross_entropy_error": 0.02, "calibration_slope": None, "auroc_by_cohort": {"BRCA": 0.72, "LUSC": 0.98},
    "auroc_error_by_cohort": {"BRCA": 0.1, "LUSC": 0.1}, "calibration_error": 0.04, "calibration_error_low": 0.0,
    "calibration_error_high": 0.1,
}  # fmt: skip
SURVIVAL = {
    "figures": [
        {"name": "concordance", "value": 0.66, "low": 0.6, "high": 0.72, "at": None},
        {"name": "brier", "value": 0.2, "low": 0.1, "high": 0.3, "at": 24.0},
    ]
}


class Told(Run):
    """A run whose orchestrator says what a test tells it to."""

    def __init__(self, *evaluations: Any) -> None:
        self.name, self.test, self._evaluations = "told", None, evaluations

    def status(self) -> dict[str, Any]:
        return {"checkpoints": [{"evaluation": evaluation} for evaluation in self._evaluations]}


def test_every_figure_of_classes_has_an_interval():
    table = evaluation_table(CLASSES)
    assert table.loc[("auroc", "all")].to_list() == [0.7, 0.61, 0.79]
    assert table.loc[("auroc", "LUSC"), "high"] == 1.0 and ("calibration_slope", "all") not in table.index
    assert table.loc[("cross_entropy", "all"), "low"] == pytest.approx(0.6 - 1.645 * 0.02)
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_of_numbers_and_survival_the_figures_are_theirs():
    assert list(evaluation_table(SURVIVAL).index) == [("concordance", "all"), ("brier", "at 24")]


def test_a_run_shows_the_last_one_or_says_how_to_ask_for_one():
    assert Told(None, SURVIVAL, CLASSES).evaluation.equals(evaluation_table(CLASSES))
    assert Told(CLASSES, SURVIVAL).metrics == {} and Told(CLASSES).metrics["private_auroc_low"] == 0.61
    assert "private_auroc_low" not in Told({**CLASSES, "auroc_low": None}).metrics
    with pytest.raises(tessera.TesseraError, match=r"evaluation=0\.2"):
        _ = Told(None).evaluation


@pytest.mark.parametrize(
    ("study", "figure"),
    [
        (tessera.Study("c", epsilon=8, rounds=1, evaluation=0.5, evaluation_by=("site", "pattern")), "brier"),
        (
            tessera.Study(
                "s", schema="tcga-survival", epsilon=8, rounds=1, evaluation=0.5, evaluation_by=("site", "pattern")
            ),
            "concordance",
        ),
    ],
    ids=["classes", "survival"],
)
def test_a_simulation_evaluates_as_a_live_study_does_by_cohort_site_and_pattern(study, figure):
    sim = study.simulate(sites=3, patients=120, jobs=1, progress=False)
    table = sim.evaluation
    kinds = {where.split()[0] for name, where in table.index if name == figure}
    assert {"all", "site", "pattern"} <= kinds and len(kinds) > 3
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_groups_without_an_evaluation_are_refused():
    with pytest.raises(tessera.InvalidInput, match="share of epsilon for an evaluation by site"):
        tessera.Study("x", evaluation_by=("site",))
    with pytest.raises(tessera.InvalidInput, match="by site, pattern or both"):
        tessera.Study("x", evaluation=0.5, evaluation_by=("hospital",))
