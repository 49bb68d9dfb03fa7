"""A party of a study fills the orchestrator's disk: with bytes for rounds that do not exist, or again and again.

Played: a helper's pad sums and keys, and the keyholder's keys, openings and results, for every round number there is,
for lists that nobody fixed, and a second time with other bytes. What is refused leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.played import Played

from datasites.keyholder.opened import counts_of, opening_bytes
from datasites.study.messages import HelperKey, Opening, PadSums, RoundKey, SumResult
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, pack_envelope, parse, seal
from privacy.canonical import sha256_hex
from privacy.encryption.shares import sum_bytes
from privacy.errors import TesseraError

H = "helper-0"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with Played(tmp_path_factory.mktemp("filled"), sites=4, helpers=2) as made:
        made.open()
        made.propose("pilot", length=300, rounds=2)
        assert made.play("pilot")["state"] == "finished"
        yield made


def blobs(played: Played) -> set[str]:
    return {path.name for path in (played.service.store.folder / "blobs").iterdir()}


def kept(played: Played, kind: str, author: str) -> Any:
    document = played.service.store.document("pilot", 1, kind, author=author)
    assert document is not None
    return dict(document["payload"])


Sent = Callable[[Played, Proposal, int, bytes], None]


def _pads(played: Played, proposal: Proposal, number: int, filler: bytes) -> None:
    body = (filler * sum_bytes(counts_of(proposal), proposal.encryption))[
        : sum_bytes(counts_of(proposal), proposal.encryption)
    ]
    sums = parse(PadSums, kept(played, "pads", H))
    sums = replace(sums, round=number, parts={**sums.parts, "3": sha256_hex(body)})
    if number == 2:
        sums = replace(sums, list_hash=sha256_hex(filler))
    put(played, H, f"/studies/pilot/rounds/{number}/pads", "pads", sums, body)


def _helper_key(played: Played, proposal: Proposal, number: int, filler: bytes) -> None:
    if number in (1, 2):
        raise TesseraError("a helper that was started anew makes another key")
    key = replace(parse(HelperKey, kept(played, "helper-key", H)), round=number, pad_key=sha256_hex(filler))
    with played.signed(H) as client:
        client.post_json(
            f"/studies/pilot/rounds/{number}/helper-key", dump(seal(played.homes[H].identity(), "helper-key", key))
        )


def _round_key(played: Played, proposal: Proposal, number: int, filler: bytes) -> None:
    key = replace(parse(RoundKey, kept(played, "key", "keyholder")), round=number, key_hash=sha256_hex(filler))
    put(played, "keyholder", f"/studies/pilot/rounds/{number}/key", "round-key", key, filler)


def _opening(played: Played, proposal: Proposal, number: int, filler: bytes) -> None:
    body = (filler * opening_bytes(proposal))[: opening_bytes(proposal)]
    said = replace(parse(Opening, kept(played, "opening", "keyholder")), round=number, body_hash=sha256_hex(body))
    put(played, "keyholder", f"/studies/pilot/rounds/{number}/opening", "opening", said, body)


def _result(played: Played, proposal: Proposal, number: int, filler: bytes) -> None:
    known = parse(SumResult, kept(played, "result", "keyholder"))
    body = played.service.store.blob(known.integers_hash)
    body = body[:-2] + filler[:1] + b"\0"  # other integers that the sites could reach
    said = replace(known, round=number, integers_hash=sha256_hex(body))
    put(played, "keyholder", f"/studies/pilot/rounds/{number}/result", "sum-result", said, body)


def put(played: Played, name: str, path: str, kind: str, message: Any, body: bytes) -> None:
    with played.signed(name) as client:
        client.put_bytes(path, pack_envelope(seal(played.homes[name].identity(), kind, message), body))


@pytest.mark.parametrize("number", [1, 2, 3, 999_999])
@pytest.mark.parametrize("what", [_pads, _helper_key, _round_key, _opening, _result])
def test_what_nobody_waits_for_is_refused_and_leaves_nothing(played: Played, what: Sent, number: int) -> None:
    proposal, before = played.proposal("pilot", length=300, rounds=2), blobs(played)
    for filler in (b"a", b"b", b"c"):
        with pytest.raises(TesseraError):
            what(played, proposal, number, filler)
    assert blobs(played) == before
