"""Throw mutated uploads at the checks that stand before the sum; run as a process by test_container.

Every mutant must be refused by the structure check or change the linear tag; of those that keep the structure some are
added to an honest sum and decrypted, which must be refused as a whole. Prints what happened as one JSON object.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter

import numpy as np

from privacy.encryption import ciphertexts, ckks, tags
from privacy.encryption.ciphertexts import RunningSum
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput, UnsafeSum

PARAMETERS = choose_parameters(sites=4, levels=512, length=100)
COUNTS = {"shared": 1}
CHALLENGE = tags.challenges("1" * 64, "2" * 64)


def mutate(body: bytes, other: bytes, dice: random.Random) -> bytes:
    mutant = bytearray(body)
    position = dice.randrange(len(mutant))
    kind = dice.randrange(9)
    if kind == 0:
        mutant[position] ^= 1 << dice.randrange(8)
    elif kind == 1:
        del mutant[position:]
    elif kind == 2:
        mutant[position:position] = dice.randbytes(dice.choice((1, 8, 4096)))
    elif kind == 3:
        span = dice.choice((1, 8, 64, 32768))
        mutant[position : position + span] = dice.randbytes(len(mutant[position : position + span]))
    elif kind == 4:
        mutant[16:] = dice.choice((b"\0", b"\xff", b"\x01", b"\x80")) * (len(mutant) - 16)
    elif kind == 5:
        start = 16 + 8 * dice.randrange(8192)
        value = dice.choice((0, 1, PARAMETERS.data_prime, PARAMETERS.data_prime - 1, 2**64 - 1, 2**63))
        mutant[start : start + 8] = value.to_bytes(8, "little")
    elif kind == 6:
        cut = 16 + 8 * dice.randrange(1, 8191)
        mutant[16:] = mutant[cut:] + mutant[16:cut]
    elif kind == 7:
        cut = 16 + 8 * dice.randrange(1, 8191)
        mutant[cut:] = other[cut:]
    else:
        mutant = bytearray(dice.choice((b"", body * 2, body[16:], other[:16], b"\x0a\x00" + body)))
    return bytes(mutant)


def main(tries: int) -> None:
    dice = random.Random(7)  # noqa: S311 - a repeatable fuzz, not a secret
    pair = ckks.generate_round_key(PARAMETERS)
    updates = [ckks.encrypt(pair.public, PARAMETERS, np.full(100, k)) for k in range(4)]
    body, other = ciphertexts.pack({"shared": updates[0]}), ciphertexts.pack({"shared": updates[1]})
    honest = tags.tag({"shared": updates[0]}, CHALLENGE, PARAMETERS)
    seen: Counter[str] = Counter()
    while seen["tried"] < tries:
        mutant = mutate(body, other, dice)
        if mutant == body:
            continue
        seen["tried"] += 1
        try:
            blocks = ciphertexts.unpack(mutant, COUNTS, PARAMETERS)
        except InvalidInput:
            seen["refused"] += 1
            continue
        seen["tag_differs"] += tags.tag(blocks, CHALLENGE, PARAMETERS) != honest
        if seen["tag_differs"] % 50 == 0:
            seen["sums_tried"] += 1
            seen["sums_refused"] += sum_is_refused(pair.secret, updates[1:], blocks["shared"])
    print(json.dumps(seen))


def sum_is_refused(secret: bytes, honest: list[list[bytes]], mutant: list[bytes]) -> bool:
    running = RunningSum(PARAMETERS, ciphertexts=1)
    for update in [*honest, mutant]:
        running.add(update)
    try:
        ckks.decrypt_sum(secret, PARAMETERS, running.to_ciphertexts(), values=100, contributors=4)
    except UnsafeSum:
        return True
    return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
