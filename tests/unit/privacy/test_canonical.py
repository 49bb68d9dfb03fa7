"""Canonical JSON: the vectors of RFC 8785, the bytes of version 1, and what is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from types import MappingProxyType

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.canonical import canonical_hash, canonical_json, plain_json
from privacy.errors import InvalidInput, Tampered
from privacy.identity import Identity, verify

# RFC 8785, appendix B: the bits of an IEEE 754 double and how it is written
APPENDIX_B = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]
# as written by the code of commit 4c19b18
VERSION_1 = [
    (1.0, "1.0"),
    (1e-05, "1e-05"),
    (1e16, "1e+16"),
    (1e-07, "1e-07"),
    (-0.0, "-0.0"),
    (123456789.0, "123456789.0"),
    (1e21, "1e+21"),
    (2**60 - 1, "1152921504606846975"),
    ({"\ue000": 1, "😀": 2}, '{"\ue000":1,"😀":2}'),
    ({"b": [True, None, "ü\n\u001f\u007f"], "a": 1}, '{"a":1,"b":[true,null,"ü\\n\\u001f\u007f"]}'),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab😀\ue000", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("bits", "text"), APPENDIX_B)
def test_numbers_are_written_as_appendix_b_wants_them(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(value) == text.encode()


def test_the_example_of_section_3_2_2() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert (
        canonical_json(value)
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_keys_are_sorted_by_utf_16_as_section_3_2_3_wants_it() -> None:
    names = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(names))) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(("value", "text"), VERSION_1)
def test_version_1_keeps_the_bytes_of_older_documents(value: object, text: str) -> None:
    assert canonical_json(value, 1) == text.encode()


@given(VALUES)
def test_what_was_read_back_has_the_same_bytes(value: object) -> None:
    for version in (1, 2):
        data = canonical_json(value, version)
        again = json.loads(data)
        assert canonical_json(again, version) == data
        assert json.loads(data, parse_int=_number) == value
    assert canonical_json(json.loads(plain_json(value))) == canonical_json(value)


def _number(digits: str) -> int | float:
    """Read digits as RFC 8785 means them: beyond 2**53 they are those of a double."""
    return int(digits) if abs(int(digits)) < 2**53 else float(digits)


@given(VALUES, VALUES)
def test_equal_bytes_mean_equal_values_whatever_the_versions(one: object, other: object) -> None:
    for a in (1, 2):
        for b in (1, 2):
            if canonical_json(one, a) == canonical_json(other, b):
                assert one == other


def test_without_floats_and_rare_keys_both_versions_write_the_same() -> None:
    value = {"study": "lungs", "round": 3, "code": {"plan.toml": "ab"}, "sites": ["ü", None, True]}
    assert canonical_json(value, 1) == canonical_json(value, 2) == plain_json(value)


@pytest.mark.parametrize("value", [2**53, -(2**53) - 1, 2**60 - 1, 10**400])
def test_an_integer_that_a_double_does_not_hold_is_refused(value: int) -> None:
    if value != 2**53:  # this one has the digits of a double, as 1e16 read back has
        with pytest.raises(InvalidInput, match="2\\*\\*53"):
            canonical_json(value)
    assert canonical_json(value, 1) == str(value).encode()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: 2}, {"a": {None: 1}}, b"bytes", {"a": {1, 2}}, "\ud800", {"\udfff": 1}]
)
def test_what_json_cannot_carry_is_refused(value: object, version: int) -> None:
    with pytest.raises(InvalidInput):
        canonical_json(value, version)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [1, 2])
def test_mappings_and_tuples_are_written_as_objects_and_lists(version: int) -> None:
    value: Mapping[str, object] = MappingProxyType({"b": (1, MappingProxyType({})), "a": ()})
    assert canonical_json(value, version) == b'{"a":[],"b":[1,{}]}'  # type: ignore[arg-type]
    assert canonical_hash(value, version) == canonical_hash({"a": [], "b": [1, {}]}, version)  # type: ignore[arg-type]


def test_a_signature_holds_under_its_own_version_only() -> None:
    identity, payload = Identity.from_seed(b"k" * 32), {"study": "lungs"}  # the same bytes in both versions
    for version, other in ((1, 2), (2, 1)):
        signature = identity.sign("greeting", payload, version)
        verify(identity.public_key, "greeting", payload, signature, version)
        with pytest.raises(Tampered):
            verify(identity.public_key, "greeting", payload, signature, other)


QUICK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.1, 1e-5, 5e-324, 1e16, -0.0, 1e21, 123456789.25, 2.0**53])
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127)) | st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(QUICK)
def test_the_quick_way_writes_what_the_library_writes(value: object) -> None:
    try:
        written = canonical_json(value)  # type: ignore[arg-type]
    except InvalidInput:
        with pytest.raises((UnicodeEncodeError, rfc8785.CanonicalizationError)):
            rfc8785.dumps(value)  # type: ignore[arg-type]
        return
    assert written == rfc8785.dumps(value)  # type: ignore[arg-type]
