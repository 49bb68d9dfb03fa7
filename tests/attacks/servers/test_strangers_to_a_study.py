"""A hospital of the consortium asks for models, sums and evidence of a study that it takes no part in.

Played: every address that gives something of a study, asked by a hospital outside it, by the keyholder for what is not
its own, and for another study's blobs by hash.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.played import Played

from datasites.study.signing import seal
from privacy.errors import InvalidInput, Refused


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with Played(tmp_path_factory.mktemp("strangers"), sites=4) as made:
        made.open()
        three = made.proposal("trio", length=60).participants[:3]
        proposal = made.propose("trio", length=60, rounds=2, participants=three, approve=False)
        for hospital in made.hospitals[:3]:
            hospital.approve(seal(made.identity, "proposal", proposal))
        assert made.play("trio")["state"] == "finished"
        yield made


def blobs(played: Played) -> dict[str, str]:
    store, found = played.service.store, {}
    for number in (1, 2):
        for what, kind, author, field in (
            ("model", "plan", "", "model_hash"),
            ("key", "plan", "", "key_hash"),
            ("integers", "result", "keyholder", "integers_hash"),
        ):
            document = store.document("trio", number, kind, author=author) or {}
            found[f"{what} {number}"] = str(document["payload"][field])
        checkpoint = store.document("trio", number, "checkpoint") or {}
        found[f"checkpoint {number}"] = str(checkpoint["model_hash"])
        served = store.document("trio", number, "served") or {}
        found[f"sum {number}"] = str(served["sum_hash"])
    return found


@pytest.mark.parametrize("what", ["evidence", "integers"])
@pytest.mark.parametrize("asking", ["site-3", "keyholder"])
def test_evidence_and_integers_go_to_the_studys_hospitals_alone(played: Played, asking: str, what: str) -> None:
    for number in (1, 2):
        with played.signed(asking) as client, pytest.raises(Refused, match="take no part"):
            client.get_bytes(f"/studies/trio/rounds/{number}/{what}")
        with played.signed("site-0") as client:
            assert client.get_bytes(f"/studies/trio/rounds/{number}/{what}")


@pytest.mark.parametrize("number", [0, 3, 99, -1])
def test_rounds_that_are_not_over_have_no_evidence(played: Played, number: int) -> None:
    for what in ("evidence", "integers"):
        with played.signed("site-0") as client, pytest.raises(InvalidInput):
            client.get_bytes(f"/studies/trio/rounds/{number}/{what}")


def test_no_blob_of_the_study_goes_to_a_hospital_outside_it(played: Played) -> None:
    for what, digest in blobs(played).items():
        with played.signed("site-3") as client, pytest.raises(Refused, match="none of your studies"):
            client.get_bytes(f"/blobs/{digest}")
        with played.signed("keyholder") as client:
            if what != "sum 2":
                with pytest.raises(Refused, match="none of your studies"):
                    client.get_bytes(f"/blobs/{digest}")


def test_no_hospital_of_the_study_gets_an_encrypted_sum(played: Played) -> None:
    found = blobs(played)
    with played.signed("site-0") as client:
        assert client.get_bytes(f"/blobs/{found['model 1']}")  # the initial model, which its proposal binds
        for what in ("sum 1", "sum 2", "integers 1"):
            with pytest.raises(Refused):
                client.get_bytes(f"/blobs/{found[what]}")


def test_a_hospital_outside_sees_nothing_of_the_study_and_still_its_own_list(played: Played) -> None:
    with played.signed("site-3") as client:
        with pytest.raises(Refused, match="no part"):
            client.get_json("/studies/trio")
        assert client.get_json("/studies") == []
    with played.signed("site-0") as client:
        assert [status["study"] for status in client.get_json("/studies")] == ["trio"]
