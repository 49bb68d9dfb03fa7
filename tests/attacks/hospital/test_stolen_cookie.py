"""Somebody has a steward's session cookie, or a machine token, but no password.

Played: inviting two people with the token and letting both sign; a token or cookie that invites, closes accounts,
confirms fingerprints or new accounts, or makes an account; guessing the password with the cookie; an account that is
made to decide a request that was open before it; and two new accounts that make up two reviewers.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from datasites.portal.app import create_portal
from datasites.review.accounts import BY_COMMAND
from privacy.errors import Refused

PASSWORD = "correct horse battery staple"
HTML = {"accept": "text/html"}
KEY = "7" * 64
ACTS = {
    "invite a steward": ("/people", {"role": "steward"}),
    "invite an auditor": ("/people", {"role": "auditor"}),
    "close an account": ("/people/close", {"name": "bela"}),
    "confirm a new account": ("/people/confirm", {"name": "bela"}),
    "confirm a fingerprint": ("/fingerprints", {"public_key": KEY}),
    "change the password": ("/people/password", {"new": "another long pass phrase"}),
    "link another sign-in": ("/people/link", {}),
}


@pytest.fixture
def portal(desk, new_context):
    return TestClient(create_portal(new_context(desk)), headers=HTML, raise_server_exceptions=False)


@pytest.fixture
def stolen(portal, desk, now):
    """The cookie of the steward's session, in the thief's browser, with its form token."""
    portal.post("/login", data={"name": "anna", "password": PASSWORD})
    return {"csrf": re.search(r'name="csrf" value="([^"]+)"', portal.get("/inbox").text).group(1)}


def bearer(desk, now, name: str = "anna") -> dict[str, str]:
    account = desk.accounts.account(name)
    secret, _ = desk.accounts.issue_token(account, scopes=("read", "review"), label="thief", days=1, now=now)
    return {"authorization": f"Bearer {secret}"}


def standing(desk) -> object:
    """Everything that may not move: the accounts, who is closed, the links that are out, and the confirmed keys."""
    return desk.accounts.accounts(), desk.accounts.retired(), desk.accounts.invited(now=dt.datetime.min), desk.kinds()


def acts_of(desk) -> list[str]:
    changing = ("account-", "fingerprint-", "proposal-", "password-")
    return [kind for kind in desk.kinds() if kind.startswith(changing)]


@pytest.mark.parametrize("act", ACTS)
def test_a_stolen_cookie_changes_nothing_without_the_password(portal, desk, stolen, act) -> None:
    path, values = ACTS[act]
    before = (desk.accounts.accounts(), desk.accounts.retired(), acts_of(desk), desk.store.confirmed())
    for guess in ({}, {"password": ""}, {"password": "a wrong pass phrase"}):
        answer = portal.post(path, data={**values, **stolen, **guess})
        assert answer.status_code in (403, 404, 422)
        assert "token=" not in answer.text
    assert (desk.accounts.accounts(), desk.accounts.retired(), acts_of(desk), desk.store.confirmed()) == before


@pytest.mark.parametrize("act", ACTS)
def test_a_machine_token_changes_nothing_even_with_the_password(portal, desk, now, act) -> None:
    path, values = ACTS[act]
    before = (desk.accounts.accounts(), desk.accounts.retired(), acts_of(desk), desk.store.confirmed())
    for guess in ({}, {"password": PASSWORD}):
        answer = portal.post(path, data={**values, **guess}, headers=bearer(desk, now))
        assert answer.status_code in (403, 422)
    assert (desk.accounts.accounts(), desk.accounts.retired(), acts_of(desk), desk.store.confirmed()) == before


def test_the_api_confirms_no_fingerprint_for_a_token_or_a_bare_cookie(portal, desk, now) -> None:
    body = {"name": "notary", "institution": "Notary office", "password": PASSWORD}
    url = f"/api/fingerprints/{KEY}"
    assert portal.put(url, json=body, headers=bearer(desk, now)).status_code == 403
    csrf = portal.post("/api/login", json={"name": "anna", "password": PASSWORD}).json()["csrf"]
    headers = {"x-csrf-token": csrf}
    for wrong in ({**body, "password": "wrong"}, {k: v for k, v in body.items() if k != "password"}):
        assert portal.put(url, json=wrong, headers=headers).status_code in (403, 422)
    assert KEY not in desk.store.confirmed()
    assert portal.put(url, json=body, headers=headers).status_code == 200
    assert KEY in desk.store.confirmed()


@pytest.mark.parametrize("path", ["/welcome", "/api/register"])
def test_a_machine_token_makes_no_account(portal, desk, now, path) -> None:
    body = {"token": desk.accounts.invite("steward", now=now), "name": "mallory", "password": PASSWORD}
    kind = {"json": body} if path.startswith("/api") else {"data": body}
    assert portal.post(path, headers=bearer(desk, now), **kind).status_code == 403
    assert "mallory" not in {a.name for a in desk.accounts.accounts()}


def test_one_token_does_not_invite_two_people_who_both_sign(new_desk, new_context, new_proposal, now) -> None:
    desk = new_desk("[review]\nrequired_reviewers = 2")
    proposal_hash = desk.submit(new_proposal())
    portal = TestClient(create_portal(new_context(desk)), headers=HTML, follow_redirects=False)
    signed = 0
    for name in ("mallory", "trudy"):
        page = portal.post("/people", data={"role": "steward"}, headers=bearer(desk, now)).text
        link = re.search(r"token=([\w-]+)", page)
        if link is None:
            continue
        person = {"token": link.group(1), "name": name, "password": PASSWORD}
        portal.post("/api/register", json=person)
        csrf = portal.post("/api/login", json={"name": name, "password": PASSWORD}).json()["csrf"]
        answer = portal.post(
            f"/api/requests/{proposal_hash}/approve", json={"password": PASSWORD}, headers={"x-csrf-token": csrf}
        )
        signed += answer.status_code == 200
    assert signed == 0
    assert desk.store.request(proposal_hash).state == "pending"


def test_guessing_with_a_cookie_is_bounded_and_locks_out_nobody_else(portal, desk, stolen, new_proposal) -> None:
    proposal_hash = desk.submit(new_proposal())
    url = f"/requests/{proposal_hash}/approve"
    for number in range(8):
        answer = portal.post(url, data={**stolen, "password": f"guess number {number}"})
        assert answer.status_code == 403
    assert "too many attempts" in answer.text
    assert "too many attempts" in portal.post(url, data={**stolen, "password": PASSWORD}).text
    anna = TestClient(portal.app, headers=HTML)
    anna.post("/login", data={"name": "anna", "password": PASSWORD})
    csrf = re.search(r'name="csrf" value="([^"]+)"', anna.get("/inbox").text).group(1)
    assert anna.post(url, data={"csrf": csrf, "password": PASSWORD}).status_code == 200
    assert desk.store.request(proposal_hash).state == "approved"


def newcomer(desk, name: str, when: dt.datetime, by: str = "anna") -> None:
    desk.accounts.register(desk.accounts.invite("steward", now=when, by=by), name, PASSWORD, now=when)


def client_of(app, name: str) -> TestClient:
    client = TestClient(app)
    csrf = client.post("/api/login", json={"name": name, "password": PASSWORD}).json()["csrf"]
    client.headers["x-csrf-token"] = csrf
    return client


@pytest.mark.parametrize("decision", ["approve", "deny", "ask"])
def test_a_fresh_account_decides_no_request_that_was_open_before_it(
    desk, new_context, new_proposal, now, decision
) -> None:
    proposal_hash = desk.submit(new_proposal())
    later = now + dt.timedelta(minutes=1)
    newcomer(desk, "mallory", later)
    client = client_of(create_portal(replace(new_context(desk), clock=lambda: later)), "mallory")
    body = {"password": PASSWORD} if decision == "approve" else {"reason": "because I say so"}
    answer = client.post(f"/api/requests/{proposal_hash}/{decision}", json=body)
    assert answer.status_code == 403
    assert "newer than this request" in answer.json()["detail"]
    assert desk.store.request(proposal_hash).state == "pending"
    desk.accounts.vouch("bela", desk.accounts.account("anna"))
    desk.accounts.vouch("mallory", desk.accounts.account("bela"))  # a second person: neither anna nor mallory
    assert client.post(f"/api/requests/{proposal_hash}/{decision}", json=body).status_code == 200


def test_two_fresh_accounts_are_one_reviewer(new_desk, new_context, new_proposal, now) -> None:
    desk = new_desk("[review]\nrequired_reviewers = 2")
    for name in ("mallory", "trudy"):
        newcomer(desk, name, now)
    later = now + dt.timedelta(minutes=1)
    proposal = new_proposal()
    proposal_hash = desk.submit_at(proposal, later)  # both were here before it
    app = create_portal(replace(new_context(desk), clock=lambda: later))
    url = f"/api/requests/{proposal_hash}/approve"
    assert client_of(app, "mallory").post(url, json={"password": PASSWORD}).status_code == 200
    answer = client_of(app, "trudy").post(url, json={"password": PASSWORD})
    assert answer.status_code == 403
    assert "count as one reviewer" in answer.json()["detail"]
    assert desk.store.request(proposal_hash).state == "pending"
    assert client_of(app, "anna").post(url, json={"password": PASSWORD}).json()["state"] == "approved"


def test_nobody_confirms_themselves_whom_they_invited_or_with_a_fresh_account(desk, now) -> None:
    accounts = desk.accounts
    newcomer(desk, "mallory", now)
    newcomer(desk, "trudy", now, by="mallory")
    for person in ("anna", "mallory", "trudy", "otto", "bela"):  # who invited, themselves, fresh, auditor, fresh
        with pytest.raises(Refused):
            accounts.vouch("mallory", accounts.account(person))
    with pytest.raises(Refused):
        accounts.vouch("bela", None)  # invited from the command line
    assert accounts.account("bela").invited_by == BY_COMMAND
    accounts.vouch("bela", accounts.account("anna"))
    accounts.vouch("mallory", accounts.account("bela"))
    assert not accounts.account("mallory").fresh


def test_a_cookie_is_no_use_after_the_owner_ended_it_or_changed_the_password(portal, desk, stolen) -> None:
    other = TestClient(portal.app, headers=HTML)
    other.post("/login", data={"name": "anna", "password": PASSWORD})
    csrf = re.search(r'name="csrf" value="([^"]+)"', other.get("/inbox").text).group(1)
    answer = other.post("/people/password", data={"csrf": csrf, "password": PASSWORD, "new": "another long sentence"})
    assert "Your password is changed" in answer.text
    assert portal.get("/api/requests").status_code == 401
    assert other.get("/api/requests").status_code == 200
    with pytest.raises(Refused):
        desk.accounts.unlock("anna", PASSWORD)
    assert desk.accounts.unlock("anna", "another long sentence").public_key == desk.accounts.account("anna").public_key


@pytest.mark.parametrize("kind", ["cap", "release", "close"])
def test_no_cookie_or_token_moves_a_budget(portal, desk, now, stolen, kind) -> None:
    form = {"reason": "because", "target": "a" * 64, "epsilon": "100", "delta": "1e-5"}
    refused = portal.post(f"/budget/{kind}", data={**form, "password": PASSWORD}, headers=bearer(desk, now))
    assert refused.status_code == 403
    assert "machine token" in refused.text
    assert portal.post(f"/budget/{kind}", data={**form, **stolen}).status_code == 422
    assert portal.post(f"/budget/{kind}", data={**form, **stolen, "password": "a guess"}).status_code == 403
