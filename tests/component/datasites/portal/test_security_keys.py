"""WebAuthn as a second factor for whatever people sign: what counts as an answer, and that nothing goes without one."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from support.approvals import is_approved
from support.security_key import PRESENT, VERIFIED, SoftwareKey

from datasites.portal.app import create_portal
from datasites.portal.people.proof import CHALLENGE_SECONDS, Challenges, act_of, relying_party
from datasites.review.policy import Policy
from privacy.errors import InvalidInput, Refused

PASSWORD = "correct horse battery staple"
HTML = {"accept": "text/html"}
REQUIRED = '[people]\nsecurity_key = "required"'


class Portal:
    """The portal of a desk, seen by one signed-in person whose browser has a security key."""

    def __init__(self, desk, context, name: str = "anna") -> None:
        self.desk, self.context, self.name, self.key = desk, context, name, SoftwareKey()
        self.client = TestClient(create_portal(context), base_url="http://localhost", headers=HTML)
        self.client.post("/login", data={"name": name, "password": PASSWORD})
        self.csrf = re.search(r'name="csrf" value="([^"]+)"', self.client.get("/people").text).group(1)

    def call(self, path: str, body: dict) -> dict:
        answer = self.client.post(path, json=body, headers={"x-csrf-token": self.csrf, "accept": "*/*"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def register(self, key: SoftwareKey | None = None, *, password: str = PASSWORD, **more: str):
        made = (key or self.key).make(self.call("/people/keys/new", {}))
        return self.send("/people/keys", made=made, label="the blue one", password=password, **more)

    def ask(self, path: str, **fields: str) -> dict:
        return self.call("/people/keys/question", {"path": path, "fields": list(fields.items())})

    def send(self, path: str, **fields: str):
        return self.client.post(path, data={"csrf": self.csrf, **fields})

    def signed(self, path: str, *, password: str = PASSWORD, **fields: str):
        answer = self.key.answer(self.ask(path, **fields))
        return self.send(path, password=password, security_key=answer, **fields)


@pytest.fixture
def portal(desk, new_context):
    made = Portal(desk, new_context(desk))
    assert "Registered: from now on your security key is asked for" in made.register().text
    return made


@pytest.fixture
def proposal_hash(desk, new_proposal):
    return desk.submit(new_proposal())


def test_approving_needs_password_and_key(portal, desk, proposal_hash) -> None:
    path = f"/requests/{proposal_hash}/approve"
    answer = portal.send(path, password=PASSWORD)
    assert answer.status_code == 403 and "acts with a security key" in answer.text
    assert portal.signed(path, password="a wrong pass phrase").status_code == 403
    assert not is_approved(desk.store, proposal_hash)
    assert portal.signed(path, conditions="").status_code == 200
    assert is_approved(desk.store, proposal_hash)
    assert [e.body["person"] for e in desk.journal.entries(kind="security-key-used")] == ["anna"]


@pytest.mark.parametrize("act", ["deny", "ask", "revoke"])
def test_denying_asking_and_revoking_need_the_key(portal, desk, proposal_hash, act) -> None:
    if act == "revoke":
        desk.approve(proposal_hash, "bela")
    before = desk.store.request(proposal_hash).state
    path, reason = f"/requests/{proposal_hash}/{act}", "Which tumours are meant?"
    assert portal.send(path, reason=reason).status_code == 403
    assert desk.store.request(proposal_hash).state == before
    answer = portal.key.answer(portal.ask(path, reason=reason))
    assert portal.send(path, reason=reason, security_key=answer).status_code == 200
    assert desk.store.request(proposal_hash).state != before


def test_the_api_and_machine_tokens_need_the_key_as_well(portal, desk, now, proposal_hash) -> None:
    secret, _ = desk.accounts.issue_token(
        desk.accounts.account("anna"), scopes=("read", "review"), label="script", days=1, now=now
    )
    bearer = {"authorization": f"Bearer {secret}", "accept": "*/*"}
    calls = {"approve": {"password": PASSWORD}, "deny": {"reason": "No."}, "ask": {"reason": "Which?"}}
    for act, body in calls.items():
        answer = portal.client.post(f"/api/requests/{proposal_hash}/{act}", json=body, headers=bearer)
        assert answer.status_code == 403 and "security key" in answer.json()["detail"]
    assert desk.store.request(proposal_hash).state == "pending"
    path, body = f"/api/requests/{proposal_hash}/approve", {"conditions": ""}
    answer = portal.key.answer(portal.ask(path, **body))
    sent = {**body, "password": PASSWORD, "security_key": answer}
    headers = {"x-csrf-token": portal.csrf, "accept": "*/*"}
    assert portal.client.post(path, json=sent, headers=headers).status_code == 200
    assert is_approved(desk.store, proposal_hash)


OTHER_PATHS = {
    "invite": ("/people", {"role": "auditor"}),
    "close": ("/people/close", {"name": "bela"}),
    "confirm": ("/fingerprints", {"public_key": "7" * 64}),
    "password": ("/people/password", {"new": "another long pass phrase"}),
    "name": ("/people/name", {"full_name": "Anna", "function": ""}),
    "remove": ("/people/keys/remove", {"key": "0" * 16}),
}


@pytest.mark.parametrize("act", OTHER_PATHS)
def test_whatever_asks_for_the_password_asks_for_the_key(portal, desk, act) -> None:
    path, fields = OTHER_PATHS[act]
    before = desk.accounts.accounts(), desk.accounts.retired(), desk.store.confirmed()
    answer = portal.send(path, password=PASSWORD, **fields)
    assert answer.status_code == 403 and "security key" in answer.text
    assert (desk.accounts.accounts(), desk.accounts.retired(), desk.store.confirmed()) == before
    assert "acts with a security key" not in portal.signed(path, **fields).text


# what counts as an answer


def attempt(portal, proposal_hash, answer: str):
    return portal.send(f"/requests/{proposal_hash}/approve", password=PASSWORD, conditions="", security_key=answer)


def question(portal, proposal_hash) -> dict:
    return portal.ask(f"/requests/{proposal_hash}/approve", conditions="")


def test_a_repeated_answer_counts_once(portal, desk, new_proposal, proposal_hash) -> None:
    answer = portal.key.answer(question(portal, proposal_hash))
    assert attempt(portal, proposal_hash, answer).status_code == 200
    second = desk.submit(new_proposal(study="another"))
    assert attempt(portal, second, answer).status_code == 403
    question(portal, second)  # a challenge waits, and the old answer is to another one
    assert "challenge" in attempt(portal, second, answer).text
    assert not is_approved(desk.store, second)


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ({"origin": "http://localhost:1"}, "origin"),
        ({"origin": "https://localhost"}, "origin"),
        ({"origin": "http://localhost.evil.example"}, "origin"),
        ({"party": "evil.example"}, "RP ID"),
        ({"flags": PRESENT}, "verification"),
        ({"flags": VERIFIED}, "present"),
    ],
    ids=["port", "scheme", "origin", "party", "not-verified", "not-present"],
)
def test_an_answer_from_elsewhere_or_of_nobody_does_not_count(portal, desk, proposal_hash, flaw, said) -> None:
    key = replace(portal.key, **flaw)
    answer = attempt(portal, proposal_hash, key.answer(question(portal, proposal_hash)))
    assert answer.status_code == 403 and said in answer.text
    assert not is_approved(desk.store, proposal_hash)


def test_a_wrong_type_and_a_broken_signature_do_not_count(portal, desk, proposal_hash) -> None:
    asked = question(portal, proposal_hash)
    assert attempt(portal, proposal_hash, portal.key.answer(asked, type="webauthn.create")).status_code == 403
    other = replace(SoftwareKey(), key_id=portal.key.key_id, counter=5)  # claims to be the registered one
    answer = attempt(portal, proposal_hash, other.answer(question(portal, proposal_hash)))
    assert answer.status_code == 403 and "signature" in answer.text
    assert not is_approved(desk.store, proposal_hash)


def test_a_counter_that_does_not_go_up_does_not_count(portal, desk, new_proposal, proposal_hash) -> None:
    copy = replace(portal.key)
    assert attempt(portal, proposal_hash, portal.key.answer(question(portal, proposal_hash))).status_code == 200
    second = desk.submit(new_proposal(study="another"))
    answer = attempt(portal, second, copy.answer(question(portal, second)))  # a copy of the key is behind
    assert answer.status_code == 403 and "sign count" in answer.text


def test_another_persons_key_does_not_count(portal, desk, new_context, proposal_hash) -> None:
    other = Portal(desk, portal.context, "bela")
    other.register()
    answer = attempt(portal, proposal_hash, other.key.answer(question(portal, proposal_hash)))
    assert answer.status_code == 403 and "not one of yours" in answer.text
    assert not is_approved(desk.store, proposal_hash)
    made = portal.key.make(other.call("/people/keys/new", {}))
    assert "registered here already" in other.signed("/people/keys", made=made, label="hers").text


def test_an_answer_counts_for_one_act_with_its_content(portal, desk, new_proposal, proposal_hash) -> None:
    answer = portal.key.answer(question(portal, proposal_hash))
    path = f"/requests/{proposal_hash}/approve"
    changed = portal.send(path, password=PASSWORD, conditions="Pay us.", security_key=answer)
    assert changed.status_code == 403 and "something else" in changed.text
    answer = portal.key.answer(question(portal, proposal_hash))
    second = desk.submit(new_proposal(study="another"))
    assert attempt(portal, second, answer).status_code == 403
    reason = portal.send(f"/requests/{second}/deny", reason="No.", security_key=answer)
    assert reason.status_code == 403
    assert desk.store.request(second).state == desk.store.request(proposal_hash).state == "pending"


def test_an_answer_of_another_session_does_not_count(portal, desk, proposal_hash) -> None:
    thief = Portal(desk, portal.context)  # anna's password in another browser
    answer = portal.key.answer(question(portal, proposal_hash))
    assert attempt(thief, proposal_hash, answer).status_code == 403
    assert not is_approved(desk.store, proposal_hash)


@pytest.mark.parametrize(
    "answer", ["x", "{}", "[" * 9000, '{"id": 1}', "null", json.dumps({"id": "AA", "rawId": "AA"})]
)
def test_malformed_answers_are_refused_without_a_traceback(portal, desk, proposal_hash, answer) -> None:
    question(portal, proposal_hash)
    found = attempt(portal, proposal_hash, answer)
    assert found.status_code == 403 and "Traceback" not in found.text
    portal.client.post("/people/keys/new", json={}, headers={"x-csrf-token": portal.csrf})
    assert portal.send("/people/keys", made=answer, label="x", password=PASSWORD).status_code == 403


def test_a_challenge_is_void_after_two_minutes_and_an_old_one_after_a_new_one(now) -> None:
    challenges = Challenges()
    first = challenges.new("s", "act", now=now)
    second = challenges.new("s", "act", now=now)
    assert first != second and challenges.take("s", "act", now=now) == second
    challenges.new("s", "act", now=now)
    with pytest.raises(Refused, match="too long ago"):
        challenges.take("s", "act", now=now + dt.timedelta(seconds=CHALLENGE_SECONDS))


# registering and removing


def test_registering_needs_the_password_and_a_second_key_the_first_one(desk, new_context) -> None:
    portal = Portal(desk, new_context(desk))
    assert portal.register(password="a wrong pass phrase").status_code == 403
    assert portal.register(replace(portal.key, flags=PRESENT)).status_code == 403
    assert desk.accounts.security_keys.of("anna") == ()
    assert portal.register().status_code == 200
    assert portal.register(SoftwareKey()).status_code == 403  # without an answer of the first
    assert len(desk.accounts.security_keys.of("anna")) == 1
    made = SoftwareKey().make(portal.call("/people/keys/new", {}))
    assert portal.signed("/people/keys", made=made, label="spare").status_code == 200
    assert [key.label for key in desk.accounts.security_keys.of("anna")] == ["the blue one", "spare"]
    assert [e.kind for e in desk.journal.entries() if e.kind.startswith("security-key-reg")] == [
        "security-key-registered"
    ] * 2


def test_a_key_is_removed_with_password_and_key_and_counts_no_more(portal, desk, proposal_hash) -> None:
    key = desk.accounts.security_keys.of("anna")[0].key
    assert portal.send("/people/keys/remove", key=key, password=PASSWORD).status_code == 403
    assert portal.signed("/people/keys/remove", key=key).status_code == 200
    assert desk.accounts.security_keys.of("anna") == ()
    assert portal.send(f"/requests/{proposal_hash}/approve", password=PASSWORD).status_code == 200


def test_closing_an_account_forgets_its_keys(portal, desk) -> None:
    other = Portal(desk, portal.context, "bela")
    other.register()
    desk.accounts.retire("bela")
    assert desk.accounts.security_keys.of("bela") == ()


def test_a_machine_token_registers_no_key(portal, desk, now) -> None:
    secret, _ = desk.accounts.issue_token(
        desk.accounts.account("bela"), scopes=("read", "review"), label="thief", days=1, now=now
    )
    with TestClient(portal.client.app, base_url="http://localhost", headers=HTML) as thief:
        bearer = {"authorization": f"Bearer {secret}"}
        assert thief.post("/people/keys/new", json={}, headers=bearer).status_code == 403
        data = {"made": "{}", "label": "x", "password": PASSWORD}
        assert thief.post("/people/keys", data=data, headers=bearer).status_code == 403


# the policy


def test_a_policy_that_wants_a_key_of_everybody(new_desk, new_context, new_proposal) -> None:
    desk = new_desk(REQUIRED)
    proposal_hash = desk.submit(new_proposal())
    portal = Portal(desk, new_context(desk))
    assert "wants a security key of everybody who decides" in portal.client.get("/people").text
    assert portal.send(f"/requests/{proposal_hash}/approve", password=PASSWORD).status_code == 403
    assert portal.send(f"/requests/{proposal_hash}/deny", reason="Not here.").status_code == 403
    assert desk.store.request(proposal_hash).state == "pending"
    assert portal.register().status_code == 200
    assert portal.signed(f"/requests/{proposal_hash}/approve", conditions="").status_code == 200
    assert is_approved(desk.store, proposal_hash)


def test_a_policy_that_says_nothing_of_people_keeps_its_hash() -> None:
    assert Policy.parse("").policy_hash == Policy.parse('[people]\nsecurity_key = "if-registered"').policy_hash
    assert Policy.parse("").policy_hash != Policy.parse(REQUIRED).policy_hash
    with pytest.raises(InvalidInput, match="people"):
        Policy.parse('[people]\nsecurity_key = "sometimes"')


# whose name keys belong to


@pytest.mark.parametrize(
    ("public_url", "host", "name", "origin"),
    [
        ("https://portal.example/", "http://10.0.0.1", "portal.example", "https://portal.example"),
        ("https://portal.example:443", "", "portal.example", "https://portal.example"),
        ("https://portal.example:8443/x", "", "portal.example", "https://portal.example:8443"),
        ("", "http://localhost:8000", "localhost", "http://localhost:8000"),
    ],
)
def test_the_relying_party_is_the_configured_address_or_this_machine(public_url, host, name, origin) -> None:
    found = relying_party(public_url, host, "Hospital")
    assert (found.name, found.origin) == (name, origin)


@pytest.mark.parametrize(
    ("public_url", "host"),
    [
        ("", "http://evil.example"),
        ("", "http://127.0.0.1:8000"),
        ("https://10.0.0.1", "http://localhost"),
        ("https://[::1]", ""),
        ("http://portal.example", ""),
    ],
)
def test_no_key_is_registered_for_an_address_that_a_caller_chose(public_url, host) -> None:
    with pytest.raises(Refused):
        relying_party(public_url, host, "Hospital")


def test_an_act_is_its_address_and_content_without_secrets() -> None:
    assert act_of("/a", [("x", "1\r\n2"), ("csrf", "s")]) == act_of("/a", [("csrf", "other"), ("x", "1\n2")])
    assert act_of("/a", [("x", "1")]) != act_of("/b", [("x", "1")]) != act_of("/b", [("x", "2")])
