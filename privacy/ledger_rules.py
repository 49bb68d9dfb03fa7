"""The rules by which a ledger says no."""

from __future__ import annotations

import math

from privacy.errors import BudgetExceeded, InvalidInput, Refused
from privacy.ledger_costs import Cap, Cost, StudyCost, study_cost
from privacy.ledger_state import TOLERANCE, Population, Reservation, State
from privacy.mechanism import Mechanism


def cost_of(plan: Mechanism | StudyCost) -> StudyCost:
    """Return the worst case of a study, given its mechanism or its costs."""
    return study_cost(plan) if isinstance(plan, Mechanism) else plan


def check_fits(population: Population, cost: Cost, what: str) -> tuple[int, ...]:
    """Return the filter's orders when ``cost`` fits beside everything spent and promised.

    Raises:
        Refused: the population is closed or has no cap.
        BudgetExceeded: it does not fit.
    """
    check_open(population)
    cap_of(population)
    orders = population.filter_orders(cost)
    check_share(population, population.committed + cost, orders, what)
    return orders


def cap_of(population: Population) -> Cap:
    """Return the cap of a population; Refused when none is set."""
    if population.cap is None:
        raise Refused(f"no privacy cap is set for {population.name}: its owner has to set one first")
    return population.cap


def check_open(population: Population) -> None:
    """Raise Refused when the population is closed."""
    if population.closed:
        raise Refused(f"{population.name} is closed: nothing is computed on it any more")


def check_share(population: Population, total: Cost, orders: tuple[int, ...], what: str) -> None:
    """Raise BudgetExceeded when ``total`` would pass the cap at one of the filter's ``orders``."""
    cap = cap_of(population)
    share = population.share(total, orders)
    if math.isinf(share) and any(map(math.isinf, total.rdp)):
        raise BudgetExceeded(
            f"{what} does not fit under the cap of {population.name}: something leaves without noise, which costs an "
            f"infinite epsilon, and the cap is {cap.epsilon:g} at delta {cap.delta:g}: add noise"
        )
    if share > 1 + TOLERANCE:
        raise BudgetExceeded(
            f"{what} does not fit under the cap of {population.name}: expected at most epsilon {cap.epsilon:g} at "
            f"delta {cap.delta:g} (add/remove, RDP filter), got {share:.3g} times that budget: ask for less"
        )


def reserved(state: State, proposal_hash: str) -> tuple[Population, Reservation]:
    """Return the reservation of a proposal and its population; Refused when there is none."""
    found = state.reservation(proposal_hash)
    if found is None:
        raise Refused(f"no budget is reserved for the proposal {proposal_hash[:12]}: it has to be approved first")
    return found


def person(by: str) -> str:
    """Return who acts; InvalidInput when nobody is named."""
    if not by.strip():
        raise InvalidInput("expected the name of the person or part that acts, got nothing")
    return by


def reason_given(reason: str) -> str:
    """Return why; InvalidInput when no reason is given."""
    if not reason.strip():
        raise InvalidInput("expected a reason, got nothing: it is part of the record")
    return reason
