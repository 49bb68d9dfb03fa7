"""One byte string per value: canonical JSON and its SHA-256.

Everything that is signed or hashed goes through here, so that two parties who hold the same value hold the
same bytes: keys sorted, no white space, UTF-8, integers and strings and finite floats only (floats by Python's
shortest round-trip form, as RFC 8785 asks).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from privacy.errors import InvalidInput

Json = dict[str, Any] | list[Any] | str | int | float | bool | None


def canonical_json(value: Json | Mapping[str, Any]) -> bytes:
    """Return the canonical JSON bytes of ``value``.

    ``canonical_json({"b": 1, "a": [True, None]})`` is ``b'{"a":[true,null],"b":1}'``.

    Args:
        value: nested mappings with string keys, lists or tuples, strings, ints, finite floats, booleans, None.

    Raises:
        InvalidInput: a value that JSON cannot carry, a key that is not a string, a float that is not finite, or text
            with half of a surrogate pair.
    """
    _check(value)
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=dict
        ).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("expected text that UTF-8 can carry, got half of a surrogate pair") from error


def canonical_hash(value: Json | Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of ``value`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _check(value: object) -> None:
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput("expected a finite number for canonical JSON, got NaN or an infinity")
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"expected string keys for canonical JSON, got a {type(key).__name__}")
            _check(item)
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            _check(item)
        return
    raise InvalidInput(f"canonical JSON cannot carry a {type(value).__name__}")
