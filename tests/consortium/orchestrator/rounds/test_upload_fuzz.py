"""Mutated uploads against the live service: no crash, nothing unsigned accepted, and an exact sum in spite of all."""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from harness.consortium import LEVELS, Consortium, steps_of
from support.forgery import Forger, asked, transparent, with_coefficient

from datasites.study.messages import UpdateHeader
from datasites.study.signing import open_sealed, unpack_envelope
from privacy.errors import TesseraError
from privacy.identity import Identity

SITES, LENGTH, THREADS = 3, 3000, 3
STRANGER = Identity.from_seed(b"x" * 32)


@pytest.fixture(scope="module")
def consortium(running: Consortium) -> Consortium:
    return running.among(SITES)


class Fuzzer:
    """Makes and sends mutants of one honest upload, all of which must be refused."""

    def __init__(self, forger: Forger, other: Forger, seed: int) -> None:
        self.forger, self.dice = forger, random.Random(seed)  # noqa: S311 - a repeatable fuzz, not a secret
        self.blocks = forger.ciphertexts()
        self.good, self.foreign = forger.envelope(self.blocks), other.envelope(other.ciphertexts())
        self.variants = [forger.envelope({"shared": [bad(self.blocks["shared"][0])]}) for bad in self.malformed()]
        host, port = forger.hospital.url.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=120)
        self.seen: Counter[int] = Counter()

    def malformed(self) -> list:
        prime = self.forger.proposal.encryption.data_prime
        positions = [self.dice.randrange(8192) for _ in range(6)]
        high = [lambda c, p=p, v=v: with_coefficient(c, p, v) for p in positions for v in (prime, 2**63, 2**64 - 1)]
        return [transparent, *high]

    def mutant(self) -> bytes:
        dice, data = self.dice, bytearray(self.good)
        header = 4 + int.from_bytes(self.good[:4], "big")
        where = dice.randrange(header if dice.random() < 0.6 else len(data))
        kind = dice.randrange(8)
        if kind == 0:
            data[where] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del data[where:]
        elif kind == 2:
            data[where:where] = dice.randbytes(dice.choice((1, 8, 4096)))
        elif kind == 3:
            data[where : where + 8] = dice.randbytes(len(data[where : where + 8]))
        elif kind == 4:
            data[:4] = dice.choice((0, 1, header, len(data), 2**31, 2**32 - 1)).to_bytes(4, "big")
        elif kind == 5:
            data = bytearray(self.foreign[:where] + self.good[where:])
        elif kind == 6:
            data = bytearray(dice.choice((b"", self.good[header:], self.good * 2, self.foreign, dice.randbytes(500))))
        else:
            data = bytearray(dice.choice(self.variants))
        return bytes(data)

    def token(self, data: bytes) -> str | None:
        chance = self.dice.random()
        if chance < 0.03:
            return None
        if chance < 0.06:
            return self.forger.token(data, signer=STRANGER)
        if chance < 0.09:
            token = self.forger.token(data)
            cut = self.dice.randrange(len(token))
            return token[:cut] + self.dice.choice("abcXYZ019-_") + token[cut + 1 :]
        return self.forger.token(data)

    def is_genuine(self, data: bytes) -> bool:
        """Tell whether a mutant still says what the hospital signed (unused bits of base64, say)."""
        try:
            signed, body = unpack_envelope(data)
            header = open_sealed(signed, "update", self.forger.identity.public_key, UpdateHeader)
            return (
                replace(header, blocks=()) == replace(self.forger.header(body), blocks=()) and data not in self.variants
            )
        except TesseraError:
            return False

    def run(self, tries: int) -> None:
        while sum(self.seen.values()) < tries:
            data = self.mutant()
            if self.is_genuine(data):
                continue
            token = self.token(data)
            self.seen[self.send(data, token)] += 1
        self.connection.close()

    def send(self, data: bytes, token: str | None) -> int:
        try:
            self.connection.request("PUT", self.forger.path, data, {} if token is None else {"Authorization": token})
            answer = self.connection.getresponse()
            text = answer.read()
        except (ConnectionError, http.client.HTTPException):
            self.connection.close()
            return 0  # refused before it was read
        if answer.status != 200 and b'"detail"' not in text:
            raise AssertionError(f"status {answer.status} without a problem document")
        return answer.status


@pytest.mark.parametrize("tries", [600, pytest.param(10_000, marks=pytest.mark.thorough)])
def test_no_mutated_upload_is_accepted_or_does_harm(consortium: Consortium, tries: int) -> None:
    proposal = consortium.propose(f"fuzz-{tries}", length=LENGTH, deadline_seconds=600)
    forgers = []
    for index, hospital in enumerate(consortium.hospitals):
        item = asked(hospital, "train", proposal.study)
        forgers.append(Forger(hospital=hospital, index=index, proposal=proposal, item=item))
    fuzzers = [Fuzzer(forgers[i], forgers[(i + 1) % SITES], seed=i) for i in range(THREADS)]
    pid = consortium.pid("orchestrator")
    threads = [threading.Thread(target=f.run, args=(tries // THREADS + 1,)) for f in fuzzers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = sum((f.seen for f in fuzzers), Counter())
    assert sum(seen.values()) >= tries
    assert set(seen) <= {0, 400, 403} and seen[0] < tries / 100, seen
    consortium.processes.check()
    assert consortium.pid("orchestrator") == pid
    with consortium.working():
        status = consortium.wait(proposal.study, "finished")
    expected = sum(steps_of(i, "shared", LENGTH) for i in range(SITES)) / LEVELS / SITES
    np.testing.assert_allclose(consortium.model(status)["shared"], expected, atol=1e-6)
