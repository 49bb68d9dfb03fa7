"""Pads of three parts: what takes them off, what does not, and a secret key that is published."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from privacy.encryption import ckks, pads, shares
from privacy.encryption.ciphertexts import RunningSum
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput, Refused, TesseraError

LENGTH = 500
PARAMETERS = choose_parameters(sites=4, levels=100, length=LENGTH)
PAIR = ckks.generate_round_key(PARAMETERS)
SITES = ("alba", "bruna", "corva")
UPDATES = {site: np.random.default_rng(i).integers(-100, 101, LENGTH) for i, site in enumerate(SITES)}
SEEDS = {site: shares.new_seeds() for site in SITES}
COUNTS = {"shared": PARAMETERS.ciphertexts_for(LENGTH)}
LISTED = {"shared": SITES}
BARE = {site: {"shared": ckks.encrypt(PAIR.public, PARAMETERS, UPDATES[site])} for site in SITES}
SENT = {
    site: shares.pad_all(BARE[site], shares.pad_rows(SEEDS[site], COUNTS, PARAMETERS), PARAMETERS) for site in SITES
}


def total(*sites: str) -> dict[str, list[bytes]]:
    running = RunningSum(PARAMETERS, ciphertexts=COUNTS["shared"])
    for site in sites:
        running.add(SENT[site]["shared"])
    return {"shared": running.to_ciphertexts()}


def sums(parts: tuple[int, ...] = shares.PARTS, sites: tuple[str, ...] = SITES) -> list[shares.PartSum]:
    listed = {"shared": sites}
    return [shares.part_sum({s: SEEDS[s][part - 1] for s in sites}, listed, COUNTS, PARAMETERS) for part in parts]


def decrypted(bare: dict[str, list[bytes]], contributors: int = 3) -> list[int]:
    found = ckks.decrypt_sum(PAIR.secret, PARAMETERS, bare["shared"], values=LENGTH, contributors=contributors)
    return [int(v) for v in found]


def test_all_three_part_sums_take_the_pads_off_the_listed_sum() -> None:
    assert decrypted(shares.subtract(total(*SITES), sums(), PARAMETERS)) == sum(UPDATES.values()).tolist()


@pytest.mark.parametrize("known", [p for n in (0, 1, 2) for p in itertools.combinations(shares.PARTS, n)])
def test_fewer_parts_read_nothing(known: tuple[int, ...]) -> None:
    with pytest.raises(TesseraError):
        decrypted(shares.subtract(total(*SITES), sums(known), PARAMETERS))


def test_the_sums_of_one_list_open_neither_another_list_nor_a_single_update() -> None:
    for others in (SITES[:2], SITES[:1]):
        with pytest.raises(TesseraError):
            decrypted(shares.subtract(total(*others), sums(), PARAMETERS))


def test_the_difference_of_two_lists_is_one_update_which_is_why_there_is_one_list() -> None:
    both = np.array(decrypted(shares.subtract(total(*SITES), sums(), PARAMETERS)))
    fewer = np.array(decrypted(shares.subtract(total(*SITES[:2]), sums(sites=SITES[:2]), PARAMETERS)))
    assert (both - fewer).tolist() == UPDATES["corva"].tolist()


def test_a_padded_ciphertext_is_uniform_whatever_two_parts_one_takes_off() -> None:
    for known in itertools.combinations(shares.PARTS, 2):
        rest = shares.subtract(SENT["alba"], sums(known, SITES[:1]), PARAMETERS)["shared"]
        first = np.frombuffer(b"".join(rest), "<u8").reshape(-1, 2, PARAMETERS.poly_modulus_degree)[:, 0]
        share = first.astype(float) / PARAMETERS.data_prime
        counts, _ = np.histogram(share, bins=16, range=(0, 1))
        expected = share.size / 16
        assert ((counts - expected) ** 2 / expected).sum() < 50  # chi square of 15 degrees: 1e-5


def test_part_sums_travel_as_plain_coefficients_of_one_length() -> None:
    part = sums((3,))[0]
    data = shares.to_bytes(part)
    assert len(data) == shares.sum_bytes(COUNTS, PARAMETERS)
    assert np.array_equal(shares.from_bytes(data, COUNTS, PARAMETERS)["shared"], part["shared"])
    for bad in (data[:-8], b"x" + data[1:], data[:-8] + b"\xff" * 8):
        with pytest.raises(InvalidInput):
            shares.from_bytes(bad, COUNTS, PARAMETERS)


def test_a_hybrid_key_opens_what_was_sealed_to_it_under_the_same_label_and_nothing_else() -> None:
    pair, other = pads.generate_pad_key(hybrid=True), pads.generate_pad_key(hybrid=True)
    assert len(pair.public) == pads.HYBRID_KEY_HEX
    assert len(pair.private) == pads.private_bytes(pair.public)
    label = pads.PadLabel(study="pilot", round=1, plan_hash="a" * 64, site="alba", holder="h" * 64)
    sealed = pads.seal_seed(shares.joined(SEEDS["alba"], (3, 1)), pair.public, label)
    found = shares.split(pads.open_seed(sealed, pair.private, label, seeds=2), (3, 1))
    assert found == {3: SEEDS["alba"][2], 1: SEEDS["alba"][0]}
    elsewhere = pads.PadLabel(study="pilot", round=1, plan_hash="a" * 64, site="alba", holder="j" * 64)
    for private, where, seeds in ((other.private, label, 2), (pair.private, elsewhere, 2), (pair.private, label, 1)):
        with pytest.raises(Refused):
            pads.open_seed(sealed, private, where, seeds=seeds)
    flipped = sealed[:10] + ("0" if sealed[10] != "0" else "1") + sealed[11:]
    with pytest.raises(Refused):
        pads.open_seed(flipped, pair.private, label, seeds=2)


def test_a_hybrid_seal_needs_both_private_keys() -> None:
    pair, other = pads.generate_pad_key(hybrid=True), pads.generate_pad_key(hybrid=True)
    label = pads.PadLabel(study="pilot", round=1, plan_hash="a" * 64, site="alba")
    sealed = pads.seal_seed(SEEDS["alba"][0], pair.public, label)
    for half in (pair.private[:-32] + other.private[-32:], other.private[:-32] + pair.private[-32:]):
        with pytest.raises(Refused):
            pads.open_seed(sealed, half, label)


def test_a_published_key_decrypts_and_another_one_is_noticed() -> None:
    published = ckks.published_secret(PAIR.secret, PARAMETERS)
    assert ckks.secret_of(published, PAIR.public, PARAMETERS) == PAIR.secret
    another = ckks.published_secret(ckks.generate_round_key(PARAMETERS).secret, PARAMETERS)
    changed = np.frombuffer(published, "<u8").copy()
    changed[5] = (int(changed[5]) + 1) % PARAMETERS.data_prime
    for bad in (another, changed.tobytes(), published[:-8], b"\xff" * len(published)):
        with pytest.raises(InvalidInput):
            ckks.secret_of(bad, PAIR.public, PARAMETERS)
