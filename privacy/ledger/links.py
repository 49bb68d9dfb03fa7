"""What links the entries of a chain: the hash over each one and the one before it, and the key that signed it.

A chain begins with its owner's first key. The owner may change it: an entry :data:`ROTATED`, signed with the old key
like any other, names the new one, and every later entry is signed with that.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from privacy.canonical import NEWEST, CanonicalVersion, canonical_hash, canonical_json
from privacy.errors import InvalidInput, Tampered
from privacy.identity import check_public_key, verify

Purpose = Literal["journal", "ledger"]
ROTATED = "key-rotated"
"""Kind of the entry by which the owner's key becomes another; its body says the new one as ``new_key``."""
Row = Sequence[Any]
"""An entry as it lies in the table: number, kind, body as text, time, previous hash, hash, signature."""


def case_hash(secret: bytes, case_id: str, *, spelled: bool = True) -> str:
    """Return the keyed hash (HMAC-SHA256, 128 bits) by which a ledger knows a patient; the key stays at the owner.

    ``spelled`` false: of an id without what makes no other patient, which joins budgets (never equal to the other).
    """
    what = b"case/" if spelled else b"spelling/"
    return hmac.new(secret, b"tessera/v1/" + what + case_id.encode(), hashlib.sha256).hexdigest()[:32]


def genesis(purpose: Purpose, public_key: str) -> str:
    """Return the hash that the first entry of an owner's chain points back to."""
    return canonical_hash({"chain": purpose, "owner": public_key}, 1)


def entry_hash(header: Mapping[str, Any], version: CanonicalVersion = NEWEST) -> str:
    """Return the hash of an entry: everything in it but the signature, and the version (not stated where it is 1)."""
    return canonical_hash(header if version == 1 else {**header, "canonical": version}, version)


def header(purpose: str, index: int, kind: str, body: Any, at: str, previous_hash: str) -> dict[str, Any]:
    """Return what the hash of an entry covers."""
    return {"chain": purpose, "index": index, "kind": kind, "body": body, "at": at, "previous_hash": previous_hash}


def _version(header: Mapping[str, Any], digest: str) -> CanonicalVersion | None:
    """Return the version under which an entry has this hash, None if there is none."""
    with contextlib.suppress(InvalidInput):  # version 2 refuses integers that version 1 takes
        if entry_hash(header) == digest:
            return NEWEST
    return 1 if entry_hash(header, 1) == digest else None


def problems(
    rows: Iterable[Row], purpose: Purpose, public_key: str, *, after: tuple[int, str, str] | None = None
) -> Iterator[str]:
    """Yield everything that does not hold in the rows of a chain, in order; nothing when it is whole.

    ``after`` is number, hash and time of the entry that they follow; None begins the chain. ``public_key`` is the
    owner's key there.
    """
    number, previous, last = after or (0, genesis(purpose, public_key), "")
    for expected, row in enumerate(rows, start=number + 1):
        index, kind, text, at, claimed_previous, digest, signature = row
        where = f"entry {expected}"
        try:
            if index != expected:
                yield f"{where}: numbered {index}"
            if claimed_previous != previous:
                yield f"{where}: does not follow the entry before it"
            body = json.loads(text)
            version = _version(header(purpose, index, kind, body, at, claimed_previous), digest)
            if version is None:
                yield f"{where}: its hash does not fit its content"
            if canonical_json(body, version or NEWEST).decode() != text:
                yield f"{where}: its body is not in canonical form"
            if at <= last or written_time(read_time(at)) != at:
                yield f"{where}: its time is malformed or not later than the entry before it"
            if base64.b64encode(base64.b64decode(signature, validate=True)).decode() != signature:
                yield f"{where}: its signature is not in canonical form"
            verify(public_key, f"{purpose}-entry", {"index": index, "hash": digest}, signature, 1)
            if kind == ROTATED:
                public_key = new_key(body)
        except Tampered:
            yield f"{where}: its signature does not hold"
        except (InvalidInput, ValueError, TypeError, binascii.Error, RecursionError):
            yield f"{where}: malformed"
        previous, last = str(digest), str(at)


def written_time(moment: datetime) -> str:
    """Return a moment as entries say it: UTC with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read_time(text: str) -> datetime:
    """Return the moment that an entry says."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def new_key(body: Mapping[str, Any]) -> str:
    """Return the key that an entry :data:`ROTATED` names.

    Raises:
        InvalidInput: it names none.
    """
    found = body.get("new_key") if isinstance(body, Mapping) else None
    if not isinstance(found, str):
        raise InvalidInput("expected the new key in new_key")
    check_public_key(found)
    return found
