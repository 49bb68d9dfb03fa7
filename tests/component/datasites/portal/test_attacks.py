"""What somebody on the hospital's network, or a page that staff happen to open, may try on the portal."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from datasites.node.web.middleware import MOST_BODY_BYTES
from datasites.portal.app import create_portal
from datasites.review.accounts import ATTEMPTS_PER_WINDOW, AccountStore, Hardness
from privacy.errors import Refused

PASSWORD = "correct horse battery staple"
HTML = {"accept": "text/html"}


@pytest.fixture
def portal(desk, new_context):
    app = create_portal(new_context(desk))
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


def sign_in(portal: TestClient) -> str:
    answer = portal.post("/api/login", json={"name": "anna", "password": PASSWORD})
    return str(answer.json()["csrf"])


@pytest.mark.parametrize("path", ["/login", "/api/login", "/api/tokens", "/welcome", "/api/register", "/people"])
@pytest.mark.parametrize("chunked", [False, True])
def test_strangers_cannot_fill_the_memory_with_a_body(portal, path, chunked) -> None:
    body = b'{"name":"' + b"x" * MOST_BODY_BYTES + b'"}'
    answer = portal.post(path, content=iter([body]) if chunked else body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 413


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "0x10", " ", "\u0661"])
def test_a_length_that_is_no_number_is_refused(portal, length) -> None:
    answer = portal.post("/api/login", content=b"{}", headers=[(b"content-length", length.encode())])
    assert answer.status_code in (413, 422)


@pytest.mark.parametrize(
    "body",
    [b"[" * 50_000, b'{"name":' * 8000, b"1" * 9000, b'{"name":"\\ud800","password":"\\ud800"}', b"\xff", b"NaN", b""],
)
@pytest.mark.parametrize("path", ["/api/login", "/api/tokens", "/api/register"])
def test_json_tricks_are_malformed_and_nothing_else(portal, path, body) -> None:
    answer = portal.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 403, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/reports/..%2faccounts.sqlite",
        "/reports/%2e%2e%2fjournal.sqlite",
        "/reports/%00",
        "/static/..%2f..%2faccess.py",
        "/static/%2e%2e/app.py",
        "/requests/..%2f..%2fjournal",
        "/api/requests/" + "A" * 64,
        "/api/fingerprints/%2e%2e",
    ],
)
def test_no_address_leads_to_another_file(portal, path) -> None:
    sign_in(portal)
    answer = portal.get(path)
    assert answer.status_code in (404, 405, 422)
    assert "SQLite" not in answer.text and "import" not in answer.text


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "\x01//e"]
)
def test_the_login_sends_nobody_elsewhere(portal, to) -> None:
    answer = portal.post("/login", data={"name": "anna", "password": PASSWORD, "to": to})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/inbox" or answer.headers["location"].startswith("/%09/")
    assert "\t" not in answer.headers["location"]


@pytest.mark.parametrize("to", ["/inbox\r\nset-cookie: a=b", "/inbox%0d%0aset-cookie:%20a=b", "/inbox\u2028x"])
def test_no_header_can_be_added_to_an_answer(portal, to) -> None:
    answer = portal.post("/login", data={"name": "anna", "password": PASSWORD, "to": to})
    assert answer.headers.get_list("set-cookie") == [
        c for c in answer.headers.get_list("set-cookie") if "tessera-" in c
    ]
    assert "\n" not in answer.headers["location"]


def test_a_link_for_a_new_account_does_not_follow_the_host_header(desk, new_context) -> None:
    context = replace(new_context(desk), public_url="https://portal.alba.example")
    portal = TestClient(create_portal(context))
    form = {"role": "auditor", "csrf": sign_in(portal), "password": PASSWORD}
    answer = portal.post("/people", data=form, headers={"host": "evil.example"})
    assert "https://portal.alba.example/welcome?token=" in answer.text
    assert "evil.example" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "[::", "a b", "x:99999999", "user@evil.example"])
def test_a_strange_host_breaks_nothing(portal, host) -> None:
    for path in ("/", "/login", "/healthz", "/api/requests", "/nothing"):
        answer = portal.get(path, headers={"host": host, **HTML})
        assert answer.status_code < 500
        assert "evil" not in answer.headers.get("location", "")


@pytest.mark.parametrize(
    "form",
    ["/requests/{hash}/approve", "/requests/{hash}/deny", "/requests/{hash}/ask", "/requests/{hash}/revoke",
     "/requests/{hash}/dry-run", "/fingerprints", "/people", "/logout"],
)  # fmt: skip
def test_no_form_works_without_its_own_sessions_token(portal, desk, new_proposal, form) -> None:
    path = form.format(hash=desk.submit(new_proposal()))
    own = sign_in(portal)
    other = TestClient(portal.app)
    foreign = sign_in(other)
    values = {"password": PASSWORD, "reason": "because", "public_key": "a" * 64, "role": "auditor"}
    before = desk.kinds()
    for csrf in ("", "x", foreign, own[:-1], own + "x"):
        assert portal.post(path, data={**values, "csrf": csrf}, headers=HTML).status_code in (403, 422)
    cross = {"sec-fetch-site": "cross-site"}
    assert portal.post(path, data={**values, "csrf": own}, headers=cross).status_code == 403
    assert desk.kinds() == before


def test_many_guesses_at_once_are_no_more_than_many_guesses(tmp_path, now, monkeypatch) -> None:
    accounts = AccountStore(tmp_path / "accounts.sqlite", hardness=Hardness(passes=1, memory_kib=64, lanes=1))
    accounts.register(accounts.invite("steward", now=now), "anna", PASSWORD, now=now)
    tried, running, most = [], 0, 0
    verify, lock = accounts._hasher.verify, threading.Lock()

    class Counting:
        def verify(self, *words: str) -> bool:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                tried.append(words[1])
            try:
                return verify(*words)
            finally:
                with lock:
                    running -= 1

    monkeypatch.setattr(accounts, "_hasher", Counting())

    def guess(number: int) -> None:
        with pytest.raises(Refused):
            accounts.authenticate("anna", f"wrong {number}", now=now)

    threads = [threading.Thread(target=guess, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tried) == ATTEMPTS_PER_WINDOW
    assert most <= 2
    accounts.close()


def test_a_session_that_ended_and_a_cookie_of_another_hospital_open_nothing(portal, new_desk, new_context) -> None:
    csrf = sign_in(portal)
    name, secret = next(iter(portal.cookies.items()))
    portal.post("/logout", data={"csrf": csrf})
    answer = portal.get("/api/requests", headers={"cookie": f"{name}={secret}"})
    assert answer.status_code == 401
    other = TestClient(create_portal(new_context(new_desk(name="other"))))
    sign_in(portal)
    stolen = next(value for key, value in portal.cookies.items() if key == name)
    assert other.get("/api/requests", headers={"cookie": f"{name}={stolen}"}).status_code == 401


def test_a_cookie_is_no_machine_token_and_a_token_no_cookie(portal) -> None:
    sign_in(portal)
    name, secret = next(iter(portal.cookies.items()))
    portal.cookies.clear()
    assert portal.get("/api/requests", headers={"authorization": f"Bearer {secret}"}).status_code == 401
    wish = {"name": "anna", "password": PASSWORD, "scopes": ["read"]}
    token = portal.post("/api/tokens", json=wish).json()["token"]
    assert portal.get("/api/requests", headers={"cookie": f"{name}={token}"}).status_code == 401
    assert portal.get("/api/requests", headers={"authorization": f"Bearer {token}"}).status_code == 200
