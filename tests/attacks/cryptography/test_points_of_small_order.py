"""Keys that are no secret: points of small order and second spellings of points, as Ed25519 and as X25519 keys.

Played: the identity, whose one signature holds for every message; every other point of small order, found here by
arithmetic of its own; non-canonical spellings; a roster, a party file and a sealed pad with such keys.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from datasites.node.consortium import read_party
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from privacy.encryption import pads
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.identity import Identity, check_public_key, fingerprint, verify
from privacy.points import require_ed25519, require_x25519

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
A = 486662


def encoded(value: int) -> bytes:
    return value.to_bytes(32, "little")


def add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    """Return the sum of two points of -x^2 + y^2 = 1 + d x^2 y^2."""
    (x1, y1), (x2, y2) = one, two
    product = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def root(square: int) -> int | None:
    found = pow(square, (P + 3) // 8, P)
    for candidate in (found, found * pow(2, (P - 1) // 4, P) % P):
        if candidate * candidate % P == square % P:
            return candidate
    return None


def edwards_torsion() -> set[tuple[int, int]]:
    """Return all points whose order divides 8: what L times a random point is, L the order of the prime subgroup."""
    order, found, y = 2**252 + 27742317777372353535851937790883648493, {(0, 1)}, 2
    while len(found) < 8:
        x = root((y * y - 1) * pow(D * y * y + 1, -1, P) % P)
        if x is not None:
            point, total = (x, y), (0, 1)
            for bit in bin(order)[2:]:
                total = add(total, total)
                if bit == "1":
                    total = add(total, point)
            for _ in range(8):
                found.add(total)
                total = add(total, add(total, total))
        y += 1
    return found


TORSION = sorted(edwards_torsion())
SMALL = [encoded(y | (x & 1) << 255) for x, y in TORSION]
SECOND_SPELLINGS = [
    *(encoded((y + P) | sign << 255) for y in range(19) for sign in (0, 1) if y + P < 1 << 255),
    *(encoded(y | 1 << 255) for y in (1, P - 1)),  # minus zero
]


def test_there_are_eight_points_of_small_order() -> None:
    assert len(set(SMALL)) == 8


def test_one_signature_by_the_identity_holds_for_every_message_in_the_library_and_for_none_here() -> None:
    signature = bytes([1]) + bytes(63)
    for message in (b"approve", b"anything else"):
        Ed25519PublicKey.from_public_bytes(SMALL[SMALL.index(encoded(1))]).verify(signature, message)
    with pytest.raises(InvalidInput, match="small order"):
        verify(encoded(1).hex(), "approval", {}, base64.b64encode(signature).decode())


@pytest.mark.parametrize("raw", [*SMALL, *SECOND_SPELLINGS], ids=lambda raw: raw.hex()[:8] + raw.hex()[-4:])
def test_no_such_key_verifies_has_a_fingerprint_or_is_kept(raw: bytes, tmp_path: Path) -> None:
    key = raw.hex()
    for use in (check_public_key, fingerprint, lambda k: verify(k, "kind", {}, base64.b64encode(bytes(64)).decode())):
        with pytest.raises(InvalidInput):
            use(key)
    party = Party(name="alba", institution="Hospital Alba", public_key=key)
    (tmp_path / "alba.json").write_text(json.dumps({"role": "datasite", **asdict(party)}))
    with pytest.raises(InvalidInput):
        read_party(tmp_path / "alba.json")
    honest = [
        Party(name=name, institution=name, public_key=Identity.from_seed(name.encode() * 16).public_key)
        for name in ("aa", "bb")
    ]
    Roster(orchestrator=honest[0], keyholder=honest[1], sites=(party,)).save(tmp_path / "roster.json")
    with pytest.raises(InvalidInput):
        Roster.load(tmp_path / "roster.json")


def test_honest_keys_are_kept_and_what_is_no_point_is_not() -> None:
    for seed in range(32):
        require_ed25519(bytes.fromhex(Identity.from_seed(bytes([seed]) * 32).public_key))
    beside = next(y for y in range(2, 99) if root((y * y - 1) * pow(D * y * y + 1, -1, P) % P) is None)
    with pytest.raises(InvalidInput, match="expected 32 bytes"):
        require_ed25519(encoded(beside))


def montgomery_small() -> set[int]:
    """Return the u of all points of small order on Curve25519 and its twist, from the doubling formula alone."""
    small = {0}
    for target in (1, P - 1):  # points of order 4 double to 0; those of order 8 double to these
        small.add(target)
    # u of order 8: (u^2 - 1)^2 = 4 t u (u^2 + A u + 1) for t = 1, where the left minus the right is a square of squares
    for sign in (1, -1):
        inner = root((A + 2) * 4) if sign == 1 else None
        if inner is not None:
            for part in (inner, -inner):
                half = (2 + part) % P
                for branch in (1, -1):
                    square = root(half * half * pow(4, -1, P) - 1)
                    if square is not None:
                        small.add((half * pow(2, -1, P) + branch * square) % P)
    return small


SMALL_U = [0, 1, P - 1, *sorted(u for u in montgomery_small() if u > 1 and u < P - 1)]


@pytest.mark.parametrize("u", [*SMALL_U, *range(P, 1 << 255), 1 << 255, (1 << 255) + 9], ids=lambda u: f"{u % 997}")
def test_no_pad_is_sealed_to_such_a_key(u: int) -> None:
    label = pads.PadLabel(study="s", round=1, plan_hash="0" * 64, site="alba")
    with pytest.raises(InvalidInput, match="X25519"):
        pads.seal_seed(bytes(32), encoded(u).hex(), label)


def test_the_points_of_order_eight_are_among_them() -> None:
    assert len(SMALL_U) == 5
    for u in SMALL_U:
        with pytest.raises(InvalidInput, match="small order"):
            require_x25519(encoded(u))


@pytest.mark.parametrize("hybrid", [False, True])
def test_no_pad_opens_that_was_sealed_by_such_a_key(hybrid: bool) -> None:
    label = pads.PadLabel(study="s", round=1, plan_hash="0" * 64, site="alba")
    pair = pads.generate_pad_key(hybrid=hybrid)
    sealed = bytes.fromhex(pads.seal_seed(bytes(32), pair.public, label))
    place = 1088 if hybrid else 0
    for u in SMALL_U:
        with pytest.raises(TesseraError) as caught:
            changed = sealed[:place] + encoded(u) + sealed[place + 32 :]
            pads.open_seed(changed.hex(), pair.private, label)
        assert isinstance(caught.value, (Refused, InvalidInput))
    assert pads.open_seed(sealed.hex(), pair.private, label) == bytes(32)
    require_x25519(X25519PrivateKey.generate().public_key().public_bytes_raw())
