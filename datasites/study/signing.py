"""Messages as frozen values: to JSON and back, signed, and packed together with the bytes they speak of.

Every message is a :class:`Message`: an unknown field, a missing field or a wrong type is refused when it is parsed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import marshal
import math
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from privacy.canonical import NEWEST, CanonicalVersion, plain_json
from privacy.errors import InvalidInput
from privacy.identity import Identity, verify

_HEADER_LIMIT_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Message:
    """A value that is checked when it is parsed: no unknown field, no missing field, no wrong type."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True)
class Signed(Message):
    """A message, the key that signed it and the signature (see :func:`seal` and :func:`open_sealed`).

    ``canonical`` is the version of the canonical JSON that was signed (:mod:`privacy.canonical`); the signature holds
    under no other.
    """

    kind: str
    payload: Mapping[str, Any]
    public_key: str
    signature: str
    canonical: CanonicalVersion = 1


def pack_envelope(signed: Signed, body: bytes) -> bytes:
    """Return one byte string that carries both: a 4-byte big-endian length, the message as JSON, then ``body``."""
    header = plain_json(dump(signed), checked=True)
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


def dump(value: Any) -> dict[str, Any]:
    """Return a frozen value as nested dictionaries and lists, ready for canonical JSON.

    ``canonical`` and ``protocol`` are left out where they are 1: a document that states no version is of version 1. So
    is what came later (:data:`_ADDED`) where it says nothing, so that documents of studies without it stay what they
    were.
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise InvalidInput(f"expected a frozen value, got a {type(value).__name__}")
    plain: dict[str, Any] = _plain(value)
    return plain


_ADDED = frozenset(
    {"helpers", "published", "helper_pads", "seed_hashes", "wants", "filing", "replaces", "conditions", "scored_apart"}
    | {"full_name", "function", "titled", "pad_key_hash", "files_hash", "fresh", "self_scaled"}
    | {"pad_tags", "pad_commitments", "salt", "release", "data_code", "data_lock", "data_files"}
    | {"scientist", "scientists", "calibration", "begun", "handovers"}
    | {"evaluated_alone", "evaluated_by_pattern", "own_evaluation"}
)
"""Fields that came later; empty, they are left out of a document."""
_VERSIONS = frozenset({"canonical", "protocol"})
_UNSAID = frozenset({"predicts", "typical", "spread", "gain", "patience"})
"""Fields that came later and may be 0; null, they are left out of a document."""


def _says_nothing(name: str, value: Any) -> bool:
    return (name in _VERSIONS and value == 1) or (name in _ADDED and not value) or (name in _UNSAID and value is None)


def _plain(value: Any) -> Any:
    """Return what reading back the JSON of ``value`` would give."""
    if value is None or type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InvalidInput("expected string keys for canonical JSON")
        return {str(key): _plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((name, getattr(value, name)) for name in _names(type(value)))
        return {name: _plain(item) for name, item in pairs if not _says_nothing(name, item)}
    return json.loads(plain_json(value))


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(sorted(field.name for field in dataclasses.fields(kind)))


def parse(kind: type[T], data: Any) -> T:
    """Read ``data`` (nested dictionaries) as the frozen value ``kind``; unknown fields are refused.

    Raises:
        InvalidInput: a field is missing, unknown or of the wrong type; the message names the first one.
    """
    return _read(kind, data if isinstance(data, bytes) else plain_json(data))


def _read(kind: type[T], text: bytes) -> T:
    try:
        value: T = _adapter(kind).validate_json(text)
        return value
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        signed = isinstance(kind, type) and issubclass(kind, Message)
        newer = [one for one in found if signed and _may_be_newer(one["type"], one["loc"])]
        first = (newer or found)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the value"
        hint = (
            "; if a newer release of Tessera made it, upgrade Tessera here (`tessera upgrade --check` from the new "
            "release says what will happen)"
        )
        raise InvalidInput(f"not a valid {kind.__name__}: {where}: {first['msg']}{hint if newer else ''}") from error


def _may_be_newer(kind: str, place: tuple[int | str, ...]) -> bool:
    """Return whether a later release may have written what is refused: an unknown field, or an unknown version."""
    return kind in ("extra_forbidden", "unexpected_keyword_argument") or (
        kind == "literal_error" and place[-1:] in (("protocol",), ("canonical",))
    )


def seal(identity: Identity, kind: str, value: Any) -> Signed:
    """Sign a frozen value for the purpose ``kind``."""
    payload = dump(value)
    signature = identity.sign(kind, payload, NEWEST)
    return Signed(kind=kind, payload=payload, public_key=identity.public_key, signature=signature, canonical=NEWEST)


def open_sealed(
    signed: Signed, kind: str, public_key: str | Collection[str], expected: type[T], *, since: CanonicalVersion = 1
) -> T:
    """Check who signed ``signed`` and for what, and return the value inside.

    Args:
        public_key: the signer's; or several, for what its author may have signed before its key changed.
        since: the oldest version of canonical JSON that counts; for a message of a study the version of its proposal.

    Raises:
        InvalidInput: another kind, another signer, an older version or a malformed payload.
        Tampered: the signature does not hold.
    """
    if signed.kind != kind:
        raise InvalidInput(f"expected a signed {kind}, got a signed {signed.kind[:40]}")
    if signed.public_key not in ((public_key,) if isinstance(public_key, str) else public_key):
        raise InvalidInput(f"the signed {kind} carries another key than the one expected here")
    if signed.canonical < since:
        raise InvalidInput(f"expected a {kind} signed as canonical JSON of version {since}, got {signed.canonical}")
    place, size = _place(signed, expected)
    value: T | None = _CHECKED.find(place)
    if value is None:
        verify(signed.public_key, kind, signed.payload, signed.signature, signed.canonical)
        value = _read(expected, plain_json(dict(signed.payload), checked=True))
        _CHECKED.keep(place, value, size)
    return value


def value_in(signed: Signed, expected: type[T]) -> T:
    """Return the value in a document whose signature was checked before, here or by whoever keeps it.

    Raises:
        InvalidInput: a malformed payload.
    """
    value: T | None = _CHECKED.find(_place(signed, expected)[0])
    return parse(expected, dict(signed.payload)) if value is None else value


def _place(signed: Signed, expected: Any) -> tuple[Any, int]:
    """Return what makes a document the same as another one, and how many bytes its payload has.

    Serialised by ``marshal`` (version 0, without references), 1, 1.0 and true differ, and no two values are alike.
    """
    try:
        plain = marshal.dumps(dict(signed.payload), 0)
    except ValueError:  # a mapping of another kind, say
        plain = plain_json(signed.payload)
    digest = hashlib.sha256(plain).digest()
    return (signed.kind, signed.public_key, signed.signature, signed.canonical, expected, digest), len(plain)


class _Checked:
    """Values whose signatures were checked in this process, so that no document is checked over and over.

    The headers of a list come to a hospital three times in a round, and to keyholder and helpers twice. The same
    document has the same kind, key, signature and version, and the same payload to the byte. The oldest ones go where
    all payloads together are longer than ``most_bytes``.
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, place: Any) -> Any:
        """Return a value that was checked before, or None."""
        with self._lock:
            found = self._kept.get(place)
            if found is None:
                return None
            self._kept.move_to_end(place)
            return found[0]

    def keep(self, place: Any, value: Any, size: int) -> None:
        """Keep a value that was just checked, of a payload of ``size`` bytes."""
        with self._lock:
            if place not in self._kept:
                self._kept[place] = value, size
                self._left -= size
            while self._left < 0:
                _, (_, old) = self._kept.popitem(last=False)
                self._left += old


_CHECKED = _Checked(4 << 20)

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
