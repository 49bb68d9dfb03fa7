"""A server that strangers may dial stays quick while slow clients hold what they can get, and then lets them go."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TypeVar

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from support.timing import within
from support.waiting import LONG_SECONDS, until
from support.web_server import serving

from datasites.node.credentials.tls import ensure_authority, ensure_server_certificate
from datasites.node.credentials.trust import client_context
from datasites.node.home import Config
from datasites.node.web.server import Patience, PatientProtocol

CONFIG = Config(name="alba", institution="Hospital Alba", role="datasite", orchestrator_url="http://127.0.0.1:9")
QUICK = Patience(
    head_seconds=0.6,
    body_seconds=1.0,
    leftover_seconds=0.4,
    read_seconds=0.6,
    look_seconds=0.1,
    connections=40,
    connections_of_one=30,
)
BIG = b"x" * (8 << 20)
T = TypeVar("T")


def make_app() -> FastAPI:
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.put("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    @app.put("/unread")
    async def unread() -> Response:
        return Response(status_code=403)

    @app.get("/later")
    async def later() -> str:
        await asyncio.sleep(1.5)
        return "news"

    @app.get("/big")
    async def big() -> Response:
        return Response(BIG)

    return app


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(PatientProtocol, "patience", QUICK)
    with serving(make_app(), CONFIG) as found:
        yield found


@contextmanager
def dial(address: tuple[str, int], data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=LONG_SECONDS) as client:
        with suppress(ConnectionError):  # dropped before it has said anything
            client.sendall(data)
        yield client


def in_the_end(act: Callable[[], T]) -> T:
    """Try again where this machine was too busy to be as quick as a client has to be here: one that never may fails."""
    found: list[T] = []

    def tried() -> bool:
        with suppress(httpx.TransportError, OSError):
            found.append(act())
        return bool(found)

    until(tried, "an honest client is answered")
    return found[0]


def is_alive(address: tuple[str, int]) -> float:
    started = time.monotonic()
    url = f"http://127.0.0.1:{address[1]}/healthz"
    assert httpx.get(url, timeout=LONG_SECONDS, trust_env=False).json() == {"status": "ok"}
    return time.monotonic() - started


def taken(client: socket.socket) -> int:
    """Read to the end, which may be a broken connection, and return how many bytes there were."""
    count = 0
    with suppress(ConnectionError):
        while part := client.recv(1 << 20):
            count += len(part)
    return count


def seconds_until_dropped(client: socket.socket, drip: bytes = b"", *, since: float) -> float:
    """Send ``drip`` again and again until the server has closed the connection."""
    client.settimeout(0.1)
    while time.monotonic() - since < LONG_SECONDS:
        try:
            if drip:
                client.sendall(drip)
            if client.recv(65_536) == b"":
                return time.monotonic() - since
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - since
    raise AssertionError("the server never closed the connection")


def begins(client: socket.socket, answer: bytes) -> None:
    """Read the beginning of an answer; an honest client that was too slow here has to try again."""
    got = client.recv(65_536)
    if not got:
        raise ConnectionError("dropped")
    assert got.startswith(answer)


def test_a_connection_that_asks_for_nothing_is_dropped(address) -> None:
    since = time.monotonic()
    with dial(address) as client:
        assert seconds_until_dropped(client, since=since) > 0.4


def test_a_head_that_comes_byte_by_byte_is_dropped_however_steadily_it_comes(address) -> None:
    since = time.monotonic()
    with dial(address, b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ") as client:
        assert seconds_until_dropped(client, b"z", since=since) > 0.4


def test_a_second_request_that_never_ends_is_dropped_too(address) -> None:
    def asks_twice() -> None:
        with dial(address, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n") as client:
            begins(client, b"HTTP/1.1 200")
            client.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            seconds_until_dropped(client, b"z", since=time.monotonic())

    in_the_end(asks_twice)


def test_a_head_without_end_is_refused(address) -> None:
    def asks() -> None:
        with dial(address, b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: " + b"z" * 50_000) as client:
            begins(client, b"HTTP/1.1 400")

    in_the_end(asks)


@pytest.mark.parametrize("head", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_body_that_comes_byte_by_byte_is_dropped(address, head) -> None:
    since = time.monotonic()
    with dial(address, b"PUT /body HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n") as client:
        drip = b"1\r\nz\r\n" if b"chunked" in head else b"z"
        assert seconds_until_dropped(client, drip, since=since) > 0.4


def test_what_is_left_of_a_refused_body_is_not_waited_for(address) -> None:
    def asks() -> None:
        with dial(address, b"PUT /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n") as client:
            begins(client, b"HTTP/1.1 403")
            seconds_until_dropped(client, b"z", since=time.monotonic())

    in_the_end(asks)


def test_a_client_that_does_not_take_its_answer_is_dropped(address, monkeypatch) -> None:
    lost, dropped = PatientProtocol.connection_lost, threading.Event()

    def connection_lost(protocol: PatientProtocol, error: Exception | None) -> None:
        lost(protocol, error)
        dropped.set()

    monkeypatch.setattr(PatientProtocol, "connection_lost", connection_lost)
    with dial(address, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n") as client:
        assert dropped.wait(LONG_SECONDS)
        assert taken(client) < len(BIG)


def test_a_slow_but_steady_body_arrives(address) -> None:
    head = b"PUT /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 80000\r\n\r\n"

    def sends() -> None:
        with dial(address, head) as client:
            for _ in range(20):
                client.sendall(b"z" * 4000)
                time.sleep(0.1)
            got = client.recv(65_536)
            if not got:
                raise ConnectionError("dropped")
            assert got.endswith(b"80000")

    in_the_end(sends)


def test_an_answer_that_takes_its_time_is_waited_for(address) -> None:
    where = {"base_url": f"http://127.0.0.1:{address[1]}", "trust_env": False, "timeout": LONG_SECONDS}
    with httpx.Client(**where) as client:
        assert in_the_end(lambda: client.get("/later").json()) == "news"
        assert in_the_end(lambda: len(client.get("/big").content)) == len(BIG)


@pytest.fixture
def holding(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A server that drops nobody but to make room."""
    monkeypatch.setattr(PatientProtocol, "patience", replace(QUICK, head_seconds=600.0, body_seconds=600.0))
    with serving(make_app(), CONFIG) as found:
        yield found


