"""The staging benchmark end to end on synthetic tables."""

from __future__ import annotations

import json

from support.benchmarks import run_script


def benchmark(*arguments):
    return run_script("staging.py", "--seeds", "1", "--rounds", "2", "--processes", "1", *arguments)


def test_the_benchmark_prints_one_json_object_with_paired_intervals():
    ended = benchmark("--json", "--methods", "local", "fedavg", "dgb+pcw", "--corrupt", "flip:brca-2,lusc-1")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert set(report["methods"]) == {"local", "fedavg", "dgb+pcw"}
    assert report["methods"]["fedavg"]["auroc_minus_fedavg"]["mean"] == 0.0
    assert len(report["methods"]["dgb+pcw"]["curve"]) == 2
    assert set(report["methods"]["fedavg"]["combinations"]) >= {"mrna", "mrna+image+clinical"}
    assert len(report["methods"]["fedavg"]["sites"]) == 9


def test_the_benchmark_names_what_it_does_not_know():
    ended = benchmark("--methods", "magic")
    assert ended.returncode == 2
    assert "unknown method 'magic'" in ended.stderr
    assert "Traceback" not in ended.stderr
