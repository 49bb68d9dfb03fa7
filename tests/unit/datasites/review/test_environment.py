"""The environment of a process is comparable, and differences are readable."""

from dataclasses import replace

from datasites.review.environment import current_environment, differences


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
