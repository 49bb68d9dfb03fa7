"""Two parties put together what they hold of a round, to read one hospital's update; three do, and can.

Played: every pair of orchestrator, keyholder and helpers, before and after the round's key is published, with all
seeds, keys and ciphertexts that they really hold. Every row of the table in docs/decisions/0018-pads-among-helpers.md
is a test here. On the code before helpers, orchestrator and keyholder read every single update
(tests/unit/privacy/encryption/test_coalitions.py still shows it for studies without helpers).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from harness.consortium import steps_of
from support.helped import H, HelpedStage, J

from datasites.keyholder.opened import split_opening
from privacy.encryption import ckks
from privacy.errors import TesseraError

ALL, SITE = (0, 1, 2, 3), "site-2"


def own_update() -> list[int]:
    return [int(v) for v in steps_of(2, "shared", 700)]


def decrypted(stage: HelpedStage, seeds: Mapping[int, bytes], secret: bytes) -> list[int] | None:
    """Return what somebody reads who has a site's ciphertexts, some of its seeds and a secret key."""
    bare = stage.single(SITE, seeds)["shared"]
    try:
        found = ckks.decrypt_sum(secret, stage.proposal.encryption, bare, values=700, contributors=1)
    except TesseraError:
        return None
    return [int(v) for v in found]


def looks_random(stage: HelpedStage, seeds: Mapping[int, bytes]) -> bool:
    """Say whether the first polynomials are spread evenly: then even the secret key reads nothing from them."""
    bare = stage.single(SITE, seeds)["shared"]
    first = np.frombuffer(b"".join(bare), "<u8").reshape(-1, 2, 4096)[:, 0] / stage.proposal.encryption.data_prime
    counts, _ = np.histogram(first, bins=16, range=(0, 1))
    expected = first.size / 16
    return bool(((counts - expected) ** 2 / expected).sum() < 50)


def other_key(stage: HelpedStage) -> bytes:
    """Return the best that somebody without the round's key can do: a key of their own."""
    return ckks.generate_round_key(stage.proposal.encryption).secret


def published_secret(stage: HelpedStage) -> bytes:
    """Return the round's secret key as everybody gets it."""
    published, _, _ = split_opening(stage.proposal, stage.liar.opened["opening"])
    return ckks.secret_of(published, stage.liar.opened["key"], stage.proposal.encryption)


@pytest.mark.parametrize("published", [False, True], ids=["before publication", "after"])
@pytest.mark.parametrize("holder", ["keyholder", H, J])
def test_the_orchestrator_and_one_holder_read_no_single_update(
    helped: HelpedStage, holder: str, published: bool
) -> None:
    helped.train_all()
    seeds = helped.seeds(SITE, holder)
    secret = helped.secret() if holder == "keyholder" else other_key(helped)
    if published:
        helped.published(helped.listed(*ALL))
        secret = published_secret(helped)
    assert len(seeds) == 2
    assert decrypted(helped, seeds, secret) is None
    for part in seeds:
        assert decrypted(helped, {part: seeds[part]}, secret) is None
    assert looks_random(helped, seeds)


def test_the_published_pad_sums_open_the_listed_sum_and_no_single_update(helped: HelpedStage) -> None:
    helped.train_all()
    seeds = helped.seeds(SITE, "keyholder")
    evidence = helped.published(helped.listed(*ALL))
    assert helped.recompute(evidence)
    # what the keyholder lacks of one site is its third pad; the published sum of the third pads holds four of them
    third = np.frombuffer(helped.liar.opened["pads"], "<u8", offset=16).reshape(-1, 4096)
    bare = helped.single(SITE, seeds)["shared"]
    prime = np.uint64(helped.proposal.encryption.data_prime)
    wrong = []
    for chunk, row in zip(bare, third, strict=True):
        array = np.frombuffer(chunk, "<u8").reshape(2, 4096).copy()
        array[0] = (array[0] + (prime - row)) % prime
        wrong.append(array.tobytes())
    with pytest.raises(TesseraError):
        ckks.decrypt_sum(published_secret(helped), helped.proposal.encryption, wrong, values=700, contributors=1)


def test_keyholder_and_helper_have_all_seeds_and_nobodys_ciphertext(helped: HelpedStage) -> None:
    helped.train_all()
    seeds = {**helped.seeds(SITE, "keyholder"), **helped.seeds(SITE, H)}
    assert set(seeds) == {1, 2, 3}
    asked = []
    real, helped.liar.get_bytes = helped.liar.get_bytes, lambda path, **k: asked.append(path) or real(path, **k)  # type: ignore[method-assign]
    assert helped.read(helped.listed(*ALL)) is not None
    body_hashes = {str(update.payload["body_hash"]) for update in helped.updates.values()}
    assert asked
    assert not any(digest in path for digest in body_hashes for path in asked)


@pytest.mark.parametrize("helper", [H, J])
def test_orchestrator_keyholder_and_a_helper_read_every_single_update(helped: HelpedStage, helper: str) -> None:
    helped.train_all()
    seeds = {**helped.seeds(SITE, "keyholder"), **helped.seeds(SITE, helper)}
    assert decrypted(helped, seeds, helped.secret()) == own_update()


def test_orchestrator_and_both_helpers_read_single_updates_once_the_key_is_published(helped: HelpedStage) -> None:
    helped.train_all()
    seeds = {**helped.seeds(SITE, H), **helped.seeds(SITE, J)}
    assert set(seeds) == {1, 2, 3}
    assert decrypted(helped, seeds, other_key(helped)) is None
    helped.published(helped.listed(*ALL))
    assert decrypted(helped, seeds, published_secret(helped)) == own_update()


def test_helpers_that_were_honest_in_a_round_can_betray_it_no_more(helped: HelpedStage) -> None:
    helped.train_all()
    helped.published(helped.listed(*ALL))
    for name in (H, J):
        assert helped.helpers[name].custody._rounds[(helped.proposal.study, 1)].private == b""


@pytest.mark.parametrize("helped", [{"published": False}], indirect=True, ids=["nothing is published"])
def test_a_study_that_publishes_nothing_gives_nobody_the_key(helped: HelpedStage) -> None:
    helped.train_all()
    seeds = {**helped.seeds(SITE, H), **helped.seeds(SITE, J)}
    assert helped.read(helped.listed(*ALL)) is not None
    assert not helped.liar.sent["opening"]
    assert decrypted(helped, seeds, other_key(helped)) is None
