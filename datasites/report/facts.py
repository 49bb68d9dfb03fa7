"""The privacy report as values: what HTML, PDF and JSON all say.

No field holds a patient, a case hash or an exact count: patient numbers are the noised counts that were released.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from datasites.study.signing import Message

Tone = Literal["good", "watch", "bad"]


@dataclass(frozen=True, kw_only=True)
class Epsilon(Message):
    """One privacy figure with everything it means nothing without; ``value`` null: no bound at all."""

    value: float | None
    delta: float
    adjacency: str
    accountant: str
    against: str


@dataclass(frozen=True, kw_only=True)
class Figure(Message):
    """One number of the summary, as people read it, and how to take it."""

    label: str
    value: str
    note: str
    tone: Tone


@dataclass(frozen=True, kw_only=True)
class Summary(Message):
    """The first page: what an ethics board has to know; ``left`` says what left the hospital, why and to whom."""

    verdict: str
    tone: Tone
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]
    limits: tuple[str, ...]
    left: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TimelinePoint(Message):
    """A population's budget after one entry of the ledger."""

    at: str
    event: str
    study: str | None
    epsilon_spent: float | None
    epsilon_promised_and_spent: float | None
    epsilon_cap: float | None
    share_spent: float | None
    share_promised_and_spent: float | None


@dataclass(frozen=True, kw_only=True)
class CapChange(Message):
    """An act on a cap, a part of the budget that came back, or the closing of a population."""

    at: str
    what: str
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DatasetLine(Message):
    """One dataset version; ``patients`` is the noised count that was released, null when none was."""

    name: str
    version: int
    patients: int | None


@dataclass(frozen=True, kw_only=True)
class PopulationReport(Message):
    """One line of budget: the datasets that share patients, and what they may and did lose."""

    name: str
    datasets: tuple[DatasetLine, ...]
    cap: Epsilon | None
    spent: Epsilon
    promised_and_spent: Epsilon
    share_spent: float | None
    share_promised_and_spent: float | None
    closed: bool
    acts: tuple[CapChange, ...]
    timeline: tuple[TimelinePoint, ...]


@dataclass(frozen=True, kw_only=True)
class Person(Message):
    """Somebody who decided about a study here."""

    name: str
    role: str
    decision: str
    reason: str
    at: str


@dataclass(frozen=True, kw_only=True)
class PartyLine(Message):
    """An institution in a study and the fingerprint of its key."""

    role: str
    name: str
    institution: str
    modalities: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Fact(Message):
    """One labelled value."""

    label: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Date(Message):
    """One labelled time."""

    label: str
    at: str


@dataclass(frozen=True, kw_only=True)
class RoundLine(Message):
    """What happened in one round here; ``at`` is when it was charged."""

    round: int
    outcome: str
    bytes_sent: int | None
    releases: tuple[str, ...]
    spent: Epsilon
    at: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyReport(Message):
    """One study that holds or held a reservation here.

    ``watermarks`` are the warnings that void the claim. ``given_back`` says what became of the part of the reservation
    that was not spent, empty while the study may still spend it. ``filing`` says who answers for the study, ``thread``
    what its two sides said.
    """

    study: str
    state: str
    population: str
    proposal_hash: str
    plan_hash: str | None
    purpose: str | None
    legal_basis: str | None
    custody: str | None
    code: str
    code_hash: str | None
    environment: tuple[Fact, ...]
    people: tuple[Person, ...]
    parties: tuple[PartyLine, ...]
    mechanism: tuple[Fact, ...]
    rounds_planned: int
    rounds_charged: int
    rounds_freed: int
    spent: Epsilon
    worst_case: Epsilon
    spent_in_ledger: Epsilon
    two_hospitals: Epsilon | None
    without_colluders: Epsilon | None
    rounds: tuple[RoundLine, ...]
    exposure: tuple[Exposure, ...]
    warnings: tuple[str, ...]
    watermarks: tuple[str, ...] = ()
    foreign_code: bool = False
    dates: tuple[Date, ...] = ()
    given_back: str = ""
    readers_of_sums: tuple[SecondEpsilon, ...] = ()
    filing: tuple[Fact, ...] = ()
    thread: tuple[Fact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SecondEpsilon(Message):
    """An epsilon beside the charged one; it says against whom it holds."""

    label: str
    epsilon: Epsilon


@dataclass(frozen=True, kw_only=True)
class Exposure(Message):
    """Who, with whom, learns what in a study."""

    who: str
    learns: str
    bound: str


@dataclass(frozen=True, kw_only=True)
class ReleaseLine(Message):
    """Something other than updates that left the hospital; ``epsilon`` null: see ``guarantee``."""

    at: str
    population: str
    name: str
    study: str | None
    by: str
    reason: str
    epsilon: Epsilon | None
    guarantee: str


@dataclass(frozen=True, kw_only=True)
class DeniedRequest(Message):
    """A request that was turned down, or rounds that were not answered.

    The rounds refused because of a decision are lines of their own, and no further requests.
    """

    at: str
    study: str
    what: str
    by: str
    reason: str
    kind: Literal["request", "rounds"] = "request"


@dataclass(frozen=True, kw_only=True)
class EmpiricalAudit(Message):
    """A measured lower bound beside the claim: it can show a mistake, it never proves the claim."""

    at: str
    study: str
    data: str
    canaries: int
    confidence: float
    lower_bound: float
    claimed: Epsilon
    flagged: bool
    paths: tuple[PathAudit, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PathAudit(Message):
    """The whole path of a round under one noise, tested against the claimed trade-off curve and noise."""

    noise: str
    canaries: int
    tests: int
    observed: float
    allowed: float
    flagged: bool


@dataclass(frozen=True, kw_only=True)
class ChainLine(Message):
    """One signed chain, its newest entry, and what checking it just now said."""

    file: str
    entries: int
    head: str
    signature: str
    public_key: str
    last_entry: str
    holds: bool
    problems: tuple[str, ...]
    countersigned_heads: int


@dataclass(frozen=True, kw_only=True)
class Term(Message):
    """A word of this report in plain language."""

    term: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Report(Message):
    """The privacy budget audit report of one datasite.

    ``number`` names the entries of journal and ledger that it covers, so two reports with one number tell the same;
    ``since`` is the time of the first of them, and ``made`` ends the period. The sentences are in ``language``.
    """

    format: Literal["tessera-privacy-report/1"]
    site: str
    institution: str
    public_key: str
    fingerprint: str
    made: str
    watermarks: tuple[str, ...]
    summary: Summary
    populations: tuple[PopulationReport, ...]
    studies: tuple[StudyReport, ...]
    releases: tuple[ReleaseLine, ...]
    denied: tuple[DeniedRequest, ...]
    audits: tuple[EmpiricalAudit, ...]
    chains: tuple[ChainLine, ...]
    how_to_verify: tuple[str, ...]
    terms: tuple[Term, ...]
    language: str = "en"
    number: str = ""
    since: str = ""
    version: str = ""
    software: tuple[Fact, ...] = ()
    policy_hash: str = ""


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as plain JSON."""
    plain: dict[str, Any] = dataclasses.asdict(report)
    return plain
