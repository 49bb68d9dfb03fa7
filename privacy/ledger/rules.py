"""The rules by which a ledger refuses a request before anything is written, each with its reason."""

from __future__ import annotations

import math
from dataclasses import replace

from privacy.dp.mechanism import Mechanism
from privacy.errors import BudgetExceeded, InvalidInput, Refused
from privacy.ledger.costs import ZERO, Cost, StudyCost, study_cost
from privacy.ledger.filter import FAILURE_SHARE, TOLERANCE, Cap
from privacy.ledger.state import Population, Reservation, State
from privacy.sentences import say


def cost_of(plan: Mechanism | StudyCost) -> StudyCost:
    """Return the worst case of a study, given its mechanism or its costs."""
    return study_cost(plan) if isinstance(plan, Mechanism) else plan


def check_fits(population: Population, cost: Cost, what: str) -> None:
    """Check that ``cost`` fits beside everything spent and promised.

    Raises:
        Refused: the population is closed or has no cap.
        BudgetExceeded: it does not fit.
    """
    check_open(population)
    beside = population.committed
    check_share(population, beside + cost, what, adaptive=population.answered, beside=beside)


def cap_of(population: Population) -> Cap:
    """Return the cap of a population; Refused when none is set."""
    if population.cap is None:
        raise Refused(say("no privacy cap is set for {name}: its owner has to set one first", name=population.name))
    return population.cap


def check_open(population: Population) -> None:
    """Raise Refused when the population is closed."""
    if population.closed:
        raise Refused(say("{name} is closed: nothing is computed on it any more", name=population.name))


def check_share(population: Population, total: Cost, what: str, *, adaptive: bool, beside: Cost | None = None) -> None:
    """Raise BudgetExceeded, with the reason and what fits ``beside`` the rest, when ``total`` would pass the cap."""
    cap = cap_of(population)
    if population.share(total, adaptive=adaptive) > 1 + TOLERANCE:
        raise BudgetExceeded(
            say(
                "{what} does not fit under the cap of {name}: {why}",
                what=what,
                name=population.name,
                why=why(cap, total, adaptive, population.fixed, beside),
            )
        )


def chosen_by_answers(population: Population) -> bool:
    """Return whether answers choose what is charged next.

    They do where something was reserved after one, and where a lower cap leaves room for a part only of what was
    reserved before: whoever picks the rounds that still run may pick them by what was seen. What was freed since counts
    as well, for it may have been freed by what was seen.
    """
    reserved_before = (population.fixed, population.committed)
    return population.adaptive or any(population.share(c, adaptive=False) > 1 + TOLERANCE for c in reserved_before)


def why(cap: Cap, total: Cost, adaptive: bool, fixed: Cost = ZERO, beside: Cost | None = None) -> str:
    """Return why ``total`` does not fit under ``cap``, with what would help."""
    stated = f"the cap is epsilon {cap.epsilon:g} at delta {cap.delta:g}"
    if not total.bounded:
        return f"something leaves without noise, which costs an infinite epsilon, and {stated}: add noise"
    outside = cap.outside(total)
    if outside >= cap.delta:
        return f"earlier entries alone take {outside:.3g} of delta, and {stated}: it needs a cap of a larger delta"
    if adaptive and cap.failures(total, fixed) > 1 + TOLERANCE:
        return (
            f"differences between computed and ideal noise would take {total.failure:.3g} of delta, a part of "
            f"{FAILURE_SHARE:g} is kept for them, and {stated}: use more noise or fewer rounds, or a larger delta"
        )
    allowance = cap.allowance(total, adaptive=adaptive, fixed=fixed)
    reached = replace(total, delta=0.0, failure=0.0, total_variation=0.0).epsilon(allowance)
    most = cap.most(beside, adaptive=adaptive, fixed=fixed) if beside is not None else 0.0
    less = (
        f"ask for less (full batches of epsilon at most {math.floor(1000 * most) / 1000:g} fit)"
        if most
        else "ask for less"
    )
    return (
        f"with everything spent and promised, epsilon would reach {reached:.4g} (add/remove, Gaussian filter), and "
        f"{stated}: {less}, free reservations, or raise the cap"
    )


def reserved(state: State, proposal_hash: str) -> tuple[Population, Reservation]:
    """Return the reservation of a proposal and its population; Refused when there is none."""
    found = state.reservation(proposal_hash)
    if found is None:
        raise Refused(
            say(
                "no budget is reserved for the proposal {proposal_hash}: it has to be approved first",
                proposal_hash=proposal_hash[:12],
            )
        )
    return found


def person(by: str) -> str:
    """Return who acts; InvalidInput when nobody is named."""
    if not by.strip():
        raise InvalidInput(say("expected the name of the person or part that acts, got nothing"))
    return by


def reason_given(reason: str) -> str:
    """Return why; InvalidInput when no reason is given."""
    if not reason.strip():
        raise InvalidInput(say("expected a reason, got nothing: it is part of the record"))
    return reason


def chainable(cost: Cost, what: str) -> Cost:
    """Return a cost that the filter can add up whatever was seen before; InvalidInput for a bare Rényi curve."""
    if any(cost.others):
        raise InvalidInput(
            say(
                "expected {what} with a Gaussian bound (gaussian_cost, or a mechanism), got "
                "a Rényi curve alone: a spend from elsewhere is imported",
                what=what,
            )
        )
    return cost


def same_cost(known: Cost | None, cost: Cost) -> bool:
    """Return whether a release was charged with this cost; older code wrote its Rényi divergence only."""
    return known is not None and (known.rdp, known.delta) == (cost.rdp, cost.delta)
