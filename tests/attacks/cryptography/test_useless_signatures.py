"""One hospital signs what keyholder and helpers refuse as a whole, so that every round is lost and nobody is named.

Played in a whole consortium: headers with pads for no helper or for a stranger, with two hashes of seeds or without the
word of a start, and attestations that name another plan, sum, round, study or hospital. Before the orchestrator looked
at them, all three holders refused the list without a name, round after round, and the sender was never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.played import Played

from datasites.study.messages import Attestation, UpdateHeader
from datasites.study.signing import Signed, dump, pack_envelope, parse, seal, unpack_envelope
from orchestrator.rounds import helping
from privacy.errors import InvalidInput, Refused

LENGTH, LIAR = 100, "site-1"
OTHERS = ["site-0", "site-2", "site-3"]
HONEST = (*OTHERS, "helper-0", "helper-1", "keyholder")


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    monkeypatch.setattr(helping, "HELPER_SECONDS", 600.0)  # nobody is gone, however slow this machine is
    with Played(tmp_path, sites=4, helpers=2) as consortium:
        consortium.open()
        consortium.propose("pilot", length=LENGTH, rounds=1)
        yield consortium


def stored(played: Played, kind: str) -> set[str]:
    return set(played.service.store.documents("pilot", 1, kind))


def kept_back(played: Played, kind: str) -> bytes:
    """Play until everybody else has sent a document of the round; return what the hospital would send."""
    sent: list[bytes] = []

    def cut(request: httpx.Request) -> bool:
        if request.url.path.endswith(f"/{kind}"):
            sent.append(request.read())
        return bool(sent)

    played.play("pilot", *HONEST, until=lambda _: stored(played, kind) == set(OTHERS))
    played.wire.cut = cut
    while not sent:
        played.step(LIAR)
    played.wire.cut = lambda _: False
    return sent[0]


HEADERS: dict[str, Callable[[UpdateHeader], UpdateHeader]] = {
    "no helper": lambda h: replace(h, helper_pads={}),
    "a stranger": lambda h: replace(h, helper_pads={**h.helper_pads, "helper-2": h.pad}),
    "two hashes": lambda h: replace(h, seed_hashes=h.seed_hashes[:2]),
    "four hashes": lambda h: replace(h, seed_hashes=h.seed_hashes + h.seed_hashes[:1]),
    "no word": lambda h: replace(h, begun=""),
}


def test_a_header_that_makes_a_list_useless_costs_its_sender_alone_the_round(
    played: Played, let_pass: Callable[[float], None]
) -> None:
    signed, body = unpack_envelope(kept_back(played, "update"))
    true, path = parse(UpdateHeader, dict(signed.payload)), "/studies/pilot/rounds/1/update"
    taken = []
    with played.signed(LIAR) as client:
        for how, change in HEADERS.items():
            false = seal(played.homes[LIAR].identity(), "update", change(true))
            try:
                client.put_bytes(path, pack_envelope(false, body))
                taken.append(how)
            except (InvalidInput, Refused):
                pass
    assert taken == []
    assert stored(played, "update") == set(OTHERS)
    let_pass(played.service.runner("pilot").proposal.deadline_seconds + 1.0)
    status = played.play("pilot", *HONEST)
    assert (status["state"], status["reason"]) == ("finished", "")
    assert status["checkpoints"][0]["sites"] == OTHERS


SIGNATURES: dict[str, dict[str, Any]] = {
    "another plan": {"plan_hash": "0" * 64},
    "another sum": {"sum_hash": "0" * 64},
    "another round": {"round": 2},
    "another study": {"study": "another"},
    "another hospital": {"site": "site-0"},
}


def test_a_signature_that_holders_would_refuse_is_refused_and_its_sender_named(played: Played) -> None:
    played.play("pilot", until=lambda _: len(stored(played, "update")) == 4)
    signed = parse(Signed, kept_back(played, "attestation"))
    true, path = parse(Attestation, dict(signed.payload)), "/studies/pilot/rounds/1/attestation"
    taken = []
    with played.signed(LIAR) as client:
        for how, changes in SIGNATURES.items():
            try:
                client.post_json(
                    path, dump(seal(played.homes[LIAR].identity(), "attestation", replace(true, **changes)))
                )
                taken.append(how)
            except (InvalidInput, Refused):
                pass
    assert taken == []
    status = played.play("pilot", *HONEST)  # who sent them counts as missing: nobody waits for the deadline
    assert (status["state"], status["reason"]) == ("finished", "")
    assert status["checkpoints"][0]["sites"] == OTHERS
    entries = played.service.journal.entries(kind="tags-refused")
    assert {(entry.body["site"], entry.body["round"]) for entry in entries} == {(LIAR, 1)}


def test_the_honest_consortium_beside_it_takes_everybody(played: Played) -> None:
    status = played.play("pilot")
    assert status["checkpoints"][0]["sites"] == ["site-0", LIAR, "site-2", "site-3"]
