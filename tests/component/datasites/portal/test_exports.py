"""The journal and reports leave the portal: paged, filtered, as CSV, journaled, and without a secret."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from fastapi.testclient import TestClient
from support.security_key import SoftwareKey

from datasites.portal.app import create_portal
from datasites.portal.shown.journal_words import HAPPENED
from datasites.review import endings
from datasites.review.records import State

ROOT = Path(__file__).parents[4]

PASSWORD = "correct horse battery staple"
HTML = {"accept": "text/html"}


@pytest.fixture
def portal(desk, new_context):
    with TestClient(create_portal(new_context(desk)), base_url="http://localhost", headers=HTML) as client:
        client.post("/login", data={"name": "anna", "password": PASSWORD})
        yield client


def bearer(desk, now, name: str = "otto") -> dict[str, str]:
    account = desk.accounts.account(name)
    secret, _ = desk.accounts.issue_token(account, scopes=("read",), label="audit", days=1, now=now)
    return {"authorization": f"Bearer {secret}", "accept": "application/json"}


def test_the_api_pages_through_the_journal_by_kind_and_time(portal, desk, now) -> None:
    for number in range(7):
        desk.journal.append("signed-in", {"person": "anna", "n": number})
    headers, found, since = bearer(desk, now), [], 0
    while since is not None:
        answer = portal.get("/api/journal", params={"since": since, "limit": 3, "kind": "signed-in"}, headers=headers)
        part = answer.json()
        assert len(part["entries"]) <= 3
        found += [entry["body"].get("n") for entry in part["entries"]]
        since = part["next"]
    assert found == [None, *range(7)]  # the sign-in itself came first
    for query, count in (({"after": "2999-01-01"}, 0), ({"before": "2000-01-01"}, 0), ({"after": "2026-01-01"}, 8)):
        answer = portal.get("/api/journal", params={**query, "kind": "signed-in"}, headers=headers)
        assert len(answer.json()["entries"]) == count
    assert portal.get("/api/journal", params={"after": "yesterday"}, headers=headers).status_code == 422
    assert portal.get("/api/journal", headers={"authorization": "Bearer x", "accept": "*/*"}).status_code == 401


def test_fetching_a_report_and_an_export_is_journaled(portal, desk, now) -> None:
    assert portal.get("/reports/privacy-report.pdf").status_code == 200
    assert portal.get("/reports/nothing.pdf").status_code == 404
    (entry,) = desk.journal.entries(kind="report-downloaded")
    assert (entry.body["person"], entry.body["name"]) == ("anna", "privacy-report.pdf")
    assert re.fullmatch("[0-9a-f]{16}", entry.body["session"])
    answer = portal.get("/journal/export.csv", headers=bearer(desk, now))
    assert answer.headers["content-disposition"] == 'attachment; filename="journal-alba.csv"'
    (entry,) = desk.journal.entries(kind="journal-exported")
    assert entry.body["person"] == "otto" and "token" in entry.body and entry.body["to"] == "csv"
    assert [e.body["person"] for e in desk.journal.entries(kind="token-used")] == ["otto"]
    assert TestClient(portal.app, headers=HTML).get("/journal/export.csv", follow_redirects=False).status_code == 303


def test_the_csv_is_what_the_page_shows_and_holds_no_formula(portal, desk, new_proposal) -> None:
    hashed = desk.submit(new_proposal())
    reason = "x;=cmd|'/c calc'!A1"
    desk.store.ask(hashed, reviewer=desk.accounts.account("bela"), reason=reason, now=desk_now(desk))
    assert "/journal/export.csv?q=&amp;kind=" in portal.get("/journal").text
    text = portal.get("/journal/export.csv", params={"kind": "proposal-changes-requested"}).text
    (row,) = csv.DictReader(text.splitlines())
    assert json.loads(row["body"])["reason"] == reason and ";" not in text


def desk_now(desk):
    return desk.journal.now()


def test_no_export_holds_a_secret(portal, desk, now, new_proposal) -> None:
    csrf = re.search(r'name="csrf" value="([^"]+)"', portal.get("/people").text).group(1)
    headers = {"x-csrf-token": csrf, "accept": "*/*"}
    key = SoftwareKey()
    challenge = portal.post("/people/keys/new", json={}, headers=headers).json()
    made = key.make(challenge)
    portal.post("/people/keys", data={"csrf": csrf, "label": "blue", "password": PASSWORD, "made": made})
    portal.post("/people", data={"csrf": csrf, "role": "auditor", "password": "a wrong pass phrase"})
    invitation = desk.accounts.invite("auditor", now=now)
    portal.post("/welcome", data={"token": invitation, "name": "dora", "password": "a very long new pass phrase"})
    portal.post("/login", data={"name": "otto", "password": "someone's mistyped password"})
    token = bearer(desk, now)
    everything = portal.get("/journal/export.csv", headers=token).text
    everything += portal.get("/api/journal", params={"limit": 1000}, headers=token).text
    secrets = [
        PASSWORD,
        "a wrong pass phrase",
        "a very long new pass phrase",
        "mistyped",
        invitation,
        csrf,
        token["authorization"].partition(" ")[2],
        challenge["challenge"],
        made,
        *portal.cookies.values(),
    ]
    assert len(everything) > 1000
    assert [secret for secret in secrets if len(secret) > 8 and secret in everything] == []


def test_every_kind_that_a_hospital_writes_is_in_words() -> None:
    sources = [path.read_text() for room in ("hospital", "portal", "review", "data", "node", "helper", "keyholder")
               for path in (ROOT / "datasites" / room).rglob("*.py")]  # fmt: skip
    literal = re.compile(r'(?:\b(?:append|record|wrote|journal_once)|_record)\(\s*"([a-z]+(?:-[a-z]+)+)"')
    written = {kind for source in sources for kind in literal.findall(source)}
    written |= {f"proposal-{kind}" for kind in get_args(State) if kind != "pending"} | {
        "proposal-approved-automatically"
    }
    written |= {endings.CONTINUED, endings.FAILED, endings.FINISHED, endings.RETURNED, endings.STOPPED}
    assert len(written) >= 50
    assert written - set(HAPPENED) == {"set-cookie", "round-plan"}  # a header, and a kind of document
