"""What studies cost here: the ledger's figures joined with what people decided.

Portal, reports, metrics and ``tessera status`` all show these values. Every epsilon holds at the delta beside it, for
adding or removing one patient. Infinity means that there is no bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import PlainSerializer

from datasites.review.records import State
from datasites.study.proposal import Proposal
from datasites.study.second_figures import SecondFigure, second_figures
from privacy.ledger.ledger import Account, Ledger, StudyAccount
from privacy.ledger.views import Room
from privacy.sentences import say

ACCOUNTANT = say("Gaussian filter across studies; add or remove one patient")
StudyState = Literal["waiting", "running", "finished", "unused", "stopped"]


def finite(value: float) -> float | None:
    """Return ``value``, or None where it is infinite, which JSON cannot carry."""
    return value if math.isfinite(value) else None


EpsilonValue = Annotated[float, PlainSerializer(finite, return_type=float | None)]
"""An epsilon; in JSON null stands for infinity."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The privacy budget of one patient population and the datasets that share it.

    ``reserved`` is what is spent when every approved study runs to its end. ``cap`` and ``delta`` are 0 while the owner
    has set no cap; then nothing may be spent.
    """

    population: str
    datasets: tuple[str, ...]
    cap: EpsilonValue
    delta: float
    spent: EpsilonValue
    reserved: EpsilonValue


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """What is reserved for one study: rounds that were neither charged nor released, and their epsilon alone."""

    study: str
    proposal_hash: str
    rounds: int
    epsilon: EpsilonValue


@dataclass(frozen=True, kw_only=True)
class Returned:
    """A part of a budget that came back: which rounds of which study, who or what released them, and why."""

    at: str
    study: str
    rounds: tuple[int, ...]
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """What people gave out themselves: no epsilon covers it."""

    at: str
    name: str
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class BudgetDetails:
    """One population's budget in detail: what still fits, what is reserved, what came back."""

    population: str
    closed: bool
    room: tuple[Room, ...]
    reserved: tuple[Reserved, ...]
    returned: tuple[Returned, ...]
    by_hand: tuple[ByHand, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CostPreview:
    """What a study would cost at the owner's delta: epsilon before, the worst case of the study, and after.

    ``after`` comes from the accountant and is not the sum of the other two. ``fits`` says whether the ledger would
    reserve it. ``accountant`` says how epsilon is computed, adjacency included. Of a study that is ``reserved``
    already, ``before`` is what is spent now and ``after`` what all approved studies may spend, this one included.
    """

    population: str
    delta: float
    cap: EpsilonValue
    before: EpsilonValue
    cost: EpsilonValue
    after: EpsilonValue
    accountant: str
    fits: bool
    reserved: bool = False
    second_figures: tuple[SecondFigure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """A study that runs or ran here, with the rounds that were charged.

    ``failed`` are rounds whose worker failed and that nobody has looked at: until then no further round is charged.
    """

    study: str
    proposal_hash: str
    state: StudyState
    rounds_done: int
    rounds: int
    epsilon_spent: EpsilonValue
    delta: float
    failed: tuple[int, ...] = ()


def budgets(ledger: Ledger) -> tuple[Budget, ...]:
    """Return one budget per patient population."""
    return tuple(_budget(ledger.account(population)) for population in ledger.populations())


def details(ledger: Ledger, population: str) -> BudgetDetails:
    """Return what still fits, what is reserved and what came back, of one population."""
    account = ledger.account(population)
    hashes = {study.proposal_hash for study in account.studies}
    freed = (entry for entry in ledger.entries(kind="free") if entry.body["proposal_hash"] in hashes)
    return BudgetDetails(
        population=account.population,
        closed=account.closed,
        room=ledger.room(population),
        reserved=tuple(
            Reserved(
                study=study.study,
                proposal_hash=study.proposal_hash,
                rounds=study.rounds - len(study.charged_rounds) - len(study.freed_rounds),
                epsilon=study.promised.epsilon,
            )
            for study in account.studies
            if study.rounds > len(study.charged_rounds) + len(study.freed_rounds)
        ),
        returned=tuple(
            Returned(
                at=entry.at,
                study=entry.body["study"],
                rounds=tuple(entry.body["rounds"]),
                by=entry.body["by"],
                reason=entry.body["reason"],
            )
            for entry in freed
        ),
        by_hand=tuple(ByHand(at=p.at, name=p.name, by=p.by, reason=p.reason) for p in account.unguaranteed),
    )


def preview(ledger: Ledger, population: str, proposal: Proposal, site: str | None = None) -> CostPreview:
    """Return what a study would cost, or may still cost where it is reserved already.

    ``site`` adds the figures beside the charge (:mod:`datasites.study.second_figures`) for that hospital.
    """
    account = ledger.account(population)
    if account.cap is not None and any(s.proposal_hash == proposal.proposal_hash for s in account.studies):
        cap, before, after, fits, reserved = account.cap, account.spent, account.committed, True, True
    else:
        found = ledger.preview(population, proposal.charged)
        cap, before, after, fits, reserved = found.cap, found.before, found.after, found.fits, False
    return CostPreview(
        population=population,
        delta=cap.delta,
        cap=cap.epsilon,
        before=before.epsilon,
        cost=proposal.charged.epsilon(cap.delta),
        after=after.epsilon,
        accountant=ACCOUNTANT,
        fits=fits,
        reserved=reserved,
        second_figures=second_figures(proposal, site, cap.delta) if site is not None else (),
    )


def study_state(study: StudyAccount, decided: State | None) -> StudyState:
    """Return where a study stands; ``decided`` is the state of its request, None where that is not here any more.

    "unused" means that every round was given back before a record was read.
    """
    if decided not in (None, "approved"):
        return "stopped"
    if len(study.charged_rounds) + len(study.freed_rounds) >= study.rounds:
        return "finished" if study.charged_rounds else "unused"
    return "running" if study.charged_rounds else "waiting"


def study_status(account: Account, study: StudyAccount, decided: State | None) -> StudyStatus:
    """Return one study of a population."""
    return StudyStatus(
        study=study.study,
        proposal_hash=study.proposal_hash,
        state=study_state(study, decided),
        rounds_done=len(study.charged_rounds),
        rounds=study.rounds,
        epsilon_spent=study.spent.epsilon,
        delta=account.cap.delta if account.cap else 0.0,
    )


def _budget(account: Account) -> Budget:
    return Budget(
        population=account.population,
        datasets=tuple(say("{name} version {version}", name=n, version=v) for n, v in account.datasets),
        cap=account.cap.epsilon if account.cap else 0.0,
        delta=account.cap.delta if account.cap else 0.0,
        spent=account.spent.epsilon,
        reserved=account.committed.epsilon,
    )
