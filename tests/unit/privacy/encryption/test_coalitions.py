"""Who can read what when they put together what they hold: the rows of docs/threat-model.md that no protocol closes.

What is read here is an update as it was sent, with its noise; nobody here has a hospital's records.
"""

from __future__ import annotations

import numpy as np
import pytest

from privacy.encryption import ckks, pads
from privacy.encryption.ciphertexts import RunningSum
from privacy.encryption.parameters import choose_parameters
from privacy.errors import TesseraError

LENGTH = 500
PARAMETERS = choose_parameters(sites=4, levels=100, length=LENGTH)
PAIR = ckks.generate_round_key(PARAMETERS)
PAD_KEY = pads.generate_pad_key()
SITES = ("alba", "bruna", "corva")
UPDATES = {site: np.random.default_rng(i).integers(-100, 101, LENGTH) for i, site in enumerate(SITES)}
SEEDS = {site: pads.new_seed() for site in SITES}


def label(site: str) -> pads.PadLabel:
    return pads.PadLabel(study="pilot", round=1, plan_hash="a" * 64, site=site)


@pytest.fixture(scope="module")
def sent() -> dict[str, tuple[list[bytes], str]]:
    """What every hospital puts on the wire, and the orchestrator keeps: a padded ciphertext and a sealed seed."""
    wire = {}
    for site in SITES:
        blocks = {"shared": ckks.encrypt(PAIR.public, PARAMETERS, UPDATES[site])}
        sealed = pads.seal_seed(SEEDS[site], PAD_KEY.public, label(site))
        wire[site] = (pads.pad(blocks, SEEDS[site], PARAMETERS)["shared"], sealed)
    return wire


def opened(ciphertexts: list[bytes], seeds: dict[str, bytes]) -> list[int]:
    bare = pads.remove({"shared": ciphertexts}, seeds, {"shared": list(seeds)}, PARAMETERS)["shared"]
    values = ckks.decrypt_sum(PAIR.secret, PARAMETERS, bare, values=LENGTH, contributors=max(len(seeds), 3))
    return [int(v) for v in values]


def total(wire: dict[str, tuple[list[bytes], str]]) -> list[bytes]:
    running = RunningSum(PARAMETERS, ciphertexts=PARAMETERS.ciphertexts_for(LENGTH))
    for ciphertexts, _ in wire.values():
        running.add(ciphertexts)
    return running.to_ciphertexts()


def test_the_keyholder_alone_reads_the_listed_sum_and_no_part_of_it(sent) -> None:
    seeds = {site: pads.open_seed(sealed, PAD_KEY.private, label(site)) for site, (_, sealed) in sent.items()}
    assert opened(total(sent), seeds) == sum(UPDATES.values()).tolist()
    for missing in SITES:  # without one pad the sum is no sum at all
        with pytest.raises(TesseraError):
            opened(total(sent), {site: seed for site, seed in seeds.items() if site != missing})


def test_the_orchestrator_alone_opens_no_seed_and_so_nothing(sent) -> None:
    own = pads.generate_pad_key()
    for site, (_, sealed) in sent.items():
        with pytest.raises(TesseraError):
            pads.open_seed(sealed, own.private, label(site))


def test_orchestrator_and_keyholder_together_read_every_single_noised_update(sent) -> None:
    for site, (ciphertexts, sealed) in sent.items():
        seed = pads.open_seed(sealed, PAD_KEY.private, label(site))
        assert opened(ciphertexts, {site: seed}) == UPDATES[site].tolist()


def test_a_listener_without_tls_and_the_keyholder_together_are_no_less(sent) -> None:
    on_the_wire = sent["alba"]  # a listener before the hospital's door has seen this; TLS is what would hide it
    seed = pads.open_seed(on_the_wire[1], PAD_KEY.private, label("alba"))
    assert opened(on_the_wire[0], {"alba": seed}) == UPDATES["alba"].tolist()


def test_all_hospitals_but_one_and_who_sees_the_sum_read_the_last_noised_update(sent) -> None:
    answer = np.array(opened(total(sent), SEEDS))
    assert (answer - UPDATES["bruna"] - UPDATES["corva"]).tolist() == UPDATES["alba"].tolist()


def test_one_hospital_and_who_sees_the_sum_read_the_sum_of_the_others_alone(sent) -> None:
    rest = np.array(opened(total(sent), SEEDS)) - UPDATES["corva"]
    assert rest.tolist() == (UPDATES["alba"] + UPDATES["bruna"]).tolist()
    assert rest.tolist() not in [update.tolist() for update in UPDATES.values()]
