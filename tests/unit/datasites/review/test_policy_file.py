"""A policy that changes while the datasite runs, and the caps that follow it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from support.review_desk import NOW, PASSWORD, identity, make_desk, make_proposal

from datasites.review.approvals import ApprovalStore
from datasites.review.budget_acts import Act, BudgetActs
from datasites.review.endings import RETURNED, Endings
from datasites.review.policy_file import CHANGED, REFUSED, PolicyFile
from privacy.errors import BudgetExceeded, InvalidInput, Refused
from privacy.ledger.costs import StudyCost, gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash

TEXT = "# the board's words\n[budget]\nepsilon_cap = 8.0 # minute 12\ndelta = 1e-5\n"
STUDY = StudyCost(rounds=4, round=gaussian_cost(3.0))


class Place:
    """A hospital with a policy file, a ledger with one study, and two people who decide."""

    def __init__(self, folder: Path, text: str = TEXT) -> None:
        self.path = folder / "policy.toml"
        self.write(text)
        self.desk = make_desk(folder)
        self.journal = self.desk.journal
        self.ledger = Ledger(folder / "ledger.sqlite", identity("alba"), clock=lambda: NOW)
        self.population = self.ledger.register_dataset("alba-lung", 1, [case_hash(bytes(32), "case")])
        self.ledger.set_cap(self.population, epsilon=8.0, delta=1e-5, by="policy file", reason="published")
        self.policies = PolicyFile(self.path, journal=self.journal, ledger=self.ledger)
        self.store = self.desk.store
        self.store.policy = self.policies.current
        endings = Endings(ledger=self.ledger, journal=self.journal, approvals=self.store)
        self.acts = BudgetActs(ledger=self.ledger, journal=self.journal, policies=self.policies, endings=endings)

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        os.utime(self.path, ns=(1, int.from_bytes(os.urandom(6))))

    def reserve(self, name: str = "pilot") -> str:
        hashed = f"{name:0<64}"
        self.ledger.reserve(self.population, study=name, proposal_hash=hashed, plan=STUDY)
        return hashed

    @property
    def cap(self) -> tuple[float, float]:
        cap = self.ledger.account(self.population).cap
        assert cap is not None
        return cap.epsilon, cap.delta

    def person(self, name: str = "anna") -> object:
        return self.desk.accounts.authenticate(name, PASSWORD, now=NOW)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_changed_file_moves_the_cap_of_the_ledger_and_is_journaled_with_what_differs(place: Place) -> None:
    assert not list(place.journal.entries(kind=CHANGED))
    place.write(TEXT.replace("8.0", "3.5") + "[study]\nmaximum_rounds = 7\n")
    assert place.policies.current().budget.epsilon_cap == 3.5
    assert place.cap == (3.5, 1e-5)
    (entry,) = place.journal.entries(kind=CHANGED)
    assert entry.body["changes"] == [
        {"key": "budget.epsilon_cap", "before": "8", "after": "3.5"},
        {"key": "study.maximum_rounds", "before": "200", "after": "7"},
    ]
    assert list(place.ledger.entries(kind="cap"))[-1].body["by"] == "policy file"


def test_a_file_that_is_being_written_takes_effect_as_a_whole_only(place: Place) -> None:
    first, second = TEXT.replace("8.0", "3.5"), "[study]\nmaximum_rounds = 7\n"
    place.path.write_text(first, encoding="utf-8")  # a policy too, with 200 rounds

    def go_on() -> None:
        time.sleep(0.15)
        with place.path.open("a", encoding="utf-8") as file:
            file.write(second)

    writer = threading.Thread(target=go_on)
    writer.start()
    found = place.policies.current()
    writer.join()
    assert (found.budget.epsilon_cap, found.study.maximum_rounds) == (3.5, 7)
    (entry,) = place.journal.entries(kind=CHANGED)
    assert len(entry.body["changes"]) == 2


def test_while_somebody_goes_on_writing_the_policy_before_stays_in_force(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_on(_seconds: float) -> None:
        place.path.write_text(TEXT.replace("8.0", "3.5"), encoding="utf-8")

    monkeypatch.setattr("datasites.review.policy_file.time.sleep", write_on)
    write_on(0)
    assert place.policies.current().budget.epsilon_cap == 8.0
    os.utime(place.path, ns=(1, 1))
    assert place.policies.current().budget.epsilon_cap == 3.5


def test_a_lower_cap_holds_at_the_next_round_and_the_next_approval(place: Place) -> None:
    hashed = place.reserve()
    place.ledger.charge(hashed, 1)
    place.write(TEXT.replace("8.0", "1.5"))
    proposal = make_proposal()
    with pytest.raises(Refused, match=r"the cap is 1\.5"):
        place.store.approve(
            place.desk.submit(proposal),
            reviewer=place.person(),
            key=place.desk.accounts.unlock("anna", PASSWORD),
            now=NOW,
            epsilon=4.0,
        )
    with pytest.raises(BudgetExceeded, match=r"round 2 does not fit .* the cap is epsilon 1\.5 at delta 1e-05"):
        place.ledger.charge(hashed, 2)
    place.write(TEXT)
    place.policies.current()
    place.ledger.charge(hashed, 2)


def test_a_file_that_is_no_policy_changes_nothing_and_is_told_once(place: Place) -> None:
    place.write("[budget]\nepsilon_cap = -1\n")
    for _ in range(3):
        assert place.policies.current().budget.epsilon_cap == 8.0
    assert place.cap == (8.0, 1e-5)
    assert len(list(place.journal.entries(kind=REFUSED))) == 1 and "epsilon_cap" in place.policies.problem
    with pytest.raises(InvalidInput, match="the policy before it stays in force"):
        place.policies.reload()
    place.path.unlink()
    assert place.policies.current().budget.epsilon_cap == 8.0
    place.write(TEXT.replace("8.0", "2"))
    assert place.policies.current().budget.epsilon_cap == 2 and place.policies.problem == ""


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"", "policy.toml is empty"),
        (b" \r\n", "policy.toml is empty"),
        (TEXT.encode("utf-16"), "could not read it"),
        (None, "could not read it"),
    ],
    ids=["emptied", "blank", "utf-16", "folder"],
)
def test_a_file_that_an_editor_has_emptied_or_spoilt_changes_nothing(
    place: Place, written: bytes | None, told: str
) -> None:
    before = place.policies.current()
    place.path.unlink()
    place.path.write_bytes(written) if written is not None else place.path.mkdir()
    assert place.policies.current() == before and place.cap == (8.0, 1e-5)
    assert told in place.policies.problem and str(place.path) not in place.policies.problem


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_it(place: Place) -> None:
    place.write("\ufeff" + TEXT.replace("8.0", "5.0").replace("\n", "\r\n"))
    assert place.policies.current().budget.epsilon_cap == 5.0 and place.policies.problem == ""
    place.policies.write_cap(epsilon=4.0, delta=None, by="anna", reason="minute 13")
    assert place.cap == (4.0, 1e-5) and "the board's words" in place.path.read_text()


def test_a_change_made_while_nothing_ran_is_found_at_the_start(place: Place) -> None:
    place.write(TEXT.replace("8.0", "2.0"))
    PolicyFile(place.path, journal=place.journal, ledger=place.ledger)
    assert place.cap == (2.0, 1e-5)
    assert len(list(place.journal.entries(kind=CHANGED))) == 1


def test_a_cap_by_hand_is_written_into_the_file_and_keeps_its_comments(place: Place) -> None:
    act = Act(kind="cap", epsilon="5")
    done = place.acts.ask(act, person=place.person(), reason="board decision 13", now=NOW)
    assert done.done and done.text == "budget.epsilon_cap: 8 -> 5"
    assert "# the board's words" in place.path.read_text() and "epsilon_cap = 5.0" in place.path.read_text()
    assert place.cap == (5.0, 1e-5)
    entry = list(place.ledger.entries(kind="cap"))[-1]
    assert (entry.body["by"], entry.body["reason"]) == ("anna", "board decision 13")
    with pytest.raises(InvalidInput, match="epsilon_cap"):
        place.acts.ask(Act(kind="cap", epsilon="-3"), person=place.person(), reason="oops", now=NOW)
    assert place.cap == (5.0, 1e-5)


def test_two_people_release_a_reservation_where_the_policy_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path, TEXT + "required_people = 2\n")
    hashed = place.reserve()
    place.ledger.charge(hashed, 1)
    act = Act(kind="release", target=place.acts.find("pilot"))
    first = place.acts.ask(act, person=place.person(), reason="it will not go on", now=NOW)
    assert not first.done and "1 more person" in first.text
    assert [asked.people for asked in place.acts.waiting(now=NOW)] == [("anna",)]
    with pytest.raises(Refused, match="asked for this already"):
        place.acts.ask(act, person=place.person(), reason="again", now=NOW)
    with pytest.raises(Refused, match="auditor"):
        place.acts.ask(act, person=place.person("otto"), reason="me too", now=NOW)
    done = place.acts.ask(act, person=place.person("bela"), reason="agreed", now=NOW)
    assert done.done and "2, 3, 4" in done.text
    (entry,) = place.journal.entries(kind=RETURNED)
    assert (entry.body["by"], entry.body["reason"]) == ("anna and bela", "it will not go on; agreed")
    assert place.acts.waiting(now=NOW) == ()
    with pytest.raises(InvalidInput, match="there are: none"):
        place.acts.find("pilot")


def test_closing_a_population_releases_what_was_reserved_on_it(place: Place) -> None:
    place.reserve()
    act = Act(kind="close", target=place.population)
    assert place.acts.ask(act, person=place.person(), reason="consent withdrawn", now=NOW).done
    account = place.ledger.account(place.population)
    assert account.closed and account.committed.cost == account.spent.cost
    with pytest.raises(InvalidInput, match="closed already"):
        place.acts.ask(act, person=place.person(), reason="once more", now=NOW)
    with pytest.raises(InvalidInput, match="a reason"):
        place.acts.ask(Act(kind="cap", epsilon="3"), person=place.person(), reason=" ", now=NOW)


def test_the_store_asks_for_the_policy_of_the_moment(place: Place) -> None:
    assert isinstance(place.store, ApprovalStore)
    place.write(TEXT + "[study]\nmaximum_rounds = 2\n")
    assert place.store.policy.study.maximum_rounds == 2


TWO = TEXT + "required_people = 2\n"


@pytest.fixture
def strict(tmp_path: Path) -> Place:
    return Place(tmp_path, TWO)


def ask_policy(place: Place, name: str) -> bool:
    act = Act(kind="policy", target=place.acts.held)
    return place.acts.ask(act, person=place.person(name), reason="board decision 15", now=NOW).done


@pytest.mark.parametrize(
    ("old", "new"),
    [("epsilon_cap = 8.0", "epsilon_cap = 9.0"), ("delta = 1e-5", "delta = 1e-4"), ("= 2", "= 1")],
    ids=["cap", "delta", "people"],
)
def test_an_edit_that_loosens_what_takes_two_waits_for_two(strict: Place, old: str, new: str) -> None:
    before = strict.policies.current()
    strict.write(TWO.replace(old, new))
    assert strict.policies.current() == before and strict.cap == (8.0, 1e-5)
    assert "takes several people" in strict.policies.problem
    assert [e.kind for e in strict.journal.entries(kind=REFUSED)] == [REFUSED]
    assert not ask_policy(strict, "anna")
    with pytest.raises(Refused, match="already"):
        ask_policy(strict, "anna")
    assert strict.policies.current() == before
    assert ask_policy(strict, "bela")
    assert strict.policies.current() != before and strict.policies.problem == ""
    entry = list(strict.journal.entries(kind=CHANGED))[-1]
    assert entry.body["by"] == "anna and bela"


def test_a_held_edit_stays_held_over_a_restart_and_other_files_are_other_acts(strict: Place) -> None:
    strict.write(TWO.replace("8.0", "9.0"))
    assert strict.policies.current().budget.epsilon_cap == 8.0
    again = PolicyFile(strict.path, journal=strict.journal, ledger=strict.ledger)
    assert again.current().budget.epsilon_cap == 8.0 and again.held == strict.acts.held != ""
    assert not ask_policy(strict, "anna")
    strict.write(TWO.replace("8.0", "90.0"))  # after the first person has looked
    assert not ask_policy(strict, "bela")
    assert strict.policies.current().budget.epsilon_cap == 8.0
    with pytest.raises(InvalidInput, match="changed since"):
        strict.acts.ask(
            Act(kind="policy", target="0" * 64), person=strict.person(), reason="board decision 15", now=NOW
        )


def test_a_lower_cap_and_what_takes_one_person_hold_at_once(strict: Place) -> None:
    strict.write(TWO.replace("8.0", "7.0"))
    assert strict.policies.current().budget.epsilon_cap == 7.0 and strict.policies.held == ""
    assert strict.cap == (7.0, 1e-5)


def test_a_cap_asked_for_by_two_brings_no_other_edit_into_force(strict: Place) -> None:
    strict.write(TWO.replace("= 2", "= 1"))
    strict.policies.current()
    cap = Act(kind="cap", epsilon="9")
    assert not strict.acts.ask(cap, person=strict.person("anna"), reason="board decision 15", now=NOW).done
    with pytest.raises(InvalidInput, match="required_people"):
        strict.acts.ask(cap, person=strict.person("bela"), reason="board decision 15", now=NOW)
    assert strict.policies.current().budget.required_people == 2 and strict.cap == (8.0, 1e-5)
    assert strict.acts.waiting(now=NOW) == ()  # it could not be done, so nobody has to wait a week to ask again


def test_where_accounts_take_two_one_person_takes_neither_that_nor_the_keys_back(tmp_path: Path) -> None:
    text = TEXT + '[people]\nrequired_people = 2\nsecurity_key = "required"\n'
    place = Place(tmp_path, text)
    for looser in (
        text.replace("required_people = 2", "required_people = 1"),
        text.replace('"required"', '"if-registered"'),
    ):
        place.write(looser)
        assert place.policies.current().people.required_people == 2
        assert place.policies.current().people.security_key == "required"
        assert place.policies.held


def test_who_acts_on_a_budget_is_named_in_full(place: Place) -> None:
    place.desk.accounts.rename("anna", full_name="Dr. Anna Müller", function="data steward")
    place.reserve()
    act = Act(kind="release", target=f"{'pilot':0<64}")
    place.acts.ask(act, person=place.person(), reason="it is stuck", now=NOW)
    assert next(place.journal.entries(kind="budget-act-asked")).body["titled"] == "Dr. Anna Müller, data steward"
    assert next(place.ledger.entries(kind="free")).body["by"] == "anna (Dr. Anna Müller, data steward)"
