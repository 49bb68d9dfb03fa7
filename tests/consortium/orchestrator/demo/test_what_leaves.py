"""Everything that one hospital sends during a demo: every field has a row, and nothing planted is in any byte."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from support.watched_demo import SITE
from support.what_leaves import Request, as_markdown, fields_of, unaccounted

from privacy.ledger.journal import Journal

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def out(watched: Any) -> Path:
    journal = Journal(watched.out / SITE / "journal.sqlite", None)
    assert not list(journal.entries(kind="worker-failed"))  # or nothing private was ever at stake
    journal.close()
    return watched.out


@pytest.fixture(scope="module")
def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{SITE}-sent.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def requests(lines: list[dict[str, Any]]) -> list[Request]:
    return [
        Request(method=x["method"], target=x["target"], headers=x["headers"], body=base64.b64decode(x["body"]))
        for x in lines
        if "method" in x
    ]


@pytest.fixture(scope="module")
def everything(requests: list[Request], lines: list[dict[str, Any]]) -> list[bytes]:
    """Return every byte string that was sent or handed to syft, also unpacked."""
    found = [r.body for r in requests] + [base64.b64decode(x["syft"]) for x in lines if "syft" in x]
    found += [f"{r.target} {dict(r.headers)}".encode() for r in requests]
    return found + [inner for data in found for inner in unpacked(data)]


def unpacked(data: bytes) -> Iterator[bytes]:
    for start in (0, data.find(b"\x1f\x8b")):
        if start >= 0:
            try:
                plain = gzip.decompress(data[start:])
            except (OSError, EOFError, zlib.error):
                continue
            yield plain
            try:
                with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
                    yield from (file.read() for member in archive if (file := archive.extractfile(member)))
            except tarfile.TarError:
                continue


@pytest.fixture(scope="module")
def private(out: Path) -> Path:
    return next((out / SITE / "datasets").glob("*/v1/private"))


def column(path: Path, name: str) -> list[Any]:
    return pyarrow.parquet.read_table(path).column(name).to_pylist()


def test_the_page_is_the_table() -> None:
    assert (ROOT / "docs" / "what-leaves.md").read_text() == as_markdown()


def test_every_field_that_was_sent_has_a_row(requests: list[Request]) -> None:
    assert sorted({line for request in requests for line in unaccounted(request)}) == []
    kinds = {f"{r.method} {r.target.split('?')[0].split('/')[-1]}" for r in requests}
    assert {"GET work", "PUT update", "POST attestation", "POST approvals", "PUT letter", "GET heads"} <= kinds


def test_the_evaluation_leaves_once_and_as_noise(requests: list[Request]) -> None:
    updates = [dict(fields_of(r)) for r in requests if r.target.endswith("/update")]
    counts = [sum(name.startswith("signed.payload.releases.") for name in fields) for fields in updates]
    assert sorted(counts) == [0, 64]
    scores = [v for fields in updates for n, v in fields.items() if ".releases.score." in n]
    assert any(value < 0 for value in scores)


def test_a_field_without_a_row_is_reported() -> None:
    request = Request(method="GET", target="/work?wait=1&patients=17", headers={"X-Count": "17"}, body=b"")
    assert unaccounted(request) == ["GET /work: header.x-count", "GET /work: query.patients"]
    assert unaccounted(Request(method="PUT", target="/other", headers={}, body=b"")) == [
        "PUT /other: the whole request"
    ]


def test_no_case_is_named(everything: list[bytes], private: Path) -> None:
    cases = [case.encode() for case in column(private / "records.parquet", "case_id")]
    assert len(cases) > 50
    text = b"\0".join(everything)
    assert not [case for case in cases if case in text]


def test_no_row_of_features_is_in_any_byte(everything: list[bytes], private: Path, requests: list[Request]) -> None:
    patterns = []
    for modality in ("mrna", "image"):
        table = pyarrow.parquet.read_table(private / f"{modality}.parquet").drop_columns(["case_id"])
        rows = np.stack([c.to_numpy() for c in table.columns], axis=1)[:40, :6]
        for row in rows:
            patterns += [row.astype(kind).tobytes() for kind in (np.float32, np.float64)]
            patterns += [repr(float(value)).encode() for value in row[:2] if len(repr(float(value))) > 8]
    text = b"\0".join(everything)
    assert len(patterns) > 200
    assert not [pattern for pattern in patterns if pattern in text]
    mock = {
        struct.pack("6f", *row)
        for body in _parquet(requests, "mrna")
        for row in _rows(pyarrow.parquet.read_table(io.BytesIO(body)))
    }
    assert mock
    assert not mock & set(patterns)


def test_the_exact_number_of_patients_is_nowhere(requests: list[Request], private: Path) -> None:
    exact = len(column(private / "records.parquet", "case_id"))
    # noise, lengths and the mailbox's numbering may hit the exact number by chance
    chance = {"letter.collection.card.json.dataset.patients", "header.content-length", "query.since"}
    fields = [pair for request in requests for pair in fields_of(request) if pair[0] not in chance]
    assert not [name for name, value in fields if value in (exact, str(exact), float(exact))]
    assert all(pyarrow.parquet.read_metadata(io.BytesIO(b)).num_rows != exact for b in _parquet(requests, ""))


def _parquet(requests: list[Request], name: str) -> list[bytes]:
    fields = (pair for request in requests for pair in fields_of(request))
    return [value for field, value in fields if field.endswith(f"{name}.parquet")]


def _rows(table: Any) -> Iterator[Any]:
    numbers = table.drop_columns(["case_id"])
    yield from np.stack([c.to_numpy() for c in numbers.columns], axis=1)[:, :6].astype(np.float32)
