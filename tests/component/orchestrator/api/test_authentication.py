"""A signed client and a server that checks it, in one process without a network."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.testclient import TestClient

from datasites.node.credentials.tokens import make_token
from datasites.node.http import Declined, SignedClient
from datasites.node.web.problems import install_problem_handlers
from datasites.study.proposal import Party
from datasites.study.protocol import PROPOSALS, PROTOCOL, PROTOCOL_HEADER, major_minor
from orchestrator.api.authentication import Authenticator, SpeaksProtocol, StreamedCall
from privacy.canonical import sha256_hex
from privacy.errors import BudgetExceeded, InvalidInput, OtherProtocol, Refused, Tampered, TesseraError
from privacy.identity import Identity

SERVER = Identity.from_seed(b"s" * 32)
KNOWN = Identity.from_seed(b"k" * 32)
STRANGER = Identity.from_seed(b"x" * 32)
PARTY = Party(name="north", institution="North Hospital", public_key=KNOWN.public_key)
ERRORS = {"invalid": InvalidInput, "refused": Declined, "tampered": Tampered, "budget": BudgetExceeded}


def make_app() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    registry = {KNOWN.public_key: PARTY}
    authenticate = Authenticator(SERVER.public_key, registry.get, max_body_bytes=1000)

    @app.get("/whoami")
    async def whoami(caller: Party = Depends(authenticate)) -> str:
        return caller.name

    @app.post("/echo")
    async def echo(request: Request, caller: Party = Depends(authenticate)) -> Any:
        return {"caller": caller.name, "got": await request.json()}

    @app.put("/stream")
    async def stream(request: Request, call: StreamedCall = Depends(authenticate.streamed)) -> bool:
        return sha256_hex(await request.body()) == call.body_hash

    @app.get("/fail/{name}")
    async def fail(name: str) -> None:
        if name in ERRORS:
            raise ERRORS[name](f"because {name}")
        raise RuntimeError("a secret of the server")

    return app


class InProcess(httpx.BaseTransport):
    """Carries httpx requests into a TestClient; the first ``failures`` of them meet a server that is away."""

    def __init__(self, app: FastAPI, failures: int = 0) -> None:
        self.client = TestClient(app, raise_server_exceptions=False)
        self.failures = failures
        self.tokens: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.tokens.append(request.headers["Authorization"])
        if self.failures:
            self.failures -= 1
            if self.failures % 2:
                return httpx.Response(503)
            raise httpx.ConnectError("connection refused")
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        answer = self.client.request(
            request.method, request.url.raw_path.decode(), content=request.read(), headers=headers
        )
        return httpx.Response(answer.status_code, content=answer.content, headers=dict(answer.headers))


def client(identity: Identity = KNOWN, *, failures: int = 0, retry_seconds: float = 20) -> SignedClient:
    transport = InProcess(make_app(), failures)
    return SignedClient(identity, "http://server", SERVER.public_key, transport=transport, retry_seconds=retry_seconds)


def test_a_registered_caller_is_recognised() -> None:
    assert client().get_json("/whoami", params={"a": "b c", "none": None}) == "north"


def test_a_stranger_is_refused() -> None:
    with pytest.raises(Refused, match="not known"):
        client(STRANGER).get_json("/whoami")


def test_a_body_travels_and_is_covered_by_the_token() -> None:
    assert client().post_json("/echo", {"x": 1.5}) == {"caller": "north", "got": {"x": 1.5}}
    assert client().put_bytes("/stream", b"bytes") is True


def test_a_swapped_body_is_refused() -> None:
    header = make_token(KNOWN, audience=SERVER.public_key, method="POST", target="/echo", body_hash=sha256_hex(b"1"))
    answer = TestClient(make_app()).post("/echo", content=b"2", headers={"Authorization": header})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert "another body" in answer.json()["detail"]


def test_a_body_that_is_too_long_is_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="at most 1000 bytes"):
        client().post_json("/echo", "x" * 2000)


@pytest.mark.parametrize("name", ERRORS)
def test_errors_arrive_as_what_they_were(name: str) -> None:
    with pytest.raises(ERRORS[name], match=f"because {name}") as caught:
        client().get_json(f"/fail/{name}")
    assert type(caught.value) is ERRORS[name]


def test_an_unexpected_failure_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TesseraError) as caught:
        client().get_json("/fail/other")
    assert "secret" not in str(caught.value)
    assert "a request failed unexpectedly" in caplog.text


def test_a_server_that_is_away_is_asked_again_with_a_new_token() -> None:
    asking = client(failures=3)
    assert asking.get_json("/whoami") == "north"
    transport = asking._client._transport
    assert isinstance(transport, InProcess)
    assert len(set(transport.tokens)) == 4


def test_a_server_that_stays_away_is_named_in_one_line() -> None:
    with pytest.raises(TesseraError, match="http://server did not answer GET /whoami"):
        client(failures=10**6, retry_seconds=0.3).get_json("/whoami")


def test_an_answer_that_is_too_long_is_not_read() -> None:
    with pytest.raises(InvalidInput, match="at most 3 bytes"):
        client().get_json("/whoami", max_bytes=3)


def spoken(said: str | None) -> httpx.Response:
    """Ask as a known caller whose protocol has another version."""
    header = make_token(KNOWN, audience=SERVER.public_key, method="GET", target="/whoami", body_hash=sha256_hex(b""))
    named = {} if said is None else {PROTOCOL_HEADER: said}
    return TestClient(make_app()).get("/whoami", headers={"Authorization": header, **named})


def test_a_neighbouring_protocol_is_understood() -> None:
    major, minor = major_minor(PROTOCOL)
    assert spoken(None).json() == spoken(f"{major}.{minor + 1}").json() == spoken(f"{major}.{minor - 1}").json()


@pytest.mark.parametrize("steps", [2, 40])
def test_a_protocol_out_of_the_window_is_refused_with_both_versions(steps: int) -> None:
    major, minor = major_minor(PROTOCOL)
    answer = spoken(f"{major}.{minor + steps}")
    assert answer.status_code == 426
    problem = answer.json()
    assert problem["type"] == "urn:tessera:other-protocol"
    assert f"{major}.{minor + steps}" in problem["detail"] and PROTOCOL in problem["detail"]


def test_a_server_out_of_the_window_is_named_by_the_client() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=1, headers={PROTOCOL_HEADER: "7.0"}))
    asking = SignedClient(KNOWN, "http://server", SERVER.public_key, transport=transport)
    with pytest.raises(OtherProtocol, match=r"the server speaks version 7\.0"):
        asking.get_json("/whoami")


def test_a_refusal_for_the_protocol_reaches_the_client_as_one() -> None:
    problem = {"type": "urn:tessera:other-protocol", "detail": "north speaks version 0.1"}
    transport = httpx.MockTransport(lambda _: httpx.Response(426, json=problem))
    asking = SignedClient(KNOWN, "http://server", SERVER.public_key, transport=transport)
    with pytest.raises(OtherProtocol, match=r"north speaks version 0\.1"):
        asking.get_json("/whoami")


def test_every_answer_names_the_protocol_and_what_callers_run_is_heard() -> None:
    heard: list[tuple[str, ...]] = []
    app = FastAPI()
    app.add_middleware(SpeaksProtocol)
    authenticate = Authenticator(
        SERVER.public_key, {KNOWN.public_key: PARTY}.get, runs=lambda *said: heard.append(said)
    )

    @app.get("/whoami")
    async def whoami(caller: Party = Depends(authenticate)) -> str:
        return caller.name

    transport = InProcess(app)
    asking = SignedClient(KNOWN, "http://server", SERVER.public_key, transport=transport, data_software="a" * 64)
    assert asking.get_json("/whoami") == "north"
    assert heard == [("north", PROTOCOL, version("tessera-fl"), "a" * 64, str(PROPOSALS))]
    assert transport.client.get("/nowhere").headers[PROTOCOL_HEADER] == PROTOCOL
