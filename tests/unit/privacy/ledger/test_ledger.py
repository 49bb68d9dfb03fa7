from __future__ import annotations

import contextlib
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.charges import is_charged

from privacy.dp.gaussian import gaussian_epsilon, gaussian_mu
from privacy.dp.mechanism import LossRelease, Mechanism
from privacy.errors import BudgetExceeded, InvalidInput, Refused, Tampered
from privacy.identity import Identity
from privacy.ledger.costs import RDP_ORDERS, ZERO, Cost, StudyCost, gaussian_cost, study_cost
from privacy.ledger.ledger import Ledger, case_hash
from privacy.ledger.verification import verify_folder

IDENTITY = Identity.from_seed(bytes(32))
SECRET = b"s" * 32
DELTA = 1e-4
STUDY = StudyCost(rounds=10, round=gaussian_cost(6.0))  # about epsilon 1.9 in all


def cases(*numbers: int) -> list[str]:
    return [case_hash(SECRET, f"case-{n}") for n in numbers]


def new_ledger(tmp_path: Path, epsilon: float = 8.0) -> tuple[Ledger, str]:
    ledger = Ledger(tmp_path / "ledger.sqlite", IDENTITY)
    population = ledger.register_dataset("brca", 1, cases(1, 2, 3))
    ledger.set_cap(population, epsilon=epsilon, delta=DELTA, by="B. Steward", reason="board decision")
    return ledger, population


def reserve(ledger: Ledger, population: str, name: str = "pilot", plan: Mechanism | StudyCost = STUDY) -> str:
    proposal_hash = f"{name:0<64}"
    ledger.reserve(population, study=name, proposal_hash=proposal_hash, plan=plan)
    return proposal_hash


