"""The files of an installed package count by their content, and what is not as installed has a name."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from datasites.node import installed

FILES = {"toy/__init__.py": "ONE = 1\n", "toy/data.bin": "data", "toy-1.dist-info/METADATA": "Name: toy\nVersion: 1\n"}


def promise(content: str) -> str:
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()


def install(folder: Path, *, installer: str = "pip") -> None:
    own = {"toy-1.dist-info/INSTALLER": installer, "toy-1.dist-info/REQUESTED": "", **FILES}
    for name, content in own.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    rows = [[name, promise(content), str(len(content))] for name, content in own.items()]
    rows += [["../../bin/toy", promise(installer), "3"], ["toy/__pycache__/__init__.cpython-311.pyc", "", ""]]
    with (folder / "toy-1.dist-info/RECORD").open("w") as file:
        csv.writer(file).writerows([*rows, ["toy-1.dist-info/RECORD", "", ""]])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def look(site: Path) -> installed.Installed:
    return installed.survey(["toy"], cache=site.parent / "cache.json")


def test_the_same_wheel_gives_the_same_hash_whoever_installed_it_where(site, tmp_path, monkeypatch):
    here = look(site)
    assert here.changed == () and set(here.packages) == {"toy"}
    other = tmp_path / "elsewhere" / "site"
    install(other, installer="another")
    monkeypatch.syspath_prepend(str(other))
    assert look(other) == here


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda site: (site / "toy/__init__.py").write_text("ONE = 2\n"), "toy/__init__.py (changed)"),
        (lambda site: (site / "toy/data.bin").write_text("gone"), "toy/data.bin (changed)"),
        (lambda site: (site / "toy/data.bin").unlink(), "toy/data.bin (missing)"),
        (lambda site: (site / "toy/more.py").write_text(""), "toy/more.py (of no package)"),
        (lambda site: (site / "numpy.py").write_text(""), "numpy.py (of no package)"),
        (lambda site: (site / "start.pth").write_text("import os"), "start.pth (of no package)"),
        (lambda site: (site / "toy/less.pyc").write_bytes(b""), "toy/less.pyc (of no package)"),
    ],
    ids=["source", "data", "missing", "added", "shadow", "start", "bytecode"],
)
def test_each_change_changes_the_hash_and_is_named(site, change, named):
    before = look(site)
    change(site)
    after = look(site)
    assert after.changed == (named,)
    assert after.files_hash != before.files_hash


def test_no_result_is_kept_of_files_that_were_just_written(site):
    look(site)
    assert not (site.parent / "cache.json").exists()


def test_a_change_of_the_same_size_and_time_is_seen(site):
    before = look(site)
    path = site / "toy/__init__.py"
    at = path.stat()
    path.write_text("ONE = 7\n")
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert look(site).files_hash != before.files_hash


def test_a_record_that_was_changed_with_its_file_changes_the_hash(site, monkeypatch):
    before = look(site)
    monkeypatch.setitem(FILES, "toy/__init__.py", "ONE = 3\n")
    install(site)
    after = look(site)
    assert after.changed == () and after.files_hash != before.files_hash


def test_files_that_rest_are_read_once(site, monkeypatch):
    monkeypatch.setattr(installed, "_SETTLED_NS", 0)
    first = look(site)
    read = installed._content
    monkeypatch.setattr(installed, "_content", lambda _: pytest.fail("read again"))
    assert look(site) == first
    monkeypatch.setattr(installed, "_content", read)
    (site / "toy/data.bin").write_text("more")
    assert look(site).files_hash != first.files_hash


@pytest.mark.parametrize("kept", [b"", b"[]", b"{", b'{"seal": 1}', b"\xff"])
def test_a_damaged_result_is_made_anew(site, kept, monkeypatch):
    monkeypatch.setattr(installed, "_SETTLED_NS", 0)
    first = look(site)
    (site.parent / "cache.json").write_bytes(kept)
    assert look(site) == first
    assert json.loads((site.parent / "cache.json").read_bytes())["files_hash"] == first.files_hash


def test_a_result_that_cannot_be_kept_costs_time_only(site):
    assert installed.survey(["toy"], cache=site.parent / "no folder" / "cache.json") == look(site)


def test_what_is_not_installed_is_passed_over(site):
    assert installed.survey(["toy", "no-such-package"], cache=site.parent / "other.json").changed == ()
