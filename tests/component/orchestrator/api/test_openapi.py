"""The orchestrator's API keeps to its own description, whoever calls and whatever arrives; so does the dashboard."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from support.pilot_study import NAMES, proposal

from datasites.node.credentials.tokens import make_token
from datasites.node.letters import Place, seal_letter
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import seal
from orchestrator.api import metrics
from orchestrator.api.authentication import _target
from orchestrator.api.server import Service, create_app
from orchestrator.rounds.runner import StudyRunner
from orchestrator.rounds.store import Store
from privacy.canonical import sha256_hex
from privacy.identity import Identity
from privacy.ledger.journal import Journal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # schemathesis imports modules that its own dependencies deprecate
    schemathesis = pytest.importorskip("schemathesis", reason="needs the schemathesis package")
    from hypothesis import given, settings
    from hypothesis import strategies as st

OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
OPERATIONS = [
    *sorted(OPEN),
    ("GET", "/work"),
    ("GET", "/heads"),
    ("POST", "/head"),
    ("POST", "/evidence"),
    ("POST", "/import-gap"),
    ("GET", "/blobs/{digest}"),
    ("PUT", "/blobs/{digest}"),
    ("GET", "/studies"),
    ("POST", "/studies"),
    ("GET", "/studies/{study}"),
    ("GET", "/studies/{study}/report"),
    ("POST", "/studies/{study}/resume"),
    ("POST", "/studies/{study}/approvals"),
    ("GET", "/words"),
    ("GET", "/studies/{study}/words"),
    ("POST", "/studies/{study}/words"),
    ("PUT", "/studies/{study}/rounds/{number}/key"),
    ("PUT", "/studies/{study}/rounds/{number}/update"),
    ("GET", "/studies/{study}/rounds/{number}/evidence"),
    ("GET", "/studies/{study}/rounds/{number}/integers"),
    ("POST", "/studies/{study}/rounds/{number}/attestation"),
    ("PUT", "/studies/{study}/rounds/{number}/result"),
    ("POST", "/studies/{study}/rounds/{number}/refusal"),
    ("PUT", "/mailbox/letter"),
    ("POST", "/studies/{study}/rounds/{number}/helper-key"),
    ("POST", "/studies/{study}/rounds/{number}/pad-commitment"),
    ("PUT", "/studies/{study}/rounds/{number}/pads"),
    ("POST", "/studies/{study}/rounds/{number}/void"),
    ("POST", "/studies/{study}/rounds/{number}/arrival"),
    ("POST", "/studies/{study}/rounds/{number}/clearance"),
    ("PUT", "/studies/{study}/rounds/{number}/opening"),
    ("GET", "/studies/{study}/rounds/{number}/opened/{what}"),
    ("GET", "/mailbox/letter"),
    ("POST", "/mailbox/remove"),
    ("POST", "/mailbox/share"),
    ("GET", "/mailbox/news"),
    ("GET", "/environment"),
    ("POST", "/requests"),
    ("POST", "/studies/{study}/said"),
]
CALLERS = ("dr-lang", "notary", "alba", "ada")
PEOPLE = {
    name: Identity.from_seed(name.encode().ljust(32, b".")) for name in ("dr-lang", "notary", *NAMES, "ada", "mallory")
}


class Signing:
    """Signs every request as one identity, as our own client would, on its way to the application."""

    def __init__(self, app: ASGIApp, identity: Identity, audience: str) -> None:
        self._app, self._identity, self._audience = app, identity, audience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        request = Request(scope)
        token = make_token(
            self._identity,
            audience=self._audience,
            method=request.method,
            target=_target(request),
            body_hash=sha256_hex(body),
        )
        kept = [(name, value) for name, value in scope["headers"] if name not in (b"authorization", b"content-length")]
        scope["headers"] = [*kept, (b"authorization", token.encode()), (b"content-length", str(len(body)).encode())]

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


def party(name: str) -> Party:
    return Party(name=name, institution=f"Institution {name}", public_key=PEOPLE[name].public_key)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder, identity = tmp_path_factory.mktemp("orchestrator"), PEOPLE["dr-lang"]
    made = Service(
        identity=identity,
        roster=Roster(
            orchestrator=party("dr-lang"),
            keyholder=party("notary"),
            sites=tuple(map(party, NAMES)),
            scientists=(party("ada"),),
        ),
        store=Store(folder / "store"),
        journal=Journal(folder / "journal.sqlite", identity),
    )
    known = {name: PEOPLE[name].public_key for name in NAMES}
    base = proposal(orchestrator=party("dr-lang"), keyholder=party("notary"))
    sites = tuple(type(p)(**{**vars(p), "public_key": known[p.name]}) for p in base.participants)
    study = proposal(orchestrator=base.orchestrator, keyholder=base.keyholder, participants=sites)
    made.store.add_study(study.study, seal(identity, "proposal", study))
    made.store.set_state(study.study, "paused", "for this test")
    made.runners[study.study] = StudyRunner(
        study=study.study, store=made.store, board=made.board, identity=identity, journal=made.journal
    )
    made.end_waiting()  # nobody waits in this test
    yield made
    made.journal.close()
    made.store.close()


@pytest.fixture(scope="module")
def app(service: Service, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("home")
    made = create_app(service, mailbox_folder=folder / "mailbox")
    metrics.install(made, service, folder)
    return made


@pytest.fixture(scope="module")
def described(app: FastAPI, service: Service) -> Callable[[str], Any]:
    """The description that an application gives of itself, by who signs the requests; read once."""

    @cache
    def read(caller: str) -> Any:
        asking = Signing(app, PEOPLE[caller], service.identity.public_key) if caller else app
        return schemathesis.openapi.from_asgi("/openapi.json", asking)

    return read


def examples(most: int) -> Any:
    return settings(settings.get_profile("requests"), max_examples=most)


def test_every_operation_is_tried(app: FastAPI) -> None:
    assert {(m.upper(), p) for p, ms in app.openapi()["paths"].items() for m in ms} == set(OPERATIONS)


@pytest.mark.parametrize("most", [4, pytest.param(8, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_api_keeps_to_its_description(described: Any, method: str, path: str, caller: str, most: int) -> None:
    operation = described(caller)[path][method]

    @examples(most)
    @given(case=operation.as_strategy(), ours=st.booleans())
    def run(case: Any, ours: bool) -> None:
        if ours and "study" in case.path_parameters:
            case.path_parameters["study"] = "pilot"
        response = case.call(timeout=300)  # a loaded machine is no fault
        # that a statement is signed, and by whom, and that a study exists, no schema can say
        case.validate_response(response, excluded_checks=[schemathesis.checks.positive_data_acceptance])
        assert response.status_code < 400 or response.headers["content-type"] == ["application/problem+json"]

    run()


@pytest.mark.parametrize(("method", "path"), [o for o in OPERATIONS if o not in OPEN])
def test_strangers_are_refused_before_anything_else(described: Any, method: str, path: str) -> None:
    for stranger in ("", "mallory"):
        operation = described(stranger)[path][method]

        @examples(5)
        @given(case=operation.as_strategy())
        def run(case: Any) -> None:
            response = case.call(timeout=300)  # a loaded machine is no fault
            assert response.status_code in (403, 422), response.status_code
            if response.status_code == 403:
                assert response.json()["detail"].startswith(("expected an Authorization", "the caller's key"))

        run()


RESUME = "/studies/{study}/resume"  # takes no body
DEEP = [b"[" * 100_000, b'{"a":' * 20_000 + b"1" + b"}" * 20_000, b"9" * 9000, b'{"n":' + b"9" * 9000 + b"}"]
TRICKS = [*DEEP, b"", b"null", b"[]", b"NaN", b"1e999", b'"\\ud800"', b"\xff\xfe", b'{"a":1,"a":2}', b"\x00" * 64]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "path"), [o for o in OPERATIONS if o[0] != "GET" and o[1] != RESUME])
def test_no_body_makes_the_server_fail(app: FastAPI, service: Service, method: str, path: str, caller: str) -> None:
    letter = "?owner=alba&box=own&folder=&name=a" if path.endswith("letter") else ""
    address = path.format(study="pilot", number=1, digest="0" * 64) + letter
    client = TestClient(Signing(app, PEOPLE[caller], service.identity.public_key), raise_server_exceptions=False)
    for body in TRICKS:
        answer = client.request(method, address, content=body)
        assert answer.status_code in (400, 403), (body[:20], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def envelope(kind: str, signer: str, payload: dict[str, Any], data: bytes = b"x") -> bytes:
    signed = {
        "kind": kind,
        "payload": payload,
        "public_key": PEOPLE[signer].public_key,
        "signature": PEOPLE[signer].sign(kind, payload, 1),  # version 1 takes integers of any size
    }
    header = json.dumps(signed).encode()
    return len(header).to_bytes(4, "big") + header + data


@pytest.mark.parametrize("number", [0, -1, 7, 2**31, 2**63, 2**64, 10**30])
def test_rounds_that_no_database_can_hold_are_no_rounds(app: FastAPI, service: Service, number: int) -> None:
    header = {"study": "pilot", "round": number, "site": "alba", "plan_hash": "0" * 64}
    client = TestClient(Signing(app, PEOPLE["alba"], service.identity.public_key), raise_server_exceptions=False)
    for address, body in (
        (f"/studies/pilot/rounds/{number}/update", envelope("update", "alba", header)),
        (f"/studies/pilot/rounds/{number}/refusal", envelope("refusal", "alba", header)[4:-1]),
    ):
        answer = client.request("PUT" if "update" in address else "POST", address, content=body)
        assert answer.status_code in (400, 403, 422), answer.text


def test_there_are_no_pages_of_documentation_with_foreign_scripts(app: FastAPI) -> None:
    client = TestClient(app)
    assert [client.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]


def test_a_letter_for_everybody_else_stays_unread(app: FastAPI, service: Service) -> None:
    place = Place(owner="alba", box="own", folder="", name="secret.json")
    address = "/mailbox/letter?owner=alba&box=own&folder=&name=secret.json"
    audience = service.identity.public_key
    letter = seal_letter(PEOPLE["alba"], place, b"mine")
    assert TestClient(Signing(app, PEOPLE["alba"], audience)).put(address, content=letter).status_code == 200
    for name in ("bruna", "notary", "dr-lang", "mallory"):
        client = TestClient(Signing(app, PEOPLE[name], audience))
        assert client.get(address).status_code == 403
        assert client.put(address, content=letter).status_code == 403
        news = client.get("/mailbox/news?since=0")
        assert news.status_code == 403 or "secret.json" not in news.text
        remove = {"places": [{"owner": "alba", "box": "own", "folder": "", "name": "secret.json"}]}
        assert client.post("/mailbox/remove", json=remove).status_code == 403
