"""A changed roster is shown with the fingerprints of who joins, and in force only by a person's own password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import pytest
from fastapi.testclient import TestClient

from datasites.node.joining.changes import CONFIRMED, Change
from datasites.node.joining.documents import Edition
from datasites.node.roster import Roster
from datasites.portal.app import create_portal
from datasites.study.proposal import Party
from privacy.errors import Refused
from privacy.identity import Identity, fingerprint

PASSWORD = "correct horse battery staple"


def party(name: str) -> Party:
    return Party(name=name, institution=name.title(), public_key=Identity.from_seed(name.encode().ljust(32)).public_key)


@dataclass
class Offers:
    """In place of the files in a home: one edition, until it is confirmed."""

    change: Change | None
    taken: list[str] = field(default_factory=list)

    def confirm(self, digest: str) -> Change:
        if self.change is None or self.change.digest != digest:
            raise Refused("look again")
        change, self.change = self.change, None
        self.taken.append(digest)
        return change


def offers(**more: tuple[Party, ...]) -> Offers:
    roster = Roster(orchestrator=party("o"), keyholder=party("k"), sites=(party("dora"),), helpers=(party("henk"),))
    edition = Edition(serial=4, previous="", made="2026-03-01T00:00:00+00:00", roster=roster)
    parts = {"joins": (party("dora"),), "leaves": (party("carl"),), "changed": ()}
    return Offers(Change(edition=edition, **(parts | more)))


class Person:
    def __init__(self, app, name: str) -> None:
        self.client = TestClient(app, headers={"accept": "text/html"})
        self.client.post("/login", data={"name": name, "password": PASSWORD})
        self.csrf = re.search(r'name="csrf" value="([^"]+)"', self.client.get("/people").text).group(1)

    def confirm(self, digest: str, password: str = PASSWORD):
        return self.client.post("/roster", data={"csrf": self.csrf, "password": password, "digest": digest})


@pytest.fixture
def site(new_desk, new_context):
    def make(found: Offers, policy: str = ""):
        desk = new_desk(policy)
        desk.accounts.vouch("bela", desk.accounts.account("anna"))
        context = replace(new_context(desk), roster_change=lambda: found.change, confirm_roster=found.confirm)
        return desk, create_portal(context)

    return make


def test_who_joins_is_shown_with_the_fingerprint_and_counts_as_compared_once_confirmed(site) -> None:
    found = offers()
    desk, app = site(found)
    anna = Person(app, "anna")
    assert "Look at it" in anna.client.get("/inbox").text
    text = anna.client.get("/fingerprints").text
    assert fingerprint(party("dora").public_key) in text and "(carl) leaves" in text
    digest = found.change.digest
    assert anna.confirm(digest, password="not the password at all").status_code == 403 and not found.taken
    assert anna.confirm("0" * 64).status_code == 403 and not found.taken
    anna.confirm(digest)
    assert found.taken == [digest] and party("dora").public_key in desk.store.confirmed()
    (entry,) = desk.journal.entries(kind=CONFIRMED)
    assert (entry.body["serial"], entry.body["joins"], entry.body["leaves"]) == (4, ["dora"], ["carl"])
    assert entry.body["by"] == "anna" and "Look at it" not in anna.client.get("/inbox").text


def test_an_auditor_and_a_stranger_change_no_roster(site) -> None:
    found = offers()
    _, app = site(found)
    digest, otto = found.change.digest, Person(app, "otto")
    assert "put this roster in force" not in otto.client.get("/fingerprints").text
    assert otto.confirm(digest).status_code == 403
    stranger = TestClient(app)
    assert stranger.put(f"/api/roster/{digest}", json={"password": PASSWORD}).status_code == 401
    assert stranger.get("/api/roster").status_code == 401 and not found.taken


def test_two_people_have_to_want_it_where_the_policy_says_so(site) -> None:
    found = offers()
    desk, app = site(found, "[people]\nrequired_people = 2")
    anna, bela = Person(app, "anna"), Person(app, "bela")
    digest = found.change.digest
    anna.confirm(digest)
    assert not found.taken and "changed roster in force: +dora -carl" in bela.client.get("/inbox").text
    bela.confirm(digest)
    assert found.taken == [digest]
    (entry,) = desk.journal.entries(kind=CONFIRMED)
    assert "anna" in entry.body["by"] and "bela" in entry.body["by"]


def test_another_key_of_somebody_known_cannot_be_confirmed(site) -> None:
    _, app = site(offers(changed=(party("carl"),)))
    text = Person(app, "anna").client.get("/fingerprints").text
    assert "would get another key" in text and "put this roster in force" not in text


def test_another_part_of_somebody_known_cannot_be_confirmed(site) -> None:
    _, app = site(offers(moved=(party("henk"),)))
    text = Person(app, "anna").client.get("/fingerprints").text
    assert "(henk) would become helper" in text and "(dora) joins as hospital" in text
    assert "put this roster in force" not in text


def test_machines_see_the_change_and_a_session_confirms_it(site) -> None:
    found = offers()
    _, app = site(found)
    client = TestClient(app)
    csrf = client.post("/api/login", json={"name": "anna", "password": PASSWORD}).json()["csrf"]
    said = client.get("/api/roster").json()
    assert said["serial"] == 4 and [p["name"] for p in said["joins"]] == ["dora"]
    headers = {"x-csrf-token": csrf}
    done = client.put(f"/api/roster/{said['digest']}", json={"password": PASSWORD}, headers=headers)
    assert done.status_code == 204 and client.get("/api/roster").json() is None
