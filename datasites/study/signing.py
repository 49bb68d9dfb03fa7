"""A signed message and the bytes it speaks of, in one body: 4-byte big-endian length, JSON, then the bytes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from privacy.canonical import canonical_json
from privacy.errors import InvalidInput
from privacy.identity import Identity, verify

_HEADER_LIMIT_BYTES = 1 << 20


def pack_envelope(signed: Signed, body: bytes) -> bytes:
    """Return one byte string that carries both."""
    header = canonical_json(dump(signed))
    return len(header).to_bytes(4, "big") + header + body


def unpack_envelope(data: bytes) -> tuple[Signed, bytes]:
    """Split what :func:`pack_envelope` made.

    Raises:
        InvalidInput: too short, a header above 1 MiB, or a header that is no signed message.
    """
    if len(data) < 4:
        raise InvalidInput(f"expected a signed header and a body, got {len(data)} bytes")
    length = int.from_bytes(data[:4], "big")
    if length > _HEADER_LIMIT_BYTES or length > len(data) - 4:
        raise InvalidInput(f"expected a header of at most {_HEADER_LIMIT_BYTES} bytes inside the body, got {length}")
    return parse(Signed, data[4 : 4 + length]), data[4 + length :]


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A message, the key that signed it and the signature (see :func:`seal` and :func:`open_sealed`)."""

    kind: str
    payload: Mapping[str, Any]
    public_key: str
    signature: str


class Strict:
    """A frozen dataclass that :func:`parse` reads without converting types; unknown fields are refused."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


def dump(value: Any) -> dict[str, Any]:
    """Return a frozen value as nested dictionaries and lists, ready for canonical JSON."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(value))
    return plain


def parse(kind: type[T], data: Any) -> T:
    """Read ``data`` (nested dictionaries) as the frozen value ``kind``; unknown fields are refused.

    Raises:
        InvalidInput: a field is missing, unknown or of the wrong type; the message names the first one.
    """
    try:
        value: T = _adapter(kind).validate_json(data if isinstance(data, bytes) else canonical_json(data))
        return value
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the value"
        raise InvalidInput(f"not a valid {kind.__name__}: {where}: {first['msg']}") from error


def seal(identity: Identity, kind: str, value: Any) -> Signed:
    """Sign a frozen value for the purpose ``kind``."""
    payload = dump(value)
    return Signed(kind=kind, payload=payload, public_key=identity.public_key, signature=identity.sign(kind, payload))


def open_sealed(signed: Signed, kind: str, public_key: str, expected: type[T]) -> T:
    """Check who signed ``signed`` and for what, and return the value inside.

    Raises:
        InvalidInput: another kind, another signer or a malformed payload.
        Tampered: the signature does not hold.
    """
    if signed.kind != kind:
        raise InvalidInput(f"expected a signed {kind}, got a signed {signed.kind[:40]}")
    if signed.public_key != public_key:
        raise InvalidInput(f"the signed {kind} carries another key than the one expected here")
    verify(public_key, kind, signed.payload, signed.signature)
    return parse(expected, dict(signed.payload))


def _plain(value: Any) -> Any:
    return json.loads(canonical_json(value))  # tuples become lists, mappings plain dictionaries


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