def test_a_study_is_reserved_whole_and_spent_round_by_round(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    account = ledger.account(population)
    assert account.spent.epsilon == 0 and account.spent.share == 0
    assert account.committed.epsilon == pytest.approx(STUDY.total.epsilon(DELTA))
    for number in range(1, 11):
        ledger.charge(proposal, number)
    account = ledger.account(population)
    assert account.spent.epsilon == pytest.approx(STUDY.total.epsilon(DELTA))
    assert account.studies[0].charged_rounds == tuple(range(1, 11))
    assert account.studies[0].promised.cost == ZERO
    assert [e.kind for e in ledger.entries()] == ["dataset", "cap", "reserve", *["charge"] * 10]
    ledger.verify()


def test_charging_a_round_again_charges_nothing(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    assert not is_charged(ledger, proposal, 3)
    first = ledger.charge(proposal, 3)
    assert ledger.charge(proposal, 3) == first
    assert Ledger(ledger.path, IDENTITY).charge(proposal, 3) == first
    assert is_charged(ledger, proposal, 3)
    assert ledger.spent(population).cost == STUDY.round


def test_approving_the_same_proposal_again_reserves_nothing(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    reserve(ledger, population)
    before = ledger.head
    reserve(ledger, population)
    assert ledger.head == before


def test_a_study_that_does_not_fit_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path, epsilon=2.5)
    reserve(ledger, population, "first")
    before = ledger.head
    preview = ledger.preview(population, STUDY)
    assert not preview.fits and preview.after.share > 1
    with pytest.raises(BudgetExceeded, match=r"epsilon 2\.5 at delta 0\.0001"):
        reserve(ledger, population, "second")
    assert ledger.head == before


def test_what_the_preview_promises_is_what_happens(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    reserve(ledger, population, "first")
    preview = ledger.preview(population, STUDY)
    assert preview.fits
    assert preview.before.share + preview.study.share == pytest.approx(preview.after.share)
    reserve(ledger, population, "second")
    committed = ledger.account(population).committed
    assert committed.epsilon == pytest.approx(preview.after.epsilon)
    assert committed.share == pytest.approx(preview.after.share)


def test_a_lone_study_fits_exactly_up_to_its_own_epsilon(tmp_path: Path) -> None:
    epsilon = STUDY.total.epsilon(DELTA)
    fits, population = new_ledger(tmp_path / "a", epsilon * 1.000001)
    proposal = reserve(fits, population)
    for number in range(1, 11):
        fits.charge(proposal, number)
    tight, population = new_ledger(tmp_path / "b", epsilon * 0.999999)
    with pytest.raises(BudgetExceeded):
        reserve(tight, population)


def test_a_refusal_says_what_fits_beside_the_published_count(tmp_path: Path) -> None:
    """The count is an answer and comes first, so a lone study of the cap's own epsilon does not fit."""
    ledger, population = new_ledger(tmp_path, epsilon=8.0)
    ledger.release(population, name="count", cost=gaussian_cost(10.0), by="publishing", reason="count")

    def study(epsilon: float) -> StudyCost:
        return StudyCost(rounds=1, round=gaussian_cost(1 / gaussian_mu(epsilon, DELTA)))

    with pytest.raises(BudgetExceeded, match=r"ask for less \(full batches of epsilon at most 7\.98 fit\)"):
        reserve(ledger, population, "whole", study(8.0))
    reserve(ledger, population, "less", study(7.98))


def test_a_raised_cap_allows_what_it_would_have_allowed_from_the_start(tmp_path: Path) -> None:
    """No order is frozen: an expense under a small cap leaves later studies all that is exact under a large one."""
    ledger, population = new_ledger(tmp_path, epsilon=1)
    ledger.release(population, name="count", cost=gaussian_cost(10.0), by="publishing", reason="count")
    for epsilon in (3.5, 3.0, 2.0, 1.0, math.inf, 8.0):
        ledger.set_cap(population, epsilon=epsilon, delta=DELTA, by="B. Steward", reason="moved")
    left = gaussian_mu(8.0, DELTA) ** 2 - 0.01
    assert gaussian_epsilon(math.sqrt(left), DELTA) > 7.97
    reserve(ledger, population, "most", StudyCost(rounds=1, round=gaussian_cost((0.997 * left) ** -0.5)))
    with pytest.raises(BudgetExceeded, match=r"epsilon would reach 8\.\d+ .* the cap is epsilon 8 at delta 0\.0001"):
        reserve(ledger, population, "more", StudyCost(rounds=1, round=gaussian_cost((0.02 * left) ** -0.5)))


def test_under_a_lowered_cap_answers_choose_which_reserved_rounds_still_run(tmp_path: Path) -> None:
    """Both studies were reserved before any answer, but the lower cap has room for a part of them only.

    Whoever saw a small loss could spend the rest of delta on releases that fail, whoever saw a large one on another
    Gaussian round. The part of delta for failures holds from then on.
    """
    ledger, population = new_ledger(tmp_path, epsilon=60.0)
    allowed = gaussian_mu(4.0, DELTA) ** 2
    steps = reserve(ledger, population, "steps", StudyCost(rounds=4, round=gaussian_cost((0.3 * allowed) ** -0.5)))
    failing = StudyCost(rounds=4, round=gaussian_cost(1e4, failure=0.2 * DELTA))
    fails = reserve(ledger, population, "fails", failing)
    ledger.charge(steps, 1)
    ledger.set_cap(population, epsilon=4.0, delta=DELTA, by="B. Steward", reason="board decision")
    ledger.charge(steps, 2)
    with pytest.raises(BudgetExceeded, match="differences between computed and ideal noise"):
        ledger.charge(fails, 1)
    ledger.charge(steps, 3)
    with pytest.raises(BudgetExceeded):
        ledger.charge(steps, 4)


def test_only_releases_with_a_gaussian_bound_are_reserved(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    bare = Cost(rdp=gaussian_cost(6.0).rdp)
    with pytest.raises(InvalidInput, match="Rényi curve alone"):
        reserve(ledger, population, "bare", StudyCost(rounds=1, round=bare))
    with pytest.raises(InvalidInput, match="Rényi curve alone"):
        ledger.release(population, name="bare", cost=bare, by="x", reason="y")


def test_a_study_on_random_batches_is_paid_in_parts_and_the_unused_parts_come_back(tmp_path: Path) -> None:
    study = Mechanism(
        max_grad_norm=1.0, noise_multiplier=5.0, sampling_rate=0.5, steps_per_round=10, rounds=16, target_delta=DELTA
    )
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population, plan=study)
    together = study_cost(study).together
    assert 1 < together < 16
    for number in range(1, together + 1):
        ledger.charge(proposal, number)
        assert ledger.spent(population).cost == study_cost(study).round
    ledger.charge(proposal, 2 * together)
    assert ledger.spent(population).cost == study_cost(study).round.times(2)
    ledger.release_reservation(proposal, by="B. Steward", reason="study ended")
    account = ledger.account(population)
    assert account.committed.cost == account.spent.cost
    ledger.verify()


def test_rounds_that_read_nothing_go_back_and_charged_ones_do_not(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    ledger.charge(proposal, 1)
    with pytest.raises(Refused, match="never refunded"):
        ledger.release_reservation(proposal, by="daemon", reason="late", round_number=1)
    ledger.release_reservation(proposal, by="daemon", reason="late", round_number=2)
    with pytest.raises(Refused, match="was freed"):
        ledger.charge(proposal, 2)
    ledger.charge(proposal, 3)
    ledger.release_reservation(proposal, by="B. Steward", reason="study ended")
    assert ledger.release_reservation(proposal, by="B. Steward", reason="study ended") is None
    account = ledger.account(population)
    assert account.committed.cost == account.spent.cost == STUDY.round.times(2)
    ledger.verify()


def test_only_an_approved_proposal_is_charged(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    with pytest.raises(Refused, match="approved first"):
        ledger.charge("0" * 64, 1)
    proposal = reserve(ledger, population)
    with pytest.raises(InvalidInput, match="from 1 to 10"):
        ledger.charge(proposal, 11)


def test_without_a_cap_nothing_is_reserved(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", IDENTITY)
    population = ledger.register_dataset("brca", 1, cases(1))
    with pytest.raises(Refused, match="no privacy cap"):
        reserve(ledger, population)


def test_renaming_a_dataset_resets_nothing(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    ledger.charge(proposal, 1)
    assert ledger.register_dataset("brca-new-name", 1, cases(3, 4)) == population
    assert ledger.register_dataset("brca", 2, cases(1, 2)) == population  # patient 3 withdrew: the spend stays
    assert ledger.spent(population).cost == STUDY.round
    assert ledger.account(population).patients == 4
    assert ledger.register_dataset("lusc", 1, cases(9)) != population


def test_a_version_keeps_its_patients(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    assert ledger.register_dataset("brca", 1, cases(3, 2, 1)) == population
    with pytest.raises(InvalidInput, match="raise the version"):
        ledger.register_dataset("brca", 1, cases(1, 2))
    with pytest.raises(InvalidInput, match="at least one patient"):
        ledger.register_dataset("empty", 1, [])


def test_populations_that_turn_out_to_overlap_share_the_sum_and_the_smaller_cap(tmp_path: Path) -> None:
    ledger, first = new_ledger(tmp_path)
    second = ledger.register_dataset("lusc", 1, cases(7, 8))
    ledger.set_cap(second, epsilon=5.0, delta=1e-5, by="B. Steward", reason="board decision")
    one = reserve(ledger, first, "one")
    two = reserve(ledger, second, "two")
    ledger.charge(one, 1)
    ledger.charge(two, 1)
    assert ledger.register_dataset("both", 1, cases(3, 7)) == first
    assert ledger.populations() == (first,)
    account = ledger.account(second)  # the old name leads to the joined line
    assert account.population == first
    assert account.cap is not None and (account.cap.epsilon, account.cap.delta) == (5.0, 1e-5)
    assert account.spent.cost == STUDY.round.times(2)
    ledger.charge(two, 2)
    ledger.verify()


def test_the_count_is_charged_once_under_its_name(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    count = {"name": "count of brca version 1", "by": "daemon", "reason": "published"}
    entry = ledger.release(population, cost=gaussian_cost(10.0), **count)
    assert ledger.release(population, cost=gaussian_cost(10.0), **count) == entry
    with pytest.raises(InvalidInput, match="another cost"):
        ledger.release(population, cost=gaussian_cost(5.0), **count)
    with pytest.raises(BudgetExceeded):
        ledger.release(population, name="loud", cost=gaussian_cost(0.1), by="daemon", reason="?")
    assert ledger.spent(population).cost == gaussian_cost(10.0)


# about (1, 1e-6)-DP: no worse than randomised response (Bun and Steinke 2016, proposition 3.3)
OLD_SURVEY = Cost(rdp=tuple(min(1.0, order / 2) for order in RDP_ORDERS), delta=1e-6)


def test_releases_by_hand_and_imports_are_acts_of_a_person(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    ledger.release_without_guarantee(population, name="plot", by="B. Steward", reason="for the board")
    ledger.import_spend(population, name="2019 survey", cost=OLD_SURVEY, by="B. Steward", reason="old")
    account = ledger.account(population)
    assert [p.name for p in account.unguaranteed] == ["plot"]
    assert account.spent.epsilon == pytest.approx(1.0, rel=0.5)
    with pytest.raises(InvalidInput, match="name of the person"):
        ledger.close_population(population, by=" ", reason="x")
    with pytest.raises(InvalidInput, match="expected a reason"):
        ledger.close_population(population, by="B. Steward", reason="")


def test_an_import_beyond_the_cap_ends_all_spending(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    ledger.import_spend(population, name="gap", cost=gaussian_cost(0.1), by="B. Steward", reason="after a restore")
    with pytest.raises(BudgetExceeded):
        ledger.charge(proposal, 1)
    assert ledger.account(population).committed.share > 1


def test_a_closed_population_stays_closed(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    ledger.close_population(population, by="B. Steward", reason="consent withdrawn")
    for attempt in (lambda: ledger.charge(proposal, 1), lambda: reserve(ledger, population, "late")):
        with pytest.raises(Refused, match="is closed"):
            attempt()


def test_a_lower_cap_stops_what_no_longer_fits_and_a_higher_one_lets_it_go_on(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    ledger.charge(proposal, 1)
    ledger.set_cap(population, epsilon=0.6, delta=DELTA, by="B. Steward", reason="lower")
    with pytest.raises(BudgetExceeded, match=r"round 2 does not fit .* the cap is epsilon 0\.6"):
        ledger.charge(proposal, 2)
    with pytest.raises(BudgetExceeded):
        reserve(ledger, population, "small", StudyCost(rounds=1, round=gaussian_cost(60.0)))
    ledger.charge(proposal, 1)  # what is charged stays charged
    ledger.set_cap(population, epsilon=4.0, delta=DELTA, by="B. Steward", reason="higher")
    ledger.charge(proposal, 2)
    ledger.verify()
    assert verify_folder(tmp_path).findings == ()


def test_no_privacy_fits_only_under_no_cap(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    naked = StudyCost(rounds=2, round=gaussian_cost(0))
    with pytest.raises(BudgetExceeded, match="leaves without noise"):
        reserve(ledger, population, "naked", naked)
    ledger.set_cap(population, epsilon=math.inf, delta=DELTA, by="B. Steward", reason="public data")
    ledger.charge(reserve(ledger, population, "naked", naked), 1)
    assert math.isinf(ledger.spent(population).epsilon)
    ledger.verify()


def test_a_mechanism_is_reserved_with_all_its_releases(tmp_path: Path) -> None:
    mechanism = Mechanism(
        max_grad_norm=1.0,
        noise_multiplier=4.0,
        sampling_rate=1.0,
        steps_per_round=2,
        rounds=4,
        target_delta=DELTA,
        losses=LossRelease(every_rounds=2, bound=2.0, noise_multiplier=20.0),
    )
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population, plan=mechanism)
    account = ledger.account(population)
    assert account.studies[0].mechanism is not None
    assert account.committed.cost.rdp == pytest.approx(mechanism.rdp(RDP_ORDERS), rel=1e-9)
    assert account.committed.epsilon >= mechanism.epsilon(DELTA) * (1 - 1e-6)  # never below the tight figure
    plain, with_losses = ledger.charge(proposal, 1), ledger.charge(proposal, 2)
    assert with_losses.body["cost"]["rdp"][5] > plain.body["cost"]["rdp"][5]


def test_two_processes_that_see_the_last_room_fill_it_once(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path, epsilon=2.5)
    stale = Ledger(ledger.path, IDENTITY)
    assert stale.preview(population, STUDY).fits
    reserve(ledger, population, "first")
    with pytest.raises(BudgetExceeded):
        reserve(stale, population, "second")


def test_an_entry_that_cannot_follow_is_tampering_even_when_signed(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    body = ledger.charge(proposal, 1).body
    for wrong in (body, body | {"round": 2, "cost": body["cost"] | {"delta": 0.5}}, body | {"proposal_hash": "x"}):
        ledger._chain.append("charge", wrong)
        with pytest.raises(Tampered, match="cannot follow"):
            Ledger(ledger.path, IDENTITY).verify()
        ledger.close()
        ledger.path.unlink()
        for extra in ("-wal", "-shm"):
            ledger.path.with_name(ledger.path.name + extra).unlink(missing_ok=True)
        ledger, population = new_ledger(tmp_path)
        proposal = reserve(ledger, population)
        ledger.charge(proposal, 1)


acts = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "charge", "free", "release", "import"]), st.integers(0, 3), st.integers(1, 4)
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts)
def test_spend_never_shrinks_and_never_passes_the_cap(tmp_path: Path, acts: list[tuple[str, int, int]]) -> None:
    folder = tmp_path / os.urandom(8).hex()
    ledger, population = new_ledger(folder, epsilon=4.0)
    plan = StudyCost(rounds=4, round=gaussian_cost(5.0), once=gaussian_cost(9.0))
    last = ledger.spent(population).cost
    imported = False
    for act, study, number in acts:
        imported = imported or act == "import"
        with contextlib.suppress(Refused):
            _act(ledger, population, act, study, number, plan)
        account = ledger.account(population)
        assert all(b >= a for a, b in zip(last.rdp, account.spent.cost.rdp, strict=True))
        assert imported or account.committed.share <= 1 + 1e-9
        last = account.spent.cost
    charged = [
        Cost(**{**e.body["cost"], "rdp": tuple(e.body["cost"]["rdp"])})
        for e in ledger.entries()
        if "cost" in e.body and e.kind != "reserve"
    ]
    assert sum(charged, ZERO).rdp == pytest.approx(last.rdp)
    ledger.verify()


def _act(ledger: Ledger, population: str, act: str, study: int, number: int, plan: StudyCost) -> None:
    proposal = f"{study:064d}"
    if act == "reserve":
        ledger.reserve(population, study=f"study {study}", proposal_hash=proposal, plan=plan)
    elif act == "charge":
        ledger.charge(proposal, number)
    elif act == "free":
        ledger.release_reservation(proposal, by="x", reason="y", round_number=number)
    elif act == "release":
        cost = gaussian_cost(20.0)
        ledger.release(population, name=f"release {study}", cost=cost, by="x", reason="y")
    else:
        ledger.import_spend(population, name="old", cost=gaussian_cost(50.0), by="x", reason="y")


def test_costs_of_other_populations_do_not_mix(tmp_path: Path) -> None:
    ledger, first = new_ledger(tmp_path)
    second = ledger.register_dataset("lusc", 1, cases(20))
    ledger.set_cap(second, epsilon=1.0, delta=DELTA, by="B. Steward", reason="x")
    reserve(ledger, first, "one")
    assert ledger.account(second).committed.cost == ZERO
    assert replace(STUDY, rounds=1).total == STUDY.round


def test_the_timeline_tells_the_budget_after_every_entry(tmp_path: Path) -> None:
    ledger, population = new_ledger(tmp_path)
    other = ledger.register_dataset("lusc", 1, cases(20))
    proposal = reserve(ledger, population)
    ledger.charge(proposal, 1)
    ledger.charge(proposal, 2)
    points = ledger.timeline(population)
    assert [p.event for p in points] == ["brca", "cap set", "study approved", "round 1", "round 2"]
    spent = [p.spent.epsilon for p in points]
    assert spent[:3] == [0, 0, 0] and 0 < spent[3] < spent[4]
    assert points[-1].committed.epsilon == pytest.approx(ledger.account(population).committed.epsilon)
    assert [p.event for p in ledger.timeline(other)] == ["lusc"]
