"""Tags add up exactly for an honest sum and for nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.encryption import tags
from privacy.encryption.ciphertexts import RunningSum
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput

PARAMETERS = choose_parameters(sites=5, levels=64, length=1)
PRIME = PARAMETERS.data_prime
CHALLENGE = tags.challenges("a" * 64, "b" * 64)


def block(seed: int, ciphertexts: int = 2) -> list[bytes]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, PRIME, 8192, dtype=np.uint64).tobytes() for _ in range(ciphertexts)]


def add(updates: list[list[bytes]]) -> list[bytes]:
    running = RunningSum(PARAMETERS, ciphertexts=len(updates[0]))
    for update in updates:
        running.add(update)
    return running.to_ciphertexts()


def tag(blocks: dict[str, list[bytes]], challenge: tags.Challenge = CHALLENGE) -> tuple[int, ...]:
    return tags.tag(blocks, challenge, PARAMETERS)


def test_a_tag_is_the_inner_product_with_its_challenge() -> None:
    ciphertexts = block(1, 3)
    inner = CHALLENGE.words("coefficient", 8192).copy().view("<u4").astype(object)
    outer = CHALLENGE.words("block/shared", 3).copy().view("<u4").astype(object)
    expected = [0] * tags.REPETITIONS
    for chunk, ciphertext in enumerate(ciphertexts):
        array = np.frombuffer(ciphertext, "<u8").astype(object)
        for index in range(tags.REPETITIONS):
            expected[index] += int(outer[chunk, index]) * int((array * inner[:, index]).sum())
    assert tag({"shared": ciphertexts}) == tuple(value % PRIME for value in expected)


def test_the_largest_coefficients_are_computed_exactly() -> None:
    array = np.full(8192, PRIME - 1, np.uint64)
    inner = CHALLENGE.words("coefficient", 8192).copy().view("<u4").astype(object)
    outer = CHALLENGE.words("block/shared", 1).copy().view("<u4").astype(object)
    expected = tuple(int(outer[0, i]) * (PRIME - 1) * int(inner[:, i].sum()) % PRIME for i in range(tags.REPETITIONS))
    assert tag({"shared": [array.tobytes()]}) == expected


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=5), st.integers(1, 20))
def test_tags_of_updates_add_up_to_the_tag_of_their_sum(seeds: list[int], ciphertexts: int) -> None:
    updates = [block(seed, ciphertexts) for seed in seeds]
    total = tag({"shared": add(updates)})
    assert tags.combine([tag({"shared": update}) for update in updates], PARAMETERS) == total


def test_sites_with_other_blocks_add_up_too() -> None:
    one, two = {"shared": block(1), "image": block(2, 1)}, {"shared": block(3)}
    total = {"shared": add([one["shared"], two["shared"]]), "image": one["image"]}
    assert tags.combine([tag(one), tag(two)], PARAMETERS) == tag(total)


@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, 2 * 8192 - 1), change=st.integers(1, PRIME - 1))
def test_one_changed_coefficient_changes_every_tag(position: int, change: int) -> None:
    ciphertexts = block(4)
    array = np.frombuffer(b"".join(ciphertexts), "<u8").copy()
    array[position] = (int(array[position]) + change) % PRIME
    raw = array.tobytes()
    changed = tag({"shared": [raw[:65536], raw[65536:]]})
    assert all(a != b for a, b in zip(changed, tag({"shared": ciphertexts}), strict=True))


def test_swapped_chunks_blocks_or_halves_change_the_tag() -> None:
    one, two = block(5)
    honest = tag({"shared": [one, two]})
    assert tag({"shared": [two, one]}) != honest
    assert tag({"other": [one, two]}) != honest
    assert tag({"shared": [one[32768:] + one[:32768], two]}) != honest


@pytest.mark.parametrize(("list_hash", "sum_hash"), [("c" * 64, "b" * 64), ("a" * 64, "c" * 64), ("b" * 64, "a" * 64)])
def test_another_list_or_sum_is_another_challenge(list_hash: str, sum_hash: str) -> None:
    assert tag({"shared": block(1)}, tags.challenges(list_hash, sum_hash)) != tag({"shared": block(1)})


@pytest.mark.parametrize("bad", ["", "a" * 63, "a" * 66, "g" * 64])
def test_a_challenge_needs_two_hashes(bad: str) -> None:
    with pytest.raises(InvalidInput):
        tags.challenges(bad, "b" * 64)
    with pytest.raises(InvalidInput):
        tags.challenges("a" * 64, bad)


@pytest.mark.parametrize("bad", [(1, 2, 3), (1, 2, 3, PRIME), (1, 2, 3, -1), (1, 2, 3, 4, 5)])
def test_malformed_tags_are_refused(bad: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        tags.combine([(1, 2, 3, 4), bad], PARAMETERS)
