"""The environment of a process is comparable, and differences are readable."""

from dataclasses import replace
from pathlib import Path

from datasites.review.environment import (
    REST_OF_CODE,
    REST_OF_PACKAGES,
    compare,
    current_environment,
    data_hash,
    differences,
)
from datasites.study.proposal import Environment
from datasites.study.signing import dump, parse
from privacy.canonical import plain_json


def test_the_same_installation_gives_the_same_environment():
    first = current_environment()
    current_environment.cache_clear()
    assert current_environment() == first
    assert first.packages["torch"].startswith("2.13.0")
    assert differences(first, first) == []


def test_each_difference_is_named():
    here = current_environment()
    other = replace(here, packages={**here.packages, "torch": "1.0"}, code_hash="0" * 64, lock_hash="0" * 64)
    found = differences(other, here)
    assert found[0].startswith("torch: 1.0 was approved")
    assert len(found) == 3


def test_files_count_where_the_versions_are_the_same():
    here = current_environment()
    assert len(here.files_hash) == 64
    found = differences(replace(here, files_hash="0" * 64), here)
    assert len(found) == 1 and "not the approved files" in found[0]
    assert differences(replace(here, files_hash=""), here) == found  # no proposal of today may leave them out


def test_proposals_from_before_files_counted_keep_their_hash_and_can_be_read():
    old = {"lock_hash": "1" * 64, "code_hash": "2" * 64, "packages": {"torch": "2.13.0"}}
    environment = parse(Environment, plain_json(old))
    assert environment.files_hash == ""
    assert dump(environment) == old
    found = differences(environment, current_environment())
    assert "Tessera's own source code is not the version approved" in found


def test_the_rest_is_named_by_what_there_is():
    root = Path(__file__).resolve().parents[4]
    assert all((root / place).exists() for place in REST_OF_CODE)
    assert set(current_environment().packages) >= REST_OF_PACKAGES


def test_what_touches_no_data_may_differ_between_releases():
    here = current_environment()
    other = replace(here, release="9.9.9", code_hash="0" * 64, packages={**here.packages, "typst": "0.0"})
    found = compare(replace(here, release="9.9.8"), other)
    assert found.refused == ()
    assert found.allowed[0] == "Tessera 9.9.8 was approved, 9.9.9 is here"
    assert found.allowed[1].startswith("typst: ")
    assert data_hash(here) == data_hash(other)


def test_under_the_same_release_nothing_may_differ():
    here = current_environment()
    found = compare(here, replace(here, code_hash="0" * 64))
    assert len(found.refused) == 1 and not found.allowed


def test_proposals_from_before_the_parts_are_compared_as_a_whole():
    here = current_environment()
    old = replace(here, release="", data_code="", data_lock="", data_files="", code_hash="0" * 64)
    assert set(dump(old)) == {"lock_hash", "code_hash", "packages", "files_hash"}
    assert len(compare(old, here).refused) == 1


def test_a_package_that_touches_data_may_not_differ_between_releases():
    here = current_environment()
    other = replace(here, release="9.9.9", packages={**here.packages, "torch": "1.0"})
    assert [line.split(":")[0] for line in compare(replace(here, release="9.9.8"), other).refused] == ["torch"]


def test_a_stranger_who_names_no_version_is_refused_and_breaks_no_page():
    here = current_environment()
    compared = compare(replace(here, release="<b>newest</b>"), here)
    assert len(compared.refused) == 1 and "more than one minor version apart" in compared.refused[0]
