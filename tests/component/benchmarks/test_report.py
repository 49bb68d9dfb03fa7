"""The benchmark of reports writes real ones, and leaves the home as it was."""

from __future__ import annotations

import json
from pathlib import Path

from support.benchmarks import run_script
from support.old_stores import HOSPITALS, contents, unpack


def test_reports_of_a_hospital_are_timed_and_its_home_stays_as_it_was(tmp_path: Path) -> None:
    home = unpack(tmp_path / "old") / "consortium" / HOSPITALS[0]
    before = {path: contents(path) for path in home.rglob("*.sqlite")}
    files = sorted(home.rglob("*"))
    done = run_script("report.py", str(home), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(found[name] > 0 for name in ("first_seconds", "next_seconds", "three_languages_seconds", "cold_seconds"))
    assert {path: contents(path) for path in home.rglob("*.sqlite")} == before
    assert sorted(home.rglob("*")) == files


def test_a_folder_that_is_no_hospital_is_refused(tmp_path: Path) -> None:
    done = run_script("report.py", str(tmp_path), "--json")
    assert (done.returncode, done.stdout) == (1, "")
