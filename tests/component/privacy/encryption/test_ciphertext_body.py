"""A body has one possible length; 10,000 mutated ones crash nothing and change no sum unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from privacy.encryption import ciphertexts
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput

PARAMETERS = choose_parameters(sites=3, levels=64, length=1)
COUNTS = {"shared": 2, "image": 1}


def blocks() -> dict[str, list[bytes]]:
    generator = np.random.default_rng(1)
    return {
        name: [generator.integers(0, PARAMETERS.data_prime, 8192, dtype=np.uint64).tobytes() for _ in range(count)]
        for name, count in COUNTS.items()
    }


def test_what_is_packed_is_unpacked() -> None:
    body = ciphertexts.pack(blocks())
    assert len(body) == ciphertexts.body_bytes(COUNTS, PARAMETERS)
    assert ciphertexts.unpack(body, COUNTS, PARAMETERS) == blocks()


def test_the_order_of_the_blocks_does_not_matter() -> None:
    backwards = dict(reversed(blocks().items()))
    assert ciphertexts.pack(backwards) == ciphertexts.pack(blocks())


@pytest.mark.parametrize("counts", [{}, {"shared": 0}, {"shared": 3, "image": -1}, {"shared": 3, "image": 1}])
def test_a_body_of_another_shape_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        ciphertexts.unpack(ciphertexts.pack(blocks()), counts, PARAMETERS)


@pytest.mark.parametrize("bad", [b"", b"x", ciphertexts.MAGIC])
def test_a_short_body_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidInput, match="bytes"):
        ciphertexts.unpack(bad, COUNTS, PARAMETERS)


def test_truncated_lengthened_and_relabelled_bodies_are_refused() -> None:
    body = ciphertexts.pack(blocks())
    for bad in (body[:-1], body + b"\0", b"T" + body[1:], body[:16] + b"\xff" * (len(body) - 16)):
        with pytest.raises(InvalidInput):
            ciphertexts.unpack(bad, COUNTS, PARAMETERS)


def test_ten_thousand_mutated_bodies_crash_nothing_and_are_refused_or_seen() -> None:
    """A process of its own takes the mutated uploads, so that a crash would be seen as its exit status."""
    script = Path(__file__).parents[3] / "support" / "mutated_uploads.py"
    run = subprocess.run([sys.executable, script, "10000"], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    outcome = json.loads(run.stdout)
    assert outcome["tried"] == 10_000
    assert outcome["refused"] > 3000 and outcome["tag_differs"] > 1000  # both kinds were exercised
    assert outcome["refused"] + outcome["tag_differs"] == 10_000
    assert outcome["sums_refused"] == outcome["sums_tried"] > 20
