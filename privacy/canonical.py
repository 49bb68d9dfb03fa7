"""One byte string per value: canonical JSON (RFC 8785) and its SHA-256.

Everything that is signed or hashed goes through here, so that two parties who hold the same value hold the same bytes.

There are two versions. Version 2 is RFC 8785, written by the library ``rfc8785``. Version 1 is Python's own JSON with
sorted keys; it was used before and keeps old hashes and signatures verifiable. They differ in floats (1.0 is ``1.0`` in
version 1 and ``1`` in version 2), in integers beyond 2**53 - 1, and in the order of keys outside the Unicode BMP:

    >>> canonical_json({"b": 1.0, "a": 1e-5}), canonical_json({"b": 1.0, "a": 1e-5}, 1)
    (b'{"a":0.00001,"b":1}', b'{"a":1e-05,"b":1.0}')

Nobody can choose the version of a document that exists: the version is part of what is hashed or signed, so the same
value under another version has another hash, and no signature. Within one version equal bytes mean equal values, since
the bytes read back as the value (in version 2, 1 and 1.0 are the same value).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import Any, Literal

import rfc8785

from privacy.errors import InvalidInput

Json = dict[str, Any] | list[Any] | str | int | float | bool | None
CanonicalVersion = Literal[1, 2]

NEWEST: CanonicalVersion = 2
"""The version of every new document; a document that states none is of version 1."""

_TOO_DEEP = "expected JSON of a few levels, got values within values without end"
LARGEST_INTEGER = 2**53 - 1
"""The largest integer of version 2: beyond it a JSON reader with doubles no longer tells neighbours apart."""


def canonical_json(value: Json | Mapping[str, Any], version: CanonicalVersion = NEWEST) -> bytes:
    """Return the canonical JSON bytes of ``value``.

    ``canonical_json({"b": 1, "a": [True, None]})`` is ``b'{"a":[true,null],"b":1}'``.

    Args:
        value: nested mappings with string keys, lists or tuples, strings, ints, finite floats, booleans, None.
        version: see above.

    Raises:
        InvalidInput: a value that JSON cannot carry, a key that is not a string, a float that is not finite, text with
            half of a surrogate pair, or in version 2 an integer that a double cannot carry.
    """
    if version == 1:
        return plain_json(value)
    try:
        return _quickly(value)
    except _UncommonError:
        pass  # keys beyond ASCII, say: the library sorts them
    except UnicodeEncodeError as error:
        raise InvalidInput("expected text that UTF-8 can carry, got half of a surrogate pair") from error
    try:
        return rfc8785.dumps(_checked(value, _double))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise InvalidInput("expected text that UTF-8 can carry, got half of a surrogate pair") from error
    except RecursionError as error:
        raise InvalidInput(_TOO_DEEP) from error


def plain_json(value: Json | Mapping[str, Any], *, checked: bool = False) -> bytes:
    """Return ``value`` as JSON for a file, a database or the wire.

    Reading it back gives the very same value: 1.0 stays apart from 1, so that documents of both versions keep their
    hashes and signatures on the way. Raises as :func:`canonical_json`.

    ``checked`` says that all keys are known to be text, as of what has canonical JSON or came from JSON; then it is not
    read back.
    """
    if type(value) is dict:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            text = _dumped(value)
            if checked or json.loads(text) == value:
                return text  # else a key is no text, say: Python would have written one all the same
    try:
        return _dumped(_checked(value))
    except UnicodeEncodeError as error:
        raise InvalidInput("expected text that UTF-8 can carry, got half of a surrogate pair") from error
    except RecursionError as error:
        raise InvalidInput(_TOO_DEEP) from error


def canonical_hash(value: Json | Mapping[str, Any], version: CanonicalVersion = NEWEST) -> str:
    """Return the SHA-256 of the canonical JSON of ``value`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(canonical_json(value, version)).hexdigest()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _dumped(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class _UncommonError(Exception):  # never leaves this module
    pass


class _ExponentError(_UncommonError):
    pass


def _quickly(value: object) -> bytes:
    """Return the RFC 8785 bytes of what messages usually hold, in a fifth of the library's time.

    A test compares both on random values.

    Raises:
        _UncommonError: the library has to write it, or to refuse it.
    """
    try:
        return _dumped(_common(value))
    except _ExponentError:
        return _written(value).encode()


def _common(value: object) -> Any:
    """Return ``value`` such that Python's own JSON of it is RFC 8785's.

    Both write strings alike, and integers. Keys of ASCII have one order. Floats without an exponent have the same
    digits; only 1.0 is 1.

    Raises:
        _ExponentError: a float that Python writes with an exponent.
        _UncommonError: for everything else, also for what is no JSON.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if isinstance(value, int) and kind is int and -LARGEST_INTEGER <= value <= LARGEST_INTEGER:
        return value
    if isinstance(value, float) and kind is float and math.isfinite(value):
        if value.is_integer():
            return _common(int(value))
        if "e" in repr(value):
            raise _ExponentError
        return value
    if isinstance(value, dict) and kind is dict and all(type(key) is str and key.isascii() for key in value):
        return {key: item if type(item) is str else _common(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [item if type(item) is str else _common(item) for item in value]
    raise _UncommonError


def _written(value: object) -> str:
    """Write what :func:`_common` takes, and floats with an exponent, piece by piece."""
    kind = type(value)
    if isinstance(value, str) and kind is str:
        return encode_basestring(value)
    if isinstance(value, float) and kind is float and math.isfinite(value):
        return rfc8785.dumps(value).decode()
    if isinstance(value, dict) and kind is dict and all(type(key) is str and key.isascii() for key in value):
        return "{" + ",".join([f"{encode_basestring(key)}:{_written(value[key])}" for key in sorted(value)]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([_written(item) for item in value]) + "]"
    return json.dumps(_common(value))


def _checked(value: object, integer: Callable[[int], int | float] | None = None) -> Any:
    """Return ``value`` with plain dictionaries and lists, or refuse what JSON cannot carry.

    Args:
        integer: what to write for an integer; None: itself.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if integer is None else integer(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput("expected a finite number for canonical JSON, got NaN or an infinity")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(f"expected string keys for canonical JSON, got a {type(key).__name__}")
        return {key: _checked(item, integer) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_checked(item, integer) for item in value]
    raise InvalidInput(f"canonical JSON cannot carry a {type(value).__name__}")


def _double(value: int) -> int | float:
    """Return an integer beyond 2**53 - 1 as the double that is written with the same digits.

    Such integers come from reading JSON: 1e16 is written ``10000000000000000``.
    """
    if abs(value) <= LARGEST_INTEGER:
        return value
    if abs(value) < 10**21 and rfc8785.dumps(float(value)) == str(value).encode():
        return float(value)
    raise InvalidInput("expected an integer of at most 2**53 - 1; send a larger one as a string of its digits")
