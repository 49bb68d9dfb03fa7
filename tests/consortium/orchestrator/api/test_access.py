"""Who may fetch which blob, and how much one may send: no more than one's part in a study needs."""

from __future__ import annotations

from typing import Any

import pytest
from harness.consortium import Consortium

from datasites.node.http import SignedClient
from datasites.study.proposal import Custody
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused

LENGTH = 300


@pytest.fixture(scope="module")
def consortium(running: Consortium) -> Consortium:
    return running.among(4)


@pytest.fixture(scope="module")
def finished(consortium: Consortium) -> dict[str, Any]:
    """A finished study of three hospitals whose model the fourth one may have."""
    three = consortium.proposal("trio", length=LENGTH).participants[:3]
    custody = Custody(downloaders=("site-3",), licence="none", retention_days=1)
    proposal = consortium.propose("trio", length=LENGTH, approve=False, rounds=2, participants=three, custody=custody)
    from datasites.study.signing import seal

    for hospital in consortium.hospitals[:3]:
        hospital.approve(seal(consortium.identity, "proposal", proposal))
    with consortium.working(0, 1, 2):
        return consortium.wait("trio", "finished")


def blobs(consortium: Consortium) -> dict[str, str]:
    """Hash by what it is: of the last round and of the first."""
    from orchestrator.rounds.store import Store

    store = Store(consortium.homes["orchestrator"].folder / "store")
    try:
        found = {
            f"{what}-{number}": str((store.document("trio", number, kind, author=author) or {})["payload"][field])
            for number in (1, 2)
            for what, kind, field, author in (
                ("model", "plan", "model_hash", ""),
                ("key", "plan", "key_hash", ""),
                ("integers", "result", "integers_hash", "keyholder"),
            )
        }
        for number in (1, 2):
            commitments = store.document("trio", number, "commitments", closing=1) or {}
            found[f"sum-{number}"] = commitments["payload"]["sum_hash"]
        found["final"] = str((store.document("trio", 2, "checkpoint") or {})["model_hash"])
        return found
    finally:
        store.close()


def test_everybody_fetches_what_their_part_needs_and_nothing_else(
    consortium: Consortium, finished: dict[str, Any]
) -> None:
    assert finished["state"] == "finished"
    home = consortium.homes["keyholder"]
    keyholder = SignedClient(home.identity(), consortium.url, consortium.identity.public_key)
    clients = {
        "participant": consortium.hospitals[0].client,
        "downloader": consortium.hospitals[3].client,
        "keyholder": keyholder,
        "orchestrator": consortium.client,
    }
    expected = {
        "participant": {"model-1", "key-1", "model-2", "key-2"},
        "downloader": {"model-1", "model-2", "final"},
        "keyholder": {"sum-2"},
        "orchestrator": set(blobs(consortium)),
    }
    got: dict[str, set[str]] = {who: set() for who in clients}
    for who, client in clients.items():
        for what, digest in blobs(consortium).items():
            try:
                assert sha256_hex(client.get_bytes(f"/blobs/{digest}")) == digest
                got[who].add(what)
            except Refused as error:
                assert "none of your studies" in str(error)
    keyholder.close()
    assert got == expected


def test_a_document_may_be_as_long_as_it_needs_to_be(consortium: Consortium, finished: dict[str, Any]) -> None:
    client = consortium.hospitals[0].client
    long = {"payload": "x" * (1 << 20)}
    for path in ("approvals", "rounds/1/attestation", "rounds/1/refusal"):
        with pytest.raises(InvalidInput, match="at most 1048576 bytes"):
            client.post_json(f"/studies/trio/{path}", long)
    for path in ("/mailbox/remove", "/mailbox/share"):
        with pytest.raises(InvalidInput, match="at most 1048576 bytes"):
            client.post_json(path, long)
    for path, who in (("/studies/trio/rounds/1/key", "keyholder"), ("/studies/trio/rounds/1/result", "keyholder")):
        with pytest.raises(Refused, match=f"only '{who}' may"):
            client.put_bytes(path, b"x" * 1000)
    with pytest.raises(Refused, match="only 'orchestrator' may store models"):
        client.put_bytes(f"/blobs/{sha256_hex(b'x')}", b"x")
