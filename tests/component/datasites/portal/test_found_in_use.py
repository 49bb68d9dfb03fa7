"""What people stumbled over when they used the portal, each with its siblings on every page."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.full_portal import FullPortal
from support.review_desk import NOW, PASSWORD

from datasites.language import LANGUAGES
from datasites.node.roster import Roster
from datasites.node.web.charts import steps
from datasites.portal.app import create_portal
from datasites.portal.shown.code_view import facts_diff
from datasites.review.budgets import StudyStatus
from datasites.review.policy import Policy
from datasites.study.proposal import Party
from orchestrator.demo.roles import partner_lines
from privacy.identity import Identity

_FORMS = (
    r"\d{4}-\d\d-\d\dT\d\d", r"(?<![0-9a-f-])\d+(\.\d+)?e-?\d+(?![0-9a-f-])", r"\bNone\b(?!\.)", r"\b(True|False)\b",
    r"\['", r"\d\.\d{9,}",
)  # fmt: skip
_HIDDEN = frozenset({"script", "style", "code", "pre", "title"})


class _Shown(HTMLParser):
    """The text that a page shows outside of code, and the parts that change by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.live: list[dict[str, str | None]] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if "data-live" in named:
            self.live.append(named)
        if tag in _HIDDEN:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)


def shown(page: str) -> _Shown:
    found = _Shown()
    found.feed(page)
    return found


@pytest.fixture
def full(tmp_path: Path) -> Iterator[FullPortal]:
    made = FullPortal(tmp_path / "full")
    yield made
    made.close()


def client_of(full: FullPortal, **changes: object) -> TestClient:
    app = create_portal(replace(full.context, **changes))  # type: ignore[arg-type]
    client = TestClient(app, headers={"accept": "text/html"}, raise_server_exceptions=False)
    assert client.post("/login", data={"name": "anna", "password": PASSWORD}).status_code == 200
    return client


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_shows_a_machines_form_of_a_time_a_number_or_nothing(full: FullPortal, language: str) -> None:
    client = client_of(full)
    client.headers["accept-language"] = language
    for path in set(full.pages) - {"/journal"}:  # which shows every field of the record as it was written
        text = " ".join(shown(client.get(path).text).text)
        for wrong in _FORMS:
            found = re.search(wrong, text)
            assert found is None, (path, text[max(0, found.start() - 60) : found.end() + 20])


def test_every_part_that_changes_by_itself_is_announced(full: FullPortal) -> None:
    client = client_of(full)
    live = [part for path in full.pages for part in shown(client.get(path).text).live]
    assert len(live) >= 4  # two requests, the studies, the reports
    assert all(part.get("aria-live") == "polite" for part in live)


@pytest.mark.parametrize("state", ["finished", "stopped", "unused"])
def test_a_study_that_is_over_offers_no_revocation(full: FullPortal, state: str) -> None:
    shares = {"rounds_done": 5, "rounds": 5, "epsilon_spent": 1.0, "delta": 1e-5}
    study = StudyStatus(study="lung-staging", proposal_hash=full.approved, state=state, **shares)
    running = client_of(full).get(f"/requests/{full.approved}").text
    over = client_of(full, studies=lambda: (study,))
    assert f"/requests/{full.approved}/revoke" in running
    assert f"/requests/{full.approved}/revoke" not in over.get(f"/requests/{full.approved}").text
    assert "Revoke the approval" not in over.get("/studies").text


@pytest.mark.parametrize("state", ["denied", "revoked", "finished", "stopped", "unused"])
def test_a_request_that_is_over_offers_no_dry_run_and_begins_none(full: FullPortal, state: str) -> None:
    anna, reason = full.desk.accounts.account("anna"), "The ethics vote was withdrawn."
    found, studies = full.approved, full.context.studies
    if state == "revoked":
        full.desk.store.revoke(found, reviewer=anna, reason=reason, now=NOW)
    elif state == "denied":
        full.desk.store.deny(found := full.proposal, reviewer=anna, reason=reason, now=NOW)
    else:
        shares = {"rounds_done": 5, "rounds": 5, "epsilon_spent": 1.0, "delta": 1e-5}
        over = StudyStatus(study="lung-staging", proposal_hash=found, state=state, **shares)
        studies = lambda: (over,)  # noqa: E731
    client = client_of(full, studies=studies)
    page = client.get(address := f"/requests/{found}").text
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf is not None and f"{address}/dry-run" not in page
    refused = client.post(f"{address}/dry-run", data={"csrf": csrf[1]})
    assert refused.status_code == 403 and "this request is over" in refused.text
    refused = client.post(f"/api{address}/dry-run", headers={"x-csrf-token": csrf[1]})
    assert refused.status_code == 403 and "this request is over" in refused.text