def test_the_server_answers_while_hundreds_of_slow_clients_hold_on(holding) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(dial(holding, b"GET /healthz HTTP/1.1\r\nX-Slow: "))
        assert within(max(is_alive(holding) for _ in range(5)), 1)


def test_requests_under_way_are_not_dropped_to_make_room(holding) -> None:
    head = b"PUT /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with ExitStack() as stack:
        busy = stack.enter_context(dial(holding, head))
        assert busy.recv(65_536).startswith(b"HTTP/1.1 100")  # the server has read that this one asks for something
        for _ in range(60):
            stack.enter_context(dial(holding))
        busy.sendall(b"hello")
        assert busy.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_tls_handshake_that_never_comes_is_dropped(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(PatientProtocol, "patience", QUICK)
    monkeypatch.setattr("datasites.node.web.server._HANDSHAKE_SECONDS", 0.5)
    authority = ensure_authority(tmp_path, name="alba")
    certificate = ensure_server_certificate(authority, tmp_path, names=["127.0.0.1"])
    config = Config(**{**vars(CONFIG), "tls_certificate": str(certificate)})
    with serving(make_app(), config) as address:
        since = time.monotonic()
        with dial(address) as client:
            assert seconds_until_dropped(client, since=since) > 0.3
        context = client_context(authority.certificate_path)
        url = f"https://127.0.0.1:{address[1]}/healthz"
        answer = in_the_end(lambda: httpx.get(url, verify=context, trust_env=False, timeout=LONG_SECONDS))
        assert answer.status_code == 200
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(authority.certificate_path)
        with pytest.warns(DeprecationWarning):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError), socket.create_connection(address) as plain:
            old.wrap_socket(plain, server_hostname="127.0.0.1")
