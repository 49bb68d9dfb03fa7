"""Models, keys, sums, integers and workers' results that are longer than the approved proposal implies.

Played: each blob is asked for with a bound that follows from the proposal, so that a client ends the transfer there;
files with many names or a header of megabytes are refused before their values are looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import zeros
from safetensors.numpy import load, save
from support.liar import LENGTH, SITES, Stage

from datasites.study.messages import RoundKey
from datasites.study.recomputed.chain import check_layout, checked_totals, integers_limit
from datasites.study.signing import parse
from datasites.worker.trainer import read_result
from privacy.canonical import sha256_hex
from privacy.encryption.ciphertexts import body_bytes
from privacy.errors import InvalidInput, Refused


@pytest.fixture
def asked(stage: Stage) -> dict[str, int]:
    """What was asked for, and with which bound: both rounds of an honest study."""
    bounds: dict[str, int] = {}
    real = stage.liar.get_bytes

    def get_bytes(path: str, *, max_bytes: int, **options: Any) -> bytes:
        bounds[path] = max_bytes
        found = real(path, **options)
        assert len(found) <= max_bytes
        return found

    stage.liar.get_bytes = get_bytes  # type: ignore[method-assign]
    stage.train_all()
    assert stage.decrypt(*stage.close()) is not None
    stage.following().train_all()
    return bounds


def test_every_blob_is_bounded_by_what_the_proposal_implies(stage: Stage, asked: dict[str, int]) -> None:
    key = parse(RoundKey, dict(stage.key.payload))
    assert asked[f"/blobs/{key.key_hash}"] == key.key_bytes
    integers = asked[f"/studies/{stage.proposal.study}/rounds/1/integers"]
    assert integers == integers_limit(stage.proposal) < 8 * LENGTH + (1 << 17)
    counts = {"shared": stage.proposal.encryption.ciphertexts_for(LENGTH)}
    sums = [bound for path, bound in asked.items() if len(stage.liar.blobs.get(path[7:], b"")) == bound]
    assert body_bytes(counts, stage.proposal.encryption) in sums
    assert max(asked.values()) < 1 << 20
    assert not any(path.endswith(stage.liar.model_hash) for path in asked)  # models are computed, not fetched


@pytest.mark.parametrize("stage", [{"chain": None}], indirect=True, ids=["unchecked chain"])
def test_a_model_that_is_fetched_is_bounded_by_the_one_that_is_built_here(stage: Stage) -> None:
    bounds: list[int] = []
    real = stage.liar.get_bytes

    def get_bytes(path: str, *, max_bytes: int, **options: Any) -> bytes:
        if path.endswith(stage.liar.model_hash):
            bounds.append(max_bytes)
        return real(path, **options)

    stage.liar.get_bytes = get_bytes  # type: ignore[method-assign]
    stage.train_all()
    assert bounds == [len(zeros(stage.proposal)) + (1 << 16)] * SITES


def many_names(count: int) -> bytes:
    return bytes(save({f"n{i}": np.zeros(0, np.int16) for i in range(count)}))


def huge_header(size: int) -> bytes:
    header = json.dumps({"__metadata__": {"x": "y" * size}}).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "data", [bytes(1 << 20), many_names(20_000), huge_header(1 << 20)], ids=["zeros", "names", "header"]
)
def test_integers_that_are_too_long_are_not_parsed(stage: Stage, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="whose hash the keyholder signed"):
        checked_totals(stage.proposal, data, sha256_hex(data), stage.consortium.names)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 8, many_names(3), huge_header(100), zeros],
    ids=["empty", "bytes", "names", "header", "model"],
)
def test_integers_of_another_shape_are_refused(stage: Stage, data: Any) -> None:
    content = data(stage.proposal) if callable(data) else data
    with pytest.raises(InvalidInput):
        checked_totals(stage.proposal, content, sha256_hex(content), stage.consortium.names)


def test_integers_beyond_what_the_sites_can_send_are_refused(stage: Stage) -> None:
    reach = stage.proposal.encryption.levels * SITES
    for value, fits in ((reach, True), (reach + 1, False), (-reach - 1, False)):
        content = bytes(save({"shared": np.full(LENGTH, value, np.int32)}))
        if fits:
            assert int(
                checked_totals(stage.proposal, content, sha256_hex(content), stage.consortium.names)["shared"][0]
            )
        else:
            with pytest.raises(InvalidInput, match="beyond what its contributors"):
                checked_totals(stage.proposal, content, sha256_hex(content), stage.consortium.names)


def test_a_model_with_a_longer_header_is_not_parsed(stage: Stage) -> None:
    with pytest.raises(Refused, match="expected a model of about"):
        check_layout(zeros(stage.proposal) + huge_header(1 << 20), zeros(stage.proposal))
    assert load(zeros(stage.proposal))["shared"].shape == (LENGTH,)


def test_a_workers_result_is_no_longer_than_its_vectors(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "result.safetensors"
    path.write_bytes(save({"shared": np.zeros(LENGTH, np.float32), "more": np.zeros(2 << 20, np.float32)}))
    with pytest.raises(InvalidInput, match="longer file"):
        read_result(path, stage.proposal, "site-0")
