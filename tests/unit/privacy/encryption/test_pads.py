"""Pads: uniform, gone when each is removed once, readable by the keyholder for their own label alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from privacy.encryption import ckks, pads
from privacy.encryption.ciphertexts import RunningSum, coefficients
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput, Refused

PARAMETERS = choose_parameters(sites=4, levels=100, length=9000)
PAIR = ckks.generate_round_key(PARAMETERS)
KEY = pads.generate_pad_key()
LABEL = pads.PadLabel(study="pilot", round=3, plan_hash="a" * 64, site="alba")
BLOCKS = {"shared": 9000, "mrna": 5}


def encrypted(value: int) -> dict[str, list[bytes]]:
    return {name: ckks.encrypt(PAIR.public, PARAMETERS, np.full(length, value)) for name, length in BLOCKS.items()}


def test_a_sum_of_padded_updates_decrypts_exactly_once_all_pads_are_gone() -> None:
    seeds = {f"site-{index}": pads.new_seed() for index in range(3)}
    totals = {n: RunningSum(PARAMETERS, ciphertexts=PARAMETERS.ciphertexts_for(k)) for n, k in BLOCKS.items()}
    for value, (site, seed) in enumerate(seeds.items()):
        for name, ciphertexts in pads.pad(encrypted(value + 1), seed, PARAMETERS).items():
            if (site, name) != ("site-2", "mrna"):  # a site that lacks a modality
                totals[name].add(ciphertexts)
    contributors = {"shared": list(seeds), "mrna": ["site-0", "site-1"]}
    total = {name: running.to_ciphertexts() for name, running in totals.items()}
    bare = pads.remove(total, seeds, contributors, PARAMETERS)
    for name, expected in {"shared": 6, "mrna": 3}.items():
        found = ckks.decrypt_sum(PAIR.secret, PARAMETERS, bare[name], values=BLOCKS[name], contributors=3)
        assert found.tolist() == [expected] * BLOCKS[name]


def test_a_pad_hides_the_first_polynomial_and_leaves_the_second() -> None:
    blocks = encrypted(0)
    padded = pads.pad(blocks, pads.new_seed(), PARAMETERS)
    first = []
    for before, after in zip(blocks["shared"], padded["shared"], strict=True):
        old, new = coefficients(before, PARAMETERS), coefficients(after, PARAMETERS)
        assert (old[1] == new[1]).all() and (old[0] != new[0]).mean() > 0.999
        first.append((new[0] - old[0] + np.uint64(PARAMETERS.data_prime)) % np.uint64(PARAMETERS.data_prime))
    drawn = np.concatenate(first) / PARAMETERS.data_prime
    assert len(set(np.concatenate(first).tolist())) == drawn.size
    assert abs(drawn.mean() - 0.5) < 5 / np.sqrt(12 * drawn.size)
    assert drawn.max() > 0.99


def test_no_two_seeds_blocks_or_chunks_share_a_pad() -> None:
    zero = np.zeros((2, PARAMETERS.poly_modulus_degree), np.uint64)
    zero[1] = 1
    blocks = {"a": [zero.tobytes()] * 2, "b": [zero.tobytes()]}
    seen = {
        bytes(c) for _ in range(2) for chunks in pads.pad(blocks, pads.new_seed(), PARAMETERS).values() for c in chunks
    }
    assert len(seen) == 6
    seed = b"s" * pads.SEED_BYTES
    assert pads.pad(blocks, seed, PARAMETERS) == pads.pad(blocks, seed, PARAMETERS)


@pytest.mark.parametrize(
    "other",
    [
        replace(LABEL, study="other"),
        replace(LABEL, round=4),
        replace(LABEL, plan_hash="b" * 64),
        replace(LABEL, site="bruna"),
    ],
)
def test_a_seed_opens_under_its_own_label_and_key_alone(other: pads.PadLabel) -> None:
    seed = pads.new_seed()
    sealed = pads.seal_seed(seed, KEY.public, LABEL)
    assert len(sealed) == pads.SEALED_HEX and seed.hex() not in sealed
    assert pads.open_seed(sealed, KEY.private, LABEL) == seed
    with pytest.raises(Refused, match=other.site):
        pads.open_seed(sealed, KEY.private, other)
    with pytest.raises(Refused):
        pads.open_seed(sealed, pads.generate_pad_key().private, LABEL)


@pytest.mark.parametrize("bad", ["", "00", "zz" * 80, "0" * pads.SEALED_HEX, "0" * (pads.SEALED_HEX + 2)])
def test_what_is_no_sealed_seed_is_refused(bad: str) -> None:
    with pytest.raises(Refused, match="does not open"):
        pads.open_seed(bad, KEY.private, LABEL)


@pytest.mark.parametrize("bad", ["", "00", "zz" * 32, "0" * 66])
def test_what_is_no_pad_key_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput, match="X25519"):
        pads.seal_seed(pads.new_seed(), bad, LABEL)


def test_the_private_key_is_in_no_text() -> None:
    assert KEY.private.hex() not in repr(KEY) and repr(KEY.private) not in repr(KEY)
