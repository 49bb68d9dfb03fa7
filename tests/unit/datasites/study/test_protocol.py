"""Versions that understand one another, and what is said where they do not."""

import pytest

from datasites.study.protocol import PROTOCOL, check_protocol, major_minor, understands
from privacy.errors import InvalidInput, OtherProtocol


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("1.1", "1.1", True),
        ("1.1", "1.2", True),
        ("1.2", "1.1", True),
        ("1.1", "1.3", False),
        ("1.3", "1.1", False),
        ("1.9", "2.0", False),
        ("0.3.1", "0.3.9", True),
        ("0.3.1", "0.4.0rc1", True),
        ("0.3.1", "0.4.0+local", True),
        ("0.3.1", "0.5.0", False),
    ],
)
def test_one_minor_version_is_understood(one: str, other: str, expected: bool) -> None:
    assert understands(one, other) is expected


@pytest.mark.parametrize(
    "text", ["", "1", "1.", "one", "1.2.3.4/5", "-1.2", "01.2", "1.2 ", "9" * 99, "1.2\n", "\u0661.\u0662"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"such as 1\.4"):
        major_minor(text)
    assert not understands(text, PROTOCOL) and not understands(PROTOCOL, text)


def test_a_party_that_names_no_version_speaks_the_first_one() -> None:
    assert check_protocol(None, "north", "1.1") == "1.0"
    with pytest.raises(OtherProtocol):
        check_protocol(None, "north", "1.2")


@pytest.mark.parametrize(
    ("said", "older"), [("1.0", "upgrade north to"), ("1.4", "upgrade this side to"), ("2.0", "upgrade this side to")]
)
def test_a_refusal_names_both_versions_and_what_to_do(said: str, older: str) -> None:
    with pytest.raises(OtherProtocol) as found:
        check_protocol(said, "north", "1.2")
    told = str(found.value)
    assert f"north speaks version {said}" in told and "version 1.2 is spoken here" in told
    assert older in told and "tessera upgrade --check" in told


def test_the_present_version_is_one() -> None:
    assert check_protocol(PROTOCOL, "north") == PROTOCOL
