"""Where the policy wants two people: one proposes, another existing one confirms or says no, within a week."""

from __future__ import annotations

import datetime as dt
import re
import threading
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from datasites.portal.app import create_portal
from datasites.review import accounts
from datasites.review.accounts import Account
from datasites.review.people.acts import PersonAct, people_acts
from datasites.review.people.asked import key_of
from datasites.review.people.vouching import check_vouches
from privacy.errors import Refused

PASSWORD = "correct horse battery staple"
HTML = {"accept": "text/html"}
TWO = "[people]\nrequired_people = 2"


class Site:
    """A portal whose anna (steward) and bela (privacy officer) count, and otto only reads."""

    def __init__(self, desk, context) -> None:
        self.desk, self.app = desk, create_portal(context)
        desk.accounts.vouch("bela", desk.accounts.account("anna"))

    def as_(self, name: str) -> Person:
        return Person(self.app, name)

    def waiting(self, now):
        return people_acts(self.desk.journal).waiting(now=now)


class Person:
    def __init__(self, app, name: str) -> None:
        self.client = TestClient(app, headers=HTML)
        self.client.post("/login", data={"name": name, "password": PASSWORD})
        self.csrf = re.search(r'name="csrf" value="([^"]+)"', self.client.get("/people").text).group(1)

    def send(self, path: str, *, password: str = PASSWORD, **fields: str):
        return self.client.post(path, data={"csrf": self.csrf, "password": password, **fields})

    @property
    def inbox(self) -> str:
        return self.client.get("/inbox").text


@pytest.fixture
def site(new_desk, new_context):
    desk = new_desk(TWO)
    return Site(desk, new_context(desk))


def test_an_invitation_is_proposed_by_one_and_confirmed_by_another(site, now) -> None:
    anna, bela = site.as_("anna"), site.as_("bela")
    page = anna.send("/people", role="auditor").text
    assert "Proposed." in page and "token=" not in page
    assert not site.desk.accounts.invited(now=now)
    (asked,) = site.waiting(now)
    assert "Nothing needs you now." in anna.inbox and "Invite a" in anna.inbox
    assert "1 other matter needs you." in bela.inbox
    path = f"/acts/{asked.key}/confirm"
    assert "asked for this already" in anna.send(path, reason="again").text
    assert bela.send(path, reason="yes indeed", password="wrong").status_code == 403
    assert not site.desk.accounts.invited(now=now)
    page = bela.send(path, reason="yes indeed").text
    token = re.search(r"/welcome\?token=([\w-]+)", page).group(1)
    new = site.desk.accounts.register(token, "dora", PASSWORD, now=now)
    assert (new.role, new.invited_by) == ("auditor", "anna, bela")
    for name in ("anna", "bela"):  # neither of who invited confirms the account
        with pytest.raises(Refused):
            site.desk.accounts.vouch("dora", site.desk.accounts.account(name))
    assert site.waiting(now) == ()
    assert [k for k in site.desk.kinds() if k.startswith(("people-act", "account-invited"))] == [
        "people-act-asked",
        "people-act-asked",
        "account-invited",
        "people-act-done",
    ]
    assert bela.send(path, reason="once more").status_code == 400


def test_closing_an_account_takes_two_and_never_its_owner(site, now) -> None:
    site.desk.accounts.register(site.desk.accounts.invite("steward", now=now), "carla", PASSWORD, now=now)
    site.desk.accounts.vouch("carla", site.desk.accounts.account("anna"))
    anna, bela, carla = (site.as_(name) for name in ("anna", "bela", "carla"))
    anna.send("/people/close", name="carla")
    (asked,) = site.waiting(now)
    assert "Nothing needs you now." in carla.inbox
    for answer in ("confirm", "decline"):
        assert "others decide" in carla.send(f"/acts/{asked.key}/{answer}", reason="it is mine").text
    assert site.desk.accounts.retired() == frozenset()
    assert "Done" in bela.send(f"/acts/{asked.key}/confirm", reason="she left in May").text
    assert site.desk.accounts.retired() == {"carla"}
    entry = next(site.desk.journal.entries(kind="people-act-done"))
    assert entry.body["by"] == ["anna", "bela"]


def test_a_fingerprint_takes_two_through_pages_and_api(site, now, new_proposal) -> None:
    key = "7" * 64
    headers = {"x-csrf-token": (anna := site.as_("anna")).csrf, "accept": "*/*"}
    body = {"name": "delta", "institution": "Hospital Delta", "password": PASSWORD}
    answer = anna.client.put(f"/api/fingerprints/{key}", json=body, headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"needed": 2})
    assert key not in site.desk.store.confirmed()
    bela = site.as_("bela")
    other = {**body, "institution": "Hospital Omega"}  # the same key as somebody else's is another act
    headers["x-csrf-token"] = bela.csrf
    assert bela.client.put(f"/api/fingerprints/{key}", json=other, headers=headers).status_code == 202
    assert key not in site.desk.store.confirmed()
    answer = bela.client.put(f"/api/fingerprints/{key}", json=body, headers=headers)
    assert answer.status_code == 200 and answer.json()["person"] == "anna, bela"
    assert key in site.desk.store.confirmed()


