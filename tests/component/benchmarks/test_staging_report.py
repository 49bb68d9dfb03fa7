"""From the benchmark's JSON to tables and plots: prose stays, targets are read off the numbers."""

from __future__ import annotations

import json

import pytest
from support.benchmarks import run_script

PROSE = "# Results\n\nbefore\n\n<!-- tables -->\nold\n<!-- end of tables -->\n\nafter\n"


def value(mean, half_width=0.004):
    return {"mean": mean, "half_width": half_width}


def entry(auroc, against, rounds, shift=0.0):
    """One method's results over three seeds, all of them ``shift`` from the first method's."""
    keys = ("balanced_accuracy", "cross_entropy", "calibration_error", "worst_site", "site_spread")
    return {
        "auroc": value(auroc),
        "auroc_minus_fedavg": value(against),
        "auroc_by_seed": [0.6 + shift, 0.7 + shift, 0.65 + shift],
        "auroc_by_cohort": {"BRCA": value(0.6), "LUSC": value(0.5), "LIHC": value(0.7)},
        "sites": {"brca-1": value(0.61), "lihc-1": value(0.6)},
        "combinations": {"mrna": value(0.6)},
        "curve": [0.5, 0.6],
        "rounds_to_reference": rounds,
        **{key: value(0.5) for key in keys},
    }


def report(methods, **settings):
    given = {"federation": "tri-modal", "task": "early-late", "model": "linear", "epsilon": None, "delta": 1e-4}
    given |= {"noise": "local", "corrupt": "", "split": "stratified", "seeds": 3, "first_seed": 100, "alpha": 0.5}
    return {"settings": given | settings, "reference": "fedavg", "methods": methods}


@pytest.fixture
def written(tmp_path):
    fedavg = entry(0.66, 0.0, 30)
    methods = {
        "local": entry(0.61, -0.05, None, -0.05),
        "fedavg": fedavg,
        "dgb+pcw": entry(0.66, -0.002, None),
        "pooled": entry(0.66, 0.0, 9),
        "fedavgm": entry(0.66, 0.0, 12),
    }
    seen = {"sites": {"brca-1": value(0.605), "lihc-1": value(0.62)}}
    private = report({"fedavg": entry(0.65, 0.0, 20, -0.012) | seen}, epsilon=8.0, noise="shared")
    private_entry = entry(0.65, 0.0, 20, -0.012) | seen
    apart = report({"fedavg": entry(0.577, 0.0, None)}, epsilon=8.0, noise="shared", split="site-held-out")
    for name, content in {
        "main-tri-modal-early-late": report(methods),
        "privacy-epsilon-8-shared-early-late": private,
        "privacy-epsilon-4-shared-early-late": report({"fedavg": private_entry}, epsilon=4.0, noise="shared"),
        "privacy-epsilon-2-shared-early-late": report({"fedavg": private_entry}, epsilon=2.0, noise="shared"),
        "privacy-epsilon-8-local-early-late": report({"fedavg": private_entry}, epsilon=8.0),
        "privacy-held-out-epsilon-8-shared-early-late": apart,
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "results-tables.md").write_text(PROSE)
    files = [str(p) for p in sorted(tmp_path.glob("*.json"))]
    targets = ["--markdown", str(tmp_path / "results-tables.md"), "--html", str(tmp_path / "build" / "results.html")]
    ended = run_script("staging_report.py", *files, *targets)
    assert ended.returncode == 0, ended.stderr
    return (tmp_path / "results-tables.md").read_text(), (tmp_path / "build" / "results.html").read_text()


def test_tables_replace_what_stood_between_the_marks_and_targets_are_judged(written):
    text, page = written
    assert text.startswith("# Results\n\nbefore\n")
    assert text.endswith("<!-- end of tables -->\n\nafter\n")
    assert "old" not in text
    rows = {line.split(" | ")[0].lstrip("| "): line for line in text.splitlines() if line.startswith("| early-late:")}
    assert rows["early-late: fedavg - local at least .03, above 0"].endswith("0.0500 ± 0.0000 | yes |")
    assert rows["early-late: half of FedAvg's 30 rounds to its final AUROC"].endswith("fedavgm 12 | yes |")
    assert rows["early-late: dgb+pcw - fedavg, lower bound above -.005"].endswith("| **no** |")
    drop = "early-late: epsilon 8, shared noise, mean within 0.008 of no privacy"
    assert rows[drop].endswith("-0.0120 ± 0.0000 | **no** |")
    wanted = {"epsilon 4, shared": "0.015", "epsilon 2, shared": "0.03", "epsilon 8, local": "0.02"}
    for noise, allowed in wanted.items():
        name = f"early-late: {noise} noise, mean within {allowed} of no privacy"
        assert rows[name].endswith("-0.0120 ± 0.0000 | yes |")
    assert rows["early-late: the same, hospital by hospital (means)"].endswith(
        "above 1 of 2, not brca-1 (0.605 against 0.610) | **no** |"
    )
    assert text.count("| 0.577 ± 0.004 |") == 2  # with sites held out: by epsilon, and beside the comparison
    assert page.count("<svg") == 2
