"""Archives a peer may send in place of a message: bombs, links, devices, sparse files, a million entries."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from syft.sync.utils.syftbox_utils import compress_data

from datasites.syft.guards import MAX_FILES, MAX_JOBS, GuardedRouter, unpacked
from privacy.errors import InvalidInput, Refused, TesseraError

NAME = "proposed_file_changes.json"
LAB = "lab@tessera.invalid"
INBOX = f"app_data/job/inbox/{LAB}/v1"


def archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=form) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def entry(name: str = NAME, *, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def sparse_terabyte() -> bytes:
    """A file of one terabyte of which nothing is stored, as PAX describes it."""
    info = entry(size=0)
    info.pax_headers = {
        "GNU.sparse.size": str(1 << 40),
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.map": f"{1 << 40},0",
    }
    return archive((info, b""))


def old_sparse_terabyte() -> bytes:
    block = bytearray(entry(kind=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"%011o\0" % 0, b"%011o\0" % 0
    block[483:495] = b"%011o " % ((1 << 33) - 1)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(block) + bytes(1024))


def cut_short() -> bytes:
    return gzip.compress(entry(size=10_000).tobuf() + b"{}" + bytes(510))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "not compressed": lambda: b"not gzip",
    "nothing inside": lambda: gzip.compress(b""),
    "an end that never came": lambda: compress_data(b"{}")[:-20],
    "zeros without end": lambda: gzip.compress(bytes(3 << 20)),
    "a symbolic link": lambda: archive((entry(kind=tarfile.SYMTYPE, link="/etc/passwd"), b"")),
    "a link to itself": lambda: archive((entry(kind=tarfile.SYMTYPE, link=NAME), b"")),
    "a hard link": lambda: archive((entry(kind=tarfile.LNKTYPE, link="other"), b"")),
    "a device": lambda: archive((entry(kind=tarfile.CHRTYPE), b"")),
    "a pipe": lambda: archive((entry(kind=tarfile.FIFOTYPE), b"")),
    "a folder": lambda: archive((entry(kind=tarfile.DIRTYPE), b"")),
    "a sparse terabyte": sparse_terabyte,
    "an old sparse terabyte": old_sparse_terabyte,
    "a size that is not there": cut_short,
    "an archive in the archive": lambda: gzip.compress(archive((entry(), b""))),
    "a zip archive": lambda: gzip.compress(b"PK\x03\x04" + bytes(600)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_archive_of_one_plain_file_is_refused_and_costs_no_memory(what: str) -> None:
    data = HOSTILE[what]()
    tracemalloc.start()
    with pytest.raises(Refused):
        unpacked(data, limit_bytes=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_an_honest_message_is_read() -> None:
    assert unpacked(compress_data(b'{"a": 1}')) == b'{"a": 1}'


@pytest.mark.parametrize("name", ["/etc/passwd", "../../escaped", "a\0b", NAME])
def test_the_name_inside_an_archive_leads_nowhere(name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.parent.rglob("escaped"))
    content = unpacked(archive((entry(name.replace("\0", "_"), size=2), b"{}")))
    assert content == b"{}"
    assert sorted(tmp_path.parent.rglob("escaped")) == before


def test_of_a_hundred_thousand_entries_and_of_double_names_only_the_first_is_looked_at() -> None:
    first = entry(size=7).tobuf() + b'"first"' + bytes(505)
    second = entry(size=8).tobuf() + b'"second"' + bytes(504)
    assert unpacked(gzip.compress(first + second * 100_000 + bytes(1024), 1)) == b'"first"'


def router(folder: Path, content: bytes) -> GuardedRouter:
    """A router whose peers' messages decrypt to ``content``."""
    made = GuardedRouter.model_construct(connections=[], datasite=folder)
    store = SimpleNamespace(decrypt_and_verify_if_needed=lambda *_: content)
    object.__setattr__(made, "__dict__", {**made.__dict__, "peer_store": store, "datasite": folder})
    return made


def change(path: str, **changes: Any) -> dict[str, Any]:
    return {"path_in_datasite": path, "datasite_email": "north@tessera.invalid", "content": "x", **changes}


def read(folder: Path, changes: list[dict[str, Any]], sender: str = LAB) -> Any:
    body = json.dumps({"sender_email": sender, "proposed_file_changes": changes}).encode()
    return router(folder, compress_data(body))._read(LAB, b"sealed")


def test_an_honest_proposal_comes_through(tmp_path: Path) -> None:
    assert len(read(tmp_path, [change(f"{INBOX}/job/code/main.py")]).proposed_file_changes) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/etc/cron.d/x",
        f"{INBOX}/../../../../escaped/x",
        f"{INBOX}/job/../../../x/y",
        f"{INBOX}/job/.ssh/authorized_keys",
        f"{INBOX}/job/a\x00b",
        f"{INBOX}/job/a\nb",
        f"{INBOX}/job/a\\..\\b",
        f"{INBOX}/job/" + "n" * 300,
        "app_data/job/inbox/other@tessera.invalid/v1/job/x",
        f"{INBOX}/job/syft.pub.yaml",
        "public/x",
        "",
        ".",
    ],
)
def test_a_path_that_leads_out_of_the_senders_inbox_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(TesseraError):
        read(tmp_path, [change(path)])


@pytest.mark.parametrize("name", ["\u202egnp.yp", "a\u2066b", "a\u200bb", "a\u2028b"])
def test_a_name_that_reads_as_another_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        read(tmp_path, [change(f"{INBOX}/job/code/{name}")])


def test_a_million_files_are_refused_before_they_are_made(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="at most"):
        read(tmp_path, [change("a")] * (MAX_FILES + 1))


def test_a_sender_with_very_many_jobs_has_to_remove_some(tmp_path: Path) -> None:
    for number in range(MAX_JOBS):
        (tmp_path / INBOX / f"job-{number}").mkdir(parents=True)
    with pytest.raises(Refused, match="jobs here"):
        read(tmp_path, [change(f"{INBOX}/one-more/code/main.py")])


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b'"\\ud800"', b"\xff", b"NaN"])
def test_json_tricks_are_malformed_and_nothing_else(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ValidationError):
        router(tmp_path, compress_data(body))._read(LAB, b"sealed")