def test_saying_no_ends_it_and_is_journaled(site, now) -> None:
    site.as_("anna").send("/people", role="steward")
    (asked,) = site.waiting(now)
    bela = site.as_("bela")
    assert bela.send(f"/acts/{asked.key}/decline", reason="no").status_code == 400
    assert bela.send(f"/acts/{asked.key}/decline", reason="who is it?", password="wrong").status_code == 403
    assert "Declined" in bela.send(f"/acts/{asked.key}/decline", reason="who is it?").text
    assert site.waiting(now) == ()
    entry = next(site.desk.journal.entries(kind="people-act-dropped"))
    assert (entry.body["by"], entry.body["reason"]) == ("bela", "who is it?")
    assert not site.desk.accounts.invited(now=now)


def test_it_expires_after_a_week_and_the_journal_says_so(site, new_context, now) -> None:
    site.as_("anna").send("/people", role="steward")
    (asked,) = site.waiting(now)
    later = now + dt.timedelta(days=8)
    acts = people_acts(site.desk.journal)
    assert acts.waiting(now=later) == ()
    assert acts.expire(now=now) == 0
    app = create_portal(replace(new_context(site.desk), clock=lambda: later))
    answer = Person(app, "bela").send(f"/acts/{asked.key}/confirm", reason="better late")
    assert answer.status_code == 400 and "waits no more" in answer.text
    assert acts.expire(now=later) == 1 and acts.expire(now=later) == 0
    assert next(site.desk.journal.entries(kind="people-act-dropped")).body["reason"].startswith("nobody confirmed")


def test_new_accounts_auditors_and_too_few_people_do_not_count(new_desk, new_context, now) -> None:
    desk = new_desk(TWO)  # bela is not confirmed yet
    site = create_portal(new_context(desk))
    assert "1 count here" in Person(site, "anna").send("/people", role="steward").text
    assert people_acts(desk.journal).waiting(now=now) == ()
    desk.accounts.vouch("bela", desk.accounts.account("anna"))
    Person(site, "anna").send("/people", role="steward")
    (asked,) = people_acts(desk.journal).waiting(now=now)
    desk.accounts.register(desk.accounts.invite("steward", now=now, by="anna"), "fresh", PASSWORD, now=now)
    fresh = Person(site, "fresh")
    assert "Nothing needs you now." in fresh.inbox
    assert "new account counts once" in fresh.send(f"/acts/{asked.key}/confirm", reason="please").text
    assert Person(site, "otto").send(f"/acts/{asked.key}/confirm", reason="please").status_code == 403
    assert people_acts(desk.journal).waiting(now=now)[0].people == ("anna",)


def test_a_machine_token_and_a_bare_cookie_confirm_nothing(site, now) -> None:
    anna = site.as_("anna")
    anna.send("/people", role="steward")
    (asked,) = site.waiting(now)
    secret, _ = site.desk.accounts.issue_token(
        site.desk.accounts.account("bela"), scopes=("read", "review"), label="thief", days=1, now=now
    )
    data = {"password": PASSWORD, "reason": "please"}
    for answer in ("confirm", "decline"):
        path, headers = f"/acts/{asked.key}/{answer}", {"authorization": f"Bearer {secret}"}
        assert TestClient(site.app, headers=HTML).post(path, data=data, headers=headers).status_code == 403
        assert site.as_("bela").client.post(path, data=data).status_code == 403  # without the form's token
    assert len(site.waiting(now)) == 1


def test_acts_that_are_equal_have_one_key_and_others_have_others() -> None:
    first = PersonAct(kind="invite", target="steward")
    assert key_of(first) == key_of(PersonAct(kind="invite", target="steward"))
    assert key_of(first) != key_of(PersonAct(kind="close-account", target="steward"))


def test_two_confirmations_of_an_account_at_the_same_moment_are_one(desk, monkeypatch) -> None:
    both, outcomes = threading.Barrier(2), []

    def looked_at(person: Account, newcomer: Account) -> None:
        check_vouches(person, newcomer)
        both.wait(120)  # the other one has found the account fresh as well

    def confirm() -> None:
        try:
            outcomes.append(desk.accounts.vouch("bela", desk.accounts.account("anna")).vouched_by)
        except Refused as error:
            outcomes.append(str(error))

    monkeypatch.setattr(accounts, "check_vouches", looked_at)
    clicks = [threading.Thread(target=confirm, daemon=True) for _ in range(2)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join(120)
    assert sorted(outcomes) == ["anna", "the account of bela was confirmed already"]
