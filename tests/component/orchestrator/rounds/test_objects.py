"""Blobs in an S3-compatible store: moto's server, with the library that the product uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasites.node.web.problems import describe
from orchestrator.objects import bucket
from orchestrator.objects.bucket import Objects
from orchestrator.rounds.store import Store
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Tampered

pytest.importorskip("obstore", reason="needs the extra s3")
server_of = pytest.importorskip("moto.server", reason="needs the extra s3-test")

KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "only for made-up blobs", "AWS_REGION": "us-east-1"}
URL = "s3://blobs/study-office"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    import httpx

    httpx.post(f"{endpoint}/moto-api/reset")
    httpx.put(f"{endpoint}/blobs")
    found = {**KEYS, "AWS_ENDPOINT_URL": endpoint}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def test_what_one_orchestrator_keeps_another_one_reads(tmp_path: Path, environment: dict[str, str]) -> None:
    first, second = (Store(tmp_path / name, objects=URL) for name in ("a", "b"))
    digest = first.put_blob(b"a model")
    (tmp_path / "sum").write_bytes(b"a sum")
    summed = first.adopt_blob(tmp_path / "sum", sha256_hex(b"a sum"))
    assert second.blob_bytes(digest) == 7 and not (tmp_path / "b" / "blobs" / digest).exists()
    assert second.blob(digest) == b"a model" and second.blob(summed) == b"a sum"
    assert (tmp_path / "b" / "blobs" / digest).stat().st_mode & 0o077 == 0
    second.drop_blob(digest)
    first.drop_blob(digest)
    for store in (first, second):
        assert store.blob_bytes(digest) is None
        with pytest.raises(InvalidInput, match="no such blob"):
            store.blob(digest)
        store.close()


def test_a_lost_folder_comes_back_from_the_bucket_and_a_name_is_no_path(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    store = Store(tmp_path / "a", objects=URL)
    digest = store.put_blob(b"kept")
    (tmp_path / "a" / "blobs" / digest).unlink()
    assert store.blob(digest) == b"kept"
    for name in ("../secret", "x" * 64, digest.upper(), digest[:-1]):
        with pytest.raises(InvalidInput, match="hexadecimal"):
            store.blob_path(name)
    store.close()


def test_a_changed_blob_is_seen(tmp_path: Path, environment: dict[str, str]) -> None:
    import obstore

    store = Store(tmp_path / "a", objects=URL)
    digest = store.put_blob(b"honest")
    obstore.put(store._objects._store, digest, b"changed")
    assert store.blob(digest) == b"honest"
    (tmp_path / "a" / "blobs" / digest).unlink()
    with pytest.raises(Tampered, match="another hash"):
        store.blob(digest)
    assert not (tmp_path / "a" / "blobs" / digest).exists()
    store.close()


def test_the_folder_is_a_cache_of_a_bounded_size(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_YOUNG_SECONDS", -1.0)
    objects = Objects(tmp_path, URL, kept_bytes=10_000)
    for number in range(40):
        data = bytes([number]) * 1000
        path = tmp_path / sha256_hex(data)
        path.write_bytes(data)
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
        objects.keep(path)
    left = list(tmp_path.glob("[0-9a-f]*"))
    assert 5 <= len(left) <= 10
    gone = sha256_hex(bytes([0]) * 1000)
    assert tmp_path / gone not in left and objects.fetch(tmp_path / gone)


def test_young_copies_stay_however_many_they_are(tmp_path: Path, environment: dict[str, str]) -> None:
    objects = Objects(tmp_path, URL, kept_bytes=100)
    for number in range(5):
        path = tmp_path / sha256_hex(bytes([number]) * 100)
        path.write_bytes(bytes([number]) * 100)
        objects.keep(path)
    assert len(list(tmp_path.glob("[0-9a-f]*"))) == 5


@pytest.mark.parametrize("url", ["bucket", "https://bucket", "s3://", "s3:bucket", "file:///etc"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidInput, match="STORE_URL"):
        Store(tmp_path, objects=url)


def test_a_bucket_that_is_not_there_is_said_at_the_start_without_the_secret(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput, match="can be written") as raised:
        Store(tmp_path, objects="s3://nowhere")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(raised.value)


def test_a_store_that_stops_answering_is_an_error_of_the_disk(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    store = Store(tmp_path, objects=URL)

    def silent(*_: object, **__: object) -> None:
        raise obstore.exceptions.GenericError("connection refused by 10.0.0.1 with key only for made-up blobs")

    monkeypatch.setattr(obstore, "put", silent)
    with pytest.raises(OSError, match="could not be reached") as raised:
        store.put_blob(b"a model")
    said = describe(raised.value)
    assert said.status == 503 and "ask again" in said.detail  # callers do
    assert "made-up" not in str(raised.value)
    monkeypatch.undo()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert store.blob(store.put_blob(b"a model")) == b"a model"  # asked again, it is kept
    store.close()


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(InvalidInput, match=r"tessera-fl\[s3\]"):
        Store(tmp_path, objects=URL)
