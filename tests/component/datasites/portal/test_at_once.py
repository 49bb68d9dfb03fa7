"""A double click freezes nothing: what is signed and registered at one moment is all answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from support.review_desk import PASSWORD

from datasites.portal.app import create_portal
from datasites.review.accounts import AccountStore
from datasites.review.key_wrapping import Hardness


def at_once(*acts: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """Do everything at the same moment; fail if anything is not answered."""
    ready, answers = threading.Barrier(len(acts)), []

    def do(act: Callable[[], httpx.Response]) -> None:
        ready.wait()
        answers.append(act())

    threads = [threading.Thread(target=do, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(answers) == len(acts)
    return answers


class Caller:
    """One person with a session of the machine API on a served portal."""

    def __init__(self, address: str, name: str) -> None:
        self.client = httpx.Client(base_url=address, timeout=280, trust_env=False)
        body = {"name": name, "password": PASSWORD}
        self.headers = {"x-csrf-token": self.client.post("/api/login", json=body).json()["csrf"]}

    def approve(self, proposal_hash: str) -> Callable[[], httpx.Response]:
        path, body = f"/api/requests/{proposal_hash}/approve", {"password": PASSWORD}
        return lambda: self.client.post(path, json=body, headers=self.headers)


@pytest.fixture
def people(request, desk, new_context, now, tmp_path, serve_app):
    """Two reviewers of a portal, closed before the server ends; passwords are as hard to try as in a hospital."""
    desk.accounts.close()
    desk.accounts = AccountStore(tmp_path / "hard.sqlite", hardness=getattr(request, "param", Hardness()))
    for name, role in (("anna", "steward"), ("bela", "privacy-officer")):
        desk.accounts.register(desk.accounts.invite(role, now=now), name, PASSWORD, now=now)
    address = serve_app(create_portal(replace(new_context(desk), accounts=desk.accounts)))
    found = [Caller(address, name) for name in ("anna", "bela")]
    yield found
    for caller in found:
        caller.client.close()


def test_two_approvals_and_two_registrations_at_the_same_moment(desk, new_proposal, people, now) -> None:
    anna, bela = people
    first, second = (desk.submit(new_proposal(study=name, nonce=n * 32)) for name, n in (("a", "1"), ("b", "2")))
    links = [desk.accounts.invite("auditor", now=now) for _ in range(2)]

    def register(number: int) -> Callable[[], httpx.Response]:
        body = {"token": links[number], "name": f"person-{number}", "password": PASSWORD}
        return lambda: anna.client.post("/api/register", json=body)

    answers = at_once(anna.approve(first), bela.approve(second), register(0), register(1))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201, 201]
    assert {desk.store.request(hashed).state for hashed in (first, second)} == {"approved"}
    double = at_once(anna.approve(first), anna.approve(first))  # the second click of two
    assert {answer.status_code for answer in double} == {403}
    assert anna.client.get("/api/requests").status_code == 200


@pytest.mark.parametrize(
    "people",
    [
        pytest.param(Hardness(passes=1, memory_kib=64, lanes=1), id="quick passwords"),
        pytest.param(Hardness(), id="full hardness", marks=pytest.mark.thorough),  # the computing of 54 passwords
    ],
    indirect=True,
)
def test_two_people_sign_twenty_five_requests_each_at_once(desk, new_proposal, people) -> None:
    hashes = [desk.submit(new_proposal(study=f"study-{n}", nonce=f"{n:032d}")) for n in range(50)]
    answers = at_once(*(people[n % 2].approve(hashed) for n, hashed in enumerate(hashes)))
    assert {answer.status_code for answer in answers} == {200}
    assert {desk.store.request(hashed).state for hashed in hashes} == {"approved"}
    assert sum(kind == "proposal-approved" for kind in desk.kinds()) == 50


def test_fifty_people_make_their_accounts_at_once(desk, new_context, now, serve_app) -> None:
    address = serve_app(create_portal(new_context(desk)))
    links = [desk.accounts.invite("auditor", now=now) for _ in range(50)]

    def register(number: int) -> Callable[[], httpx.Response]:
        body = {"token": links[number], "name": f"person-{number}", "password": PASSWORD}
        return lambda: httpx.post(f"{address}/api/register", json=body, timeout=280, trust_env=False)

    answers = at_once(*(register(number) for number in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert {f"person-{number}" for number in range(50)} <= {account.name for account in desk.accounts.accounts()}
    assert desk.kinds().count("account-created") == 50
