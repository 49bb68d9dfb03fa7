"""Orchestrator and keyholder guess one hospital's whole update, and test the guess against a commitment to a pad sum.

Played on the real functions: a round key whose secret is 0, so that the first polynomial of a ciphertext is the
plaintext itself and a guess of the update gives it exactly; a list that was declared void after its hospitals signed
it; and a later list, without the hospital, whose pad sums and salts are published. Before commitments were salted, the
right guess fitted the void list's commitment to part 3, and one with a single value off by one did not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.helped import ALL, H, HelpedStage, J

from datasites.study.messages import PadCommitment, PadSums
from datasites.study.signing import Signed, parse, seal
from privacy.encryption import ckks, pad_tags, round_keys, shares
from privacy.encryption.parameters import choose_parameters

PARAMETERS = choose_parameters(sites=9, levels=512, length=1)
Q, DEGREE = PARAMETERS.data_prime, PARAMETERS.poly_modulus_degree
VICTIM, OTHERS = "d", ("a", "b", "c")
VOID_LIST, OTHER_LIST = "1" * 64, "2" * 64
COUNTS = {"m": 1}


def weak_key() -> bytes:
    """A key that hospitals accept: its random part follows from the hash, its secret is 0 and its error 1."""
    part = round_keys.expanded(PARAMETERS, "ab" * 32, 1)
    b = np.stack([np.full(DEGREE, prime - 1, np.uint64) for prime in PARAMETERS.primes])
    return np.stack([b, part]).astype("<u8").tobytes()


class Guessing:
    """What orchestrator and keyholder know after a void, and how a guess is tested."""

    def __init__(self, *, salted: bool) -> None:
        rng = np.random.default_rng(7)
        self.key = weak_key()
        round_keys.require_random_part(self.key, round_keys.expanded(PARAMETERS, "ab" * 32, 1))
        sites = (*OTHERS, VICTIM)
        self.update = rng.integers(-512, 513, 200)
        updates = {site: rng.integers(-512, 513, 200) for site in OTHERS} | {VICTIM: self.update}
        self.seeds = {site: shares.new_seeds() for site in sites}
        self.rows = {site: shares.pad_rows(self.seeds[site], COUNTS, PARAMETERS) for site in sites}
        self.sent = {
            site: shares.pad_all({"m": ckks.encrypt(self.key, PARAMETERS, updates[site])}, self.rows[site], PARAMETERS)
            for site in sites
        }
        threes = [self.seeds[site][2] for site in sites]
        masks = pad_tags.masks_of(threes, 3, VOID_LIST, PARAMETERS)
        salt = pad_tags.salt_of(threes, 3, VOID_LIST) if salted else b""
        self.commitment = pad_tags.commitment(3, VOID_LIST, self.total(sites), masks, salt)
        self.challenge = pad_tags.pad_challenge(VOID_LIST, "5" * 64, "6" * 64)
        self.tags = [
            pad_tags.pad_tag(self.rows[s][3], self.seeds[s][2], 3, VOID_LIST, self.challenge, PARAMETERS) for s in sites
        ]
        self.published = self.total(OTHERS)["m"][0].astype(object)
        self.published_salt = pad_tags.salt_of([self.seeds[s][2] for s in OTHERS], 3, OTHER_LIST)

    def total(self, sites: tuple[str, ...]) -> shares.PartSum:
        return shares.part_sum({s: self.seeds[s][2] for s in sites}, {"m": sites}, COUNTS, PARAMETERS)

    def fits(self, guess: np.ndarray, salt: bytes = b"") -> bool:
        """Say whether a guess of the victim's update fits the commitment of the void list."""
        padded = np.frombuffer(self.sent[VICTIM]["m"][0], "<u8").reshape(2, DEGREE)[0].astype(object)
        known = padded - sum(self.rows[VICTIM][part]["m"][0].astype(object) for part in shares.KEYHOLDER_PARTS)
        plain = np.frombuffer(ckks.encrypt(self.key, PARAMETERS, guess)[0], "<u8").reshape(2, DEGREE)[0].astype(object)
        implied = {"m": np.array([(self.published + known - plain) % Q], dtype=np.uint64)}
        masks = pad_tags.implied_masks(self.tags, implied, self.challenge, PARAMETERS)
        return pad_tags.commitment(3, VOID_LIST, implied, masks, salt) == self.commitment


def test_without_a_salt_the_right_guess_is_confirmed() -> None:
    told = Guessing(salted=False)
    wrong = told.update.copy()
    wrong[5] -= np.sign(wrong[5] - 1)
    assert told.fits(told.update)
    assert not told.fits(wrong)


def test_with_a_salt_no_guess_is_confirmed_nor_by_the_salt_of_another_list() -> None:
    told = Guessing(salted=True)
    for salt in (b"", bytes(32), told.published_salt):
        assert not told.fits(told.update, salt)
    threes = [told.seeds[site][2] for site in (*OTHERS, VICTIM)]
    assert told.fits(told.update, pad_tags.salt_of(threes, 3, VOID_LIST))  # whoever holds the seeds may know it
    assert pad_tags.salt_of(threes, 3, VOID_LIST) == pad_tags.salt_of(threes[::-1], 3, VOID_LIST)


def test_holders_commit_alike_and_nobody_commits_without_a_salt(helped: HelpedStage) -> None:
    helped.train_all()
    closed = helped.listed(*ALL)
    said = {s.payload["party"]: parse(PadCommitment, dict(s.payload)).parts for s in helped.shown(closed).values()}
    assert said["keyholder"]["1"] == said[J]["1"]
    assert said["keyholder"]["2"] == said[H]["2"]
    assert said[H]["3"] == said[J]["3"]
    assert helped.recompute(helped.published(closed))


@pytest.mark.parametrize("salt", ["", "0" * 64, "zz", "0" * 62])
def test_a_pad_sum_with_another_salt_is_not_taken(helped: HelpedStage, salt: str) -> None:
    helped.train_all()
    closed = helped.listed(*ALL)
    documents = helped.answers(closed, H, J)
    for name in (H, J):
        documents[f"pads/{name}"] = _with_salt(helped, documents[f"pads/{name}"], name, salt)
    assert helped.decrypt(*closed, documents=documents) is None
    assert set(helped.wanted()) == {H, J}


def _with_salt(stage: HelpedStage, signed: Signed, name: str, salt: str) -> Signed:
    said = parse(PadSums, dict(signed.payload))
    return seal(stage.consortium.homes[name].identity(), "pads", replace(said, salt=salt))
