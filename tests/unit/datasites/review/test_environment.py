"""The environment of a process is comparable, and differences are readable."""

from dataclasses import replace

from datasites.review.environment import current_environment, differences
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
