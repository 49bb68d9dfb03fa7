"""The orchestrator's store: documents are kept once and for ever, blobs by their hash."""

from __future__ import annotations

from uuid import uuid4

import pytest

from datasites.study.messages import HelperKey, Void
from datasites.study.signing import Signed, seal
from orchestrator.rounds.store import Store
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity

SIGNED = Signed(kind="proposal", payload={"study": "s"}, public_key="k", signature="x")
OTHER = Signed(kind="proposal", payload={"study": "t"}, public_key="k", signature="x")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request):
    if request.param == "sqlite":
        return None
    return request.getfixturevalue("postgres")(f"store_{uuid4().hex}")


@pytest.fixture
def store(tmp_path, database):
    made = Store(tmp_path, database)
    yield made
    made.close()


def test_a_document_is_kept_once_and_no_other_takes_its_place(store):
    assert store.put_document("s", 1, "update", SIGNED, author="a")
    assert not store.put_document("s", 1, "update", SIGNED, author="a")
    with pytest.raises(Refused, match="another update"):
        store.put_document("s", 1, "update", OTHER, author="a")
    assert set(store.documents("s", 1, "update")) == {"a"}
    assert store.document("s", 2, "update", author="a") is None


def test_a_study_name_belongs_to_one_proposal(store):
    store.add_study("s", SIGNED)
    store.add_study("s", SIGNED)
    with pytest.raises(Refused, match="another proposal"):
        store.add_study("s", OTHER)
    store.set_state("s", "paused", "because")
    assert store.study("s") == (SIGNED, "paused", "because")
    with pytest.raises(InvalidInput, match="study state"):
        store.set_state("s", "dancing")
    with pytest.raises(InvalidInput, match="no study"):
        store.study("unknown")


def test_everything_is_there_after_a_restart(tmp_path, database):
    first = Store(tmp_path, database)
    first.add_study("s", SIGNED)
    first.put_document("s", 3, "checkpoint", {"model_hash": "m"})
    digest = first.put_blob(b"model")
    first.close()
    second = Store(tmp_path, database)
    assert (tmp_path / "orchestrator.sqlite").exists() == (database is None)
    assert second.last_round("s", "checkpoint") == 3
    assert second.blob(digest) == b"model"
    second.close()


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "AB" * 32, "0" * 63, "g" * 64])
def test_only_hashes_name_blobs(store, digest):
    with pytest.raises(InvalidInput, match="SHA-256"):
        store.blob_path(digest)


def test_the_value_in_a_document_is_parsed_once_and_only_as_what_it_is(store):
    void = Void(study="s", round=1, list_hash="l", party="a")
    assert store.opened(Void, "s", 1, "void", author="a") is None
    store.put_document("s", 1, "void", seal(Identity.generate(), "void", void), author="a")
    found = store.opened(Void, "s", 1, "void", author="a")
    assert found == void and store.opened(Void, "s", 1, "void", author="a") is found
    with pytest.raises(InvalidInput, match="expected a HelperKey"):
        store.opened(HelperKey, "s", 1, "void", author="a")
