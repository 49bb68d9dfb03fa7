"""Requests whose head says one thing to a proxy and another to us, or that make a server work for nothing.

Played at a real server of ours, byte by byte: encoded and doubled slashes, dots, backslashes and control characters in
the path; encoded bodies; repeated and countless headers; ranges without end; a forged address and scheme. And HTTPS:
browsers that came by it once are told to come by nothing else.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from support.web_server import serving

from datasites.node.home import Config

CONTENT = b"0123456789" * 100


@contextmanager
def running(folder: Path, **config: str) -> Iterator[tuple[str, int]]:
    (folder / "blob").write_bytes(CONTENT)
    app = FastAPI()

    @app.get("/blob")
    async def blob() -> FileResponse:
        return FileResponse(folder / "blob")

    @app.post("/seen")
    async def seen(request: Request) -> dict[str, object]:
        client = request.client
        return {
            "address": client.host if client else "",
            "scheme": request.url.scheme,
            "names": sorted({name for name, _ in request.headers.items()}),
        }

    @app.get("/{path:path}")
    async def everything(path: str) -> dict[str, str]:
        return {"path": path}

    settings = Config(name="a", institution="A", role="datasite", orchestrator_url="http://127.0.0.1:9", **config)
    with serving(app, settings) as address:
        yield address


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with running(tmp_path_factory.mktemp("plain")) as found:
        yield found


def say(
    address: tuple[str, int], method: bytes, target: bytes, *headers: bytes, body: bytes = b""
) -> tuple[int, bytes]:
    head = [method + b" " + target + b" HTTP/1.1", b"host: here", b"connection: close", *headers]
    if body or method == b"POST":
        head.append(b"content-length: %d" % len(body))
    with socket.create_connection(address, timeout=120) as connection:
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n" + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]), answer


CROOKED = (
    *(
        b"//blob",
        b"/a//blob",
        b"/./blob",
        b"/a/../blob",
        b"/a/..",
        b"/a%2fblob",
        b"/a%2Fblob",
        b"/%2e%2e/blob",
        b"/a\\blob",
    ),
    *(b"/a%5cblob", b"/a%00", b"/a%0d%0ax", b"/a%09x", b"/%2e/blob"),
)


@pytest.mark.parametrize("target", CROOKED, ids=ascii)
def test_an_address_has_one_spelling(address: tuple[str, int], target: bytes) -> None:
    status, answer = say(address, b"GET", target)
    assert status == 400
    assert b"evil" not in answer


@pytest.mark.parametrize("target", [b"/blob", b"/studies/pilot%20two", b"/a?to=/x//y&z=%2f", b"/a.b/c-d_e~f"])
def test_plain_addresses_are_answered(address: tuple[str, int], target: bytes) -> None:
    assert say(address, b"GET", target)[0] == 200


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"br", b"zstd", b"identity, gzip", b"x"])
def test_an_encoded_body_is_not_taken(address: tuple[str, int], encoding: bytes) -> None:
    assert say(address, b"POST", b"/seen", b"content-encoding: " + encoding, body=b"x")[0] == 415


@pytest.mark.parametrize(
    "header", [b"authorization: a", b"content-type: a/b", b"cookie: a=b", b"content-encoding: identity"]
)
def test_a_header_that_counts_stands_once(address: tuple[str, int], header: bytes) -> None:
    assert say(address, b"POST", b"/seen", header)[0] == 200
    assert say(address, b"POST", b"/seen", header, header)[0] == 400


def test_two_lengths_or_hosts_are_refused(address: tuple[str, int]) -> None:
    assert say(address, b"POST", b"/seen", b"content-length: 5")[0] == 400
    assert say(address, b"GET", b"/blob", b"host: elsewhere")[0] == 400
    assert (
        say(address, b"POST", b"/seen", b"transfer-encoding: chunked", b"content-length: 4", body=b"0\r\n\r\n")[0]
        == 400
    )


def test_countless_headers_are_refused(address: tuple[str, int]) -> None:
    assert say(address, b"GET", b"/blob", *(b"x-%d: y" % n for n in range(100)))[0] == 400


RANGES = (b"bytes=0-0", b"bytes=" + b",".join(b"%d-" % n for n in range(500)), b"bytes=-1", b"bytes=5-2", b"lines=1")


@pytest.mark.parametrize("asked", RANGES, ids=lambda asked: asked[:12].decode())
def test_no_range_is_looked_at(address: tuple[str, int], asked: bytes) -> None:
    status, answer = say(address, b"GET", b"/blob", b"range: " + asked, b"accept-encoding: gzip, br, zstd")
    assert status == 200
    assert answer.endswith(b"\r\n\r\n" + CONTENT)
    assert b"content-encoding" not in answer.lower() and b"content-range" not in answer.lower()


def test_whoever_asks_does_not_choose_its_address_or_scheme(address: tuple[str, int]) -> None:
    forged = (b"x-forwarded-for: 10.9.8.7", b"x-forwarded-proto: https", b"forwarded: for=10.9.8.7;proto=https")
    status, answer = say(address, b"POST", b"/seen", *forged, b"range: bytes=0-1", b"if-range: x")
    assert status == 200
    assert b'"address":"127.0.0.1"' in answer and b'"scheme":"http"' in answer
    assert b"range" not in answer.partition(b"\r\n\r\n")[2]


def test_browsers_that_came_by_https_come_by_nothing_else(address: tuple[str, int], tmp_path: Path) -> None:
    assert b"strict-transport-security" not in say(address, b"GET", b"/blob")[1].lower()
    with running(tmp_path, public_url="https://portal.example") as behind_a_proxy:
        for target in (b"/blob", b"//refused", b"/x"):
            assert b"strict-transport-security: max-age=31536000" in say(behind_a_proxy, b"GET", target)[1].lower()
