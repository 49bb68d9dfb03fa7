"""A server answers a small request with a body that grows a hundred thousandfold when it is decompressed.

Played against every client that listens to somebody else's server: our own signed client, the hospital's sign-in and
GDC. Each asks for no encoding, reads nothing of an encoded answer, and counts a plain one as it arrives.
"""

from __future__ import annotations

import gzip
import http.server
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from datasites.data.convert.gdc_client import GdcClient
from datasites.node.http import SignedClient
from datasites.review.oidc import OidcProvider, OidcSettings
from privacy.errors import InvalidInput, TesseraError
from privacy.identity import Identity

GROWN_BYTES = 256 << 20
ENCODED: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(bytes(GROWN_BYTES)),
    "deflate": lambda: zlib.compress(bytes(GROWN_BYTES), 9),
    "br": lambda: b"whatever it is",
    "zstd": lambda: b"whatever it is",
    "gzip, identity": lambda: b"whatever it is",
    "x-unknown": lambda: b"whatever it is",
}


class Bomb(http.server.BaseHTTPRequestHandler):
    encoding: ClassVar[str] = ""
    body: ClassVar[bytes] = b""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("accept-encoding", ""))
        self.send_response(200)
        if self.encoding:
            self.send_header("content-encoding", self.encoding)
        self.send_header("content-type", "application/json")
        self.end_headers()
        with suppress(OSError):  # whoever asked has had enough
            self.wfile.write(self.body)

    do_PUT = do_POST = do_GET  # noqa: N815 - as the library calls them

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def served(encoding: str, body: bytes) -> Iterator[str]:
    handler = type("Handler", (Bomb,), {"encoding": encoding, "body": body, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        assert set(handler.asked) <= {"identity"}


def signed_client(url: str) -> None:
    identity = Identity.from_seed(b"c" * 32)
    with SignedClient(identity, url, identity.public_key, retry_seconds=0) as client:
        client.get_json("/work", max_bytes=1 << 20)


def signed_problem(url: str) -> None:
    identity = Identity.from_seed(b"c" * 32)
    with SignedClient(identity, url, identity.public_key, retry_seconds=0) as client:
        client.put_bytes("/blobs/x", b"", max_bytes=1 << 20)


def sign_in(url: str) -> None:
    settings = OidcSettings(issuer=url, client_id="portal", portal_url=url)
    OidcProvider(settings).begin()


def gdc(url: str) -> None:
    with GdcClient(url, attempts=1, sleep=lambda _: None) as client:
        client.cases("TCGA-BRCA")


CLIENTS = (signed_client, signed_problem, sign_in, gdc)


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_an_encoded_answer_is_not_even_read(client: Callable[[str], None], encoding: str) -> None:
    body = ENCODED[encoding]()
    with served(encoding, body) as url:
        tracemalloc.start()
        try:
            with pytest.raises(TesseraError):
                client(url)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_plain_answer_without_end_is_counted_as_it_arrives(client: Callable[[str], None]) -> None:
    with served("", bytes(96 << 20)) as url, pytest.raises(TesseraError):
        client(url)


def test_what_is_expected_is_said(tmp_path: Path) -> None:
    with served("gzip", b"") as url, pytest.raises(InvalidInput, match="without content encoding"):
        signed_client(url)
