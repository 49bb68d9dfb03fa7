"""The budget page: what still fits, what came back, and what people change by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.review_desk import NOW, PASSWORD, identity, make_context, make_desk

from datasites.portal.app import create_portal
from datasites.review import budgets
from datasites.review.budget_acts import BudgetActs
from datasites.review.endings import Endings, held_rounds
from datasites.review.policy_file import PolicyFile
from privacy.ledger.costs import StudyCost, gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash

STUDY = StudyCost(rounds=4, round=gaussian_cost(3.0))
TEXT = "[budget]\nepsilon_cap = 8.0\ndelta = 1e-5\n"


class Portal:
    """A portal over a real ledger and policy, with two people signed in in turn."""

    def __init__(self, folder: Path, text: str = TEXT) -> None:
        (folder / "policy.toml").write_text(text)
        self.desk = make_desk(folder)
        self.ledger = Ledger(folder / "ledger.sqlite", identity("alba"), clock=lambda: NOW)
        self.population = self.ledger.register_dataset("alba-lung", 1, [case_hash(bytes(32), "case")])
        self.ledger.set_cap(self.population, epsilon=8.0, delta=1e-5, by="policy file", reason="published")
        journal, store = self.desk.journal, self.desk.store
        policies = PolicyFile(folder / "policy.toml", journal=journal, ledger=self.ledger)
        store.policy = policies.current
        endings = Endings(ledger=self.ledger, journal=journal, approvals=store)
        context = replace(
            make_context(self.desk, NOW, folder),
            budgets=lambda: budgets.budgets(self.ledger),
            history=lambda: {p: self.ledger.timeline(p) for p in self.ledger.populations()},
            budget_details=lambda: {p: budgets.details(self.ledger, p) for p in self.ledger.populations()},
            budget_acts=BudgetActs(ledger=self.ledger, journal=journal, policies=policies, endings=endings),
            policy_problem=lambda: policies.problem,
            studies=self.studies,
        )
        self.client = TestClient(create_portal(context), follow_redirects=True)
        self.csrf = ""

    def sign_in(self, name: str) -> None:
        self.client.cookies.clear()
        page = self.client.post("/login", data={"name": name, "password": PASSWORD, "to": "/budget"})
        assert page.status_code == 200, page.text
        self.csrf = page.text.split('name="csrf" value="')[1].split('"')[0]

    def post(self, kind: str, **fields: str) -> str:
        given = {"csrf": self.csrf, "password": PASSWORD, "reason": "board decision 14", **fields}
        return self.client.post(f"/budget/{kind}", data=given).text

    def studies(self) -> tuple[budgets.StudyStatus, ...]:
        account = self.ledger.account(self.population)
        return tuple(
            replace(
                budgets.study_status(account, study, "approved"), failed=held_rounds(self.desk.journal, study.study)
            )
            for study in account.studies
        )

    def expire(self) -> None:
        """Forget what the pages remember for a second."""
        self.client.app.state.service.studies._kept = None  # type: ignore[attr-defined]

    def reserve(self) -> str:
        self.ledger.reserve(self.population, study="pilot", proposal_hash="a" * 64, plan=STUDY)
        self.ledger.charge("a" * 64, 1)
        return "a" * 64


@pytest.fixture
def portal(tmp_path: Path) -> Portal:
    found = Portal(tmp_path)
    found.sign_in("anna")
    return found


def test_the_page_says_how_many_studies_still_fit_and_for_whom_budget_is_reserved(portal: Portal) -> None:
    portal.reserve()
    page = portal.client.get("/budget").text
    assert "What still fits" in page and "studies of epsilon 0.5" in page
    assert "Release 3 rounds of pilot" in page


def test_a_stuck_reservation_is_released_with_a_reason_and_a_password(portal: Portal) -> None:
    hashed = portal.reserve()
    refused = portal.post("release", target=hashed, password="wrong")
    assert "What came back" not in refused and portal.ledger.account(portal.population).studies[0].promised.epsilon > 0
    page = portal.post("release", target=hashed)
    assert "Done, with your reason" in page and "What came back" in page and "board decision 14" in page
    account = portal.ledger.account(portal.population)
    assert account.committed.cost == account.spent.cost == STUDY.round
    assert "expected a reason" in portal.post("close", target=portal.population, reason="x")


def test_the_cap_moves_and_its_diff_is_shown(portal: Portal) -> None:
    page = portal.post("cap", epsilon="3.5")
    assert "<del>8</del>" in page and "<ins>3.5</ins>" in page
    cap = portal.ledger.account(portal.population).cap
    assert cap is not None and cap.epsilon == 3.5
    assert "<ins>3.5</ins>" in portal.client.get("/policy").text
    assert "expected numbers" in portal.post("cap", epsilon="three")


def test_a_policy_that_cannot_be_read_is_shown_with_the_reason(portal: Portal) -> None:
    (portal.desk.folder / "policy.toml").write_text("[budget]\nepsilon_cap = -4\n")
    page = portal.client.get("/policy").text
    assert "is not in force" in page and "epsilon_cap" in page
    assert "is not in force" in portal.client.get("/inbox").text


def test_two_people_where_the_policy_says_so(tmp_path: Path) -> None:
    portal = Portal(tmp_path, TEXT + "required_people = 2\n")
    portal.sign_in("anna")
    page = portal.post("close", target=portal.population)
    assert "Waits for another person" in page and not portal.ledger.account(portal.population).closed
    assert "asked for this already" in portal.post("close", target=portal.population)
    portal.sign_in("bela")
    assert "closed for ever" in portal.post("close", target=portal.population)
    assert portal.ledger.account(portal.population).closed


def test_an_auditor_sees_everything_and_changes_nothing(portal: Portal) -> None:
    hashed = portal.reserve()
    portal.client.cookies.clear()
    portal.client.post("/login", data={"name": "otto", "password": PASSWORD, "to": "/budget"})
    page = portal.client.get("/budget").text
    assert "Reserved" in page and "Release 3 rounds" not in page
    answer = portal.client.post(
        "/budget/release", data={"csrf": "x", "password": PASSWORD, "reason": "because", "target": hashed}
    )
    assert answer.status_code == 403


def test_a_failed_round_is_shown_and_a_person_lets_the_study_go_on(portal: Portal) -> None:
    hashed = portal.reserve()
    journal = portal.desk.journal
    assert "does not" in portal.post("continue", target=hashed)
    journal.append("worker-failed", {"study": "pilot", "round": 1})
    page = portal.client.get("/studies").text
    assert "A charged round failed here: 1." in page and "Let pilot go on" in page
    assert "Done, with your reason" not in portal.post("continue", target=hashed, password="wrong")
    assert "Done, with your reason" in portal.post("continue", target=hashed)
    assert [e.body["rounds"] for e in journal.entries(kind="study-continued")] == [[1]]
    portal.expire()
    assert "A charged round failed here" not in portal.client.get("/studies").text


def test_what_was_given_out_by_hand_is_noted_and_every_report_says_so(portal: Portal) -> None:
    portal.sign_in("anna")
    given = {"target": portal.population, "name": "生存曲線 for the board"}
    assert "no epsilon covers it" not in portal.post("note", **given, password="wrong" * 4)
    assert not portal.ledger.account(portal.population).unguaranteed
    portal.post("note", **given)
    (noted,) = portal.ledger.account(portal.population).unguaranteed
    assert (noted.name, noted.reason, "anna" in noted.by) == (given["name"], "board decision 14", True)
    assert given["name"] in portal.client.get("/budget").text
    for wrong in ("", "x", "y" * 121, "see\u202ethis"):
        portal.post("note", target=portal.population, name=wrong)
    portal.post("note", target="population-9", name="a plot")
    assert len(portal.ledger.account(portal.population).unguaranteed) == 1


def test_a_note_takes_two_where_the_policy_says_so_and_says_what_it_is_about(tmp_path: Path) -> None:
    portal = Portal(tmp_path, TEXT + "required_people = 2\n")
    portal.sign_in("anna")
    portal.post("note", target=portal.population, name="a plot")
    assert f"Note that a plot was given out of {portal.population} by hand" in portal.client.get("/inbox").text
    portal.sign_in("bela")
    portal.post("note", target=portal.population, name="another plot")
    assert not portal.ledger.account(portal.population).unguaranteed
    portal.post("note", target=portal.population, name="a plot")
    assert [one.name for one in portal.ledger.account(portal.population).unguaranteed] == ["a plot"]
