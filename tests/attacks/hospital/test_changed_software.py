"""Somebody changes a package that is already installed, or slips in another file, under an unchanged version.

Played: a changed source or binary file, a changed file of the same size and time, a file changed together with its
RECORD, a module that shadows a package, code that runs at every start of Python (`.pth`), sourceless byte code, a
missing file; a proposal that leaves the files out; a wheel of torch with an unknown hash. On the code before, the
environment of an approval was versions only, so all of them ran under it.
"""

from __future__ import annotations

import csv
import hashlib
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datasites.node.installed import survey
from datasites.review.checks import check_environment
from datasites.review.environment import current_environment
from privacy.errors import Refused

CONTENT = {"sums/__init__.py": b"def add(a, b):\n    return a + b\n", "sums/fast.so": b"\x7fELF one"}


def install(site: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(data)
    info = site / "sums-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sums\nVersion: 1.0\n")
    with (info / "RECORD").open("w") as file:
        for name, data in content.items():
            digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            csv.writer(file).writerow([name, f"sha256={digest}", len(data)])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path / "site", CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def files_hash(site: Path) -> str:
    return survey(["sums"], cache=site.parent / "cache.json").files_hash


def same_size_and_time(site: Path) -> None:
    path = site / "sums/__init__.py"
    at = path.stat()
    path.write_bytes(CONTENT["sums/__init__.py"].replace(b"+", b"-"))
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "source": lambda site: (site / "sums/__init__.py").write_bytes(b"from os import system as add\n"),
    "binary": lambda site: (site / "sums/fast.so").write_bytes(b"\x7fELF two"),
    "same size and time": same_size_and_time,
    "with its RECORD": lambda site: install(site, {**CONTENT, "sums/__init__.py": b"add = print\n"}),
    "shadowed package": lambda site: (site / "numpy.py").write_bytes(b""),
    "code at start": lambda site: (site / "start.pth").write_bytes(b"import os\n"),
    "byte code without source": lambda site: (site / "sums/extra.pyc").write_bytes(b""),
    "missing": lambda site: (site / "sums/fast.so").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_changed_package_runs_under_an_approval_for_the_version(site: Path, new_proposal, change: str) -> None:
    approved = replace(current_environment(), files_hash=files_hash(site))
    proposal = new_proposal(environment=approved)
    check_environment(proposal, replace(approved, files_hash=files_hash(site)))  # untouched, it may run
    CHANGES[change](site)
    with pytest.raises(Refused, match="not the approved files"):
        check_environment(proposal, replace(approved, files_hash=files_hash(site)))


def test_no_proposal_of_today_leaves_the_files_out(new_proposal) -> None:
    here = current_environment()
    with pytest.raises(Refused, match="not the approved files"):
        check_environment(new_proposal(environment=replace(here, files_hash="")), here)