def test_keys_that_stand_in_the_policy_were_compared_by_nobody_here(full: FullPortal) -> None:
    compared = client_of(full).get(f"/requests/{full.proposal}").text
    assert "Everybody's fingerprint was compared." in compared.replace("&#39;", "'")
    proposal = full.desk.store.request(full.proposal).proposal
    sites = (Party(name=p.name, institution=p.institution, public_key=p.public_key) for p in proposal.participants)
    roster = Roster(orchestrator=proposal.orchestrator, keyholder=proposal.keyholder, sites=tuple(sites))
    full.desk.store._records.confirmations = lambda: ()  # type: ignore[method-assign]
    full.desk.store.policy = Policy.parse("\n".join(partner_lines(roster, "")))
    by_file = client_of(full).get(f"/requests/{full.proposal}").text
    assert "fingerprint was compared" not in by_file
    assert "In this portal nobody compared the keys of" in by_file


def test_the_first_of_two_signatures_does_not_read_as_done(full: FullPortal) -> None:
    full.desk.store.policy = Policy.parse("[review]\nrequired_reviewers = 2\n")
    client = client_of(full)
    page = client.get(f"/requests/{full.proposal}").text
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf is not None
    form = {"csrf": csrf[1], "password": PASSWORD, "conditions": ""}
    signed = client.post(f"/requests/{full.proposal}/approve", data=form).text
    assert "This hospital has not approved yet: another person has to sign as well." in signed
    assert "1 of 2 needed signatures" in signed and "This hospital has approved" not in signed


@pytest.mark.parametrize(
    ("before", "now", "rows"),
    [
        (None, [], ()),
        ("", None, ()),
        (0.1 + 0.2, 0.3, (("0.30000000000000004", "0.29999999999999999"),)),
        (1e-5, 2e-5, (("0.00001", "0.00002"),)),
        (["a", "b"], ["a"], (("a and b", "a"),)),
        (False, None, (("no", "none"),)),
    ],
)
def test_a_difference_is_shown_as_people_read_it_and_never_as_the_same_twice(
    before: object, now: object, rows: tuple[tuple[str, str], ...]
) -> None:
    assert tuple(row[1:] for row in facts_diff({"x": before}, {"x": now})) == rows


def test_a_budget_over_time_has_a_time_axis() -> None:
    days = [(dt.datetime(2026, 3, day, tzinfo=dt.UTC), float(day)) for day in (1, 9)]
    picture = str(steps(days, label="spent", limit=10.0, limit_text="cap"))
    assert "1 Mar 2026" in picture and "9 Mar 2026" in picture
    hours = [(dt.datetime(2026, 3, 1, hour, 5, tzinfo=dt.UTC), float(hour)) for hour in (8, 11)]
    picture = str(steps(hours, label="spent", limit=12.0, limit_text="cap"))
    assert "Mar 1, 2026, 08:05<" in picture.replace("1 Mar 2026", "Mar 1, 2026") and "11:05 UTC" in picture
    assert re.findall(r'text-anchor="end">([0-9.]+)<', picture) == ["0", "5", "10", "15"]  # no 11.2 for 11.25


@pytest.mark.parametrize(
    "name", ["Klinik 🏥 \U0001f469\u200d⚕️", 'a "quoted" \\ name', "東京大学病院", "tab\there", "\x7f"]
)
def test_a_partner_of_any_letters_is_a_policy_that_reads_back(name: str) -> None:
    keys = (Identity.from_seed(letter * 32).public_key for letter in (b"o", b"k", b"a", b"b", b"c"))
    parties = [Party(name=f"party-{n}", institution=f"{name} {n}", public_key=key) for n, key in enumerate(keys)]
    roster = Roster(orchestrator=parties[0], keyholder=parties[1], sites=tuple(parties[2:]))
    read = tomllib.loads("\n".join(partner_lines(roster, parties[2].public_key)))
    assert {p["institution"] for p in read["partners"]} == {p.institution for p in parties} - {parties[2].institution}
