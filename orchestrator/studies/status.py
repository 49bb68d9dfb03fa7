"""What a study looks like from outside, and what ``tessera status`` shows of it.

:func:`study_status` is what the orchestrator tells every participant of a study; dashboard, reports and command line
show no more than that. ``tessera status`` at a hospital adds the hospital's own budget and requests.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from datasites.node.credentials.trust import own_context
from datasites.node.home import Home
from datasites.node.http import Params, SignedClient
from datasites.study.signing import dump, parse
from datasites.study.thread import OVER_FOR_GOOD, Word
from privacy.errors import Refused, TesseraError

if TYPE_CHECKING:  # what asks the orchestrator needs no database, no ledger and no numpy
    from datasites.review.budgets import Budget
    from datasites.study.proposal import Proposal
    from orchestrator.rounds.store import Store


def takes_part(proposal: Mapping[str, Any], name: str) -> bool:
    """Return whether somebody is a party of the study whose proposal is given as it was signed."""
    parties = (proposal["keyholder"], proposal["orchestrator"], *proposal.get("helpers", ()), *proposal["participants"])
    if _asker(proposal) == name:
        return True
    return any(party["name"] == name for party in parties)


def study_status(store: Store, study: str, caller: str) -> dict[str, Any]:
    """Return proposal, approvals, state and checkpoints of one study.

    Whatever grows with the rounds is read with one query a kind: a long study has megabytes of it. So call it beside
    the event loop.

    Raises:
        InvalidInput: no such study.
        Refused: ``caller`` takes no part in it.
    """
    from datasites.study.requests import REQUEST
    from orchestrator.rounds.thread import sealed_words

    proposal, state, reason = store.study(study)
    payload = proposal.payload
    require_party(store, study, caller)
    reader = "" if caller in (payload["orchestrator"]["name"], _asker(payload)) else caller
    checkpoints = {number: value for number, _, value in store.later(study, "checkpoint", after_round=0)}
    rounds = max(checkpoints, default=0)
    refusals = dict[str, dict[str, Any]]({str(number): {} for number in range(1, rounds + 2)})
    for number, author, value in store.later(study, "refusal", after_round=0):
        if number <= rounds + 1:
            refusals[str(number)][author] = value
    return {
        "study": study,
        "state": state,
        "reason": reason,
        "rounds": payload["rounds"],
        "rounds_completed": rounds,
        "proposal": dump(proposal),
        "request": next(iter(store.documents(study, 0, REQUEST).values()), None),
        "approvals": store.documents(study, 0, "approval"),
        "initial": store.document(study, 0, "initial"),
        "checkpoints": [checkpoints.get(number) for number in range(1, rounds + 1)],
        "updates_now": sorted(store.documents(study, rounds + 1, "update")),
        "refusals": refusals,
        "words": [word for _, word in sealed_words(store, study, reader)],
    }


def _asker(proposal: Mapping[str, Any]) -> str:
    return str((proposal.get("scientist") or {}).get("name", ""))


def asked_for(store: Store, study: str, name: str) -> bool:
    """Return whether a scientist of this name asked for a study."""
    return bool(name) and _asker(store.study(study)[0].payload) == name


def require_party(store: Store, study: str, caller: str) -> None:
    """Check that somebody takes part in a study.

    Raises:
        InvalidInput: no such study.
        Refused: ``caller`` takes no part in it.
    """
    if not takes_part(store.study(study)[0].payload, caller):
        raise Refused(f"{caller!r} takes no part in study {study!r}")


class Watched:
    """A study, or a page of the list, asked for again and again: what has not changed is not sent again.

    Args:
        path: such as ``/studies/STUDY``.
        params: the query.
    """

    def __init__(self, path: str, params: Params | None = None) -> None:
        self._path, self._params = path, params
        self._tag, self._known = "", None

    def look(self, client: SignedClient) -> Any:
        """Return what lies there now; it is not to be changed. Raises as ``SignedClient.get_json``."""
        found, tag = client.get_changed(self._path, self._tag, params=self._params)
        if found is not None:
            self._tag, self._known = tag, found
        return self._known


OVER = OVER_FOR_GOOD | {"paused", "failed"}
_ANSWER_SECONDS = 5.0
_PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class SiteLine:
    """One hospital in one study: whether it approved, its updates, and in how many finished rounds it was missing.

    ``here`` says whether its update of the round under way has arrived.
    """

    name: str
    approved: bool
    updates: int
    dropouts: int
    here: bool


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """One study as it is now; seconds and bytes are those of the finished rounds together.

    ``waiting`` says whom a running study waits for, and what keeps them; ``words`` is its thread, oldest first.
    """

    study: str
    state: str
    reason: str
    rounds: int
    rounds_completed: int
    seconds: float
    last_round_seconds: float | None
    uplink_bytes: int
    refusals: int
    sites: tuple[SiteLine, ...]
    waiting: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RequestLine:
    """One proposal that arrived at a datasite."""

    study: str
    state: str
    received: str
    rounds: int
    proposal_hash: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything ``tessera status`` shows; ``problem`` says why the orchestrator could not be asked."""

    role: str
    name: str
    problem: str
    studies: tuple[StudyLine, ...]
    budget: tuple[Budget, ...] = ()
    requests: tuple[RequestLine, ...] = ()

    @property
    def over(self) -> bool:
        """Whether every study has ended one way or another."""
        return bool(self.studies) and all(s.state in OVER for s in self.studies)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON; null stands for an infinite epsilon, and for a cap that is not set."""
        studies = [{**vars(study), "sites": [vars(site) for site in study.sites]} for study in self.studies]
        requests = [vars(request) for request in self.requests]
        lines = [_budget_line(budget) for budget in self.budget]
        return {**vars(self), "studies": studies, "requests": requests, "budget": lines, "over": self.over}


def _budget_line(budget: Budget) -> dict[str, Any]:
    from datasites.review.budgets import finite

    return {
        "population": budget.population,
        "datasets": budget.datasets,
        "epsilon_spent": finite(budget.spent),
        "epsilon_reserved": finite(budget.reserved),
        "epsilon_cap": finite(budget.cap) if budget.delta else None,
        "delta": budget.delta or None,
    }


def read_status(
    home: Home, *, answer_seconds: float = _ANSWER_SECONDS, pages: dict[str, Watched] | None = None
) -> Status:
    """Ask the orchestrator as this role, and read a datasite's own stores beside its running process.

    Whoever asks again and again gives the same ``pages``, empty at first.

    Raises:
        InvalidInput: not a home, or a file in it is malformed.
    """
    config = home.config()
    studies: tuple[StudyLine, ...] = ()
    problem = ""
    try:
        with client_of(home, answer_seconds=answer_seconds) as client:
            studies = tuple(line_of(summary) for summary in summaries_of(client, pages))
    except TesseraError as error:
        problem = str(error)
    local: dict[str, Any] = {}
    if config.role == "datasite":
        local = {"budget": _budgets(home.folder / "ledger.sqlite"), "requests": _requests(home.folder)}
    return Status(role=config.role, name=config.name, problem=problem, studies=studies, **local)


def summaries_of(client: SignedClient, pages: dict[str, Watched] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the orchestrator's summary of every study that the caller takes part in, page by page.

    ``pages`` keeps each page for the next time, by the name after which it begins.
    """
    last, pages = "", {} if pages is None else pages
    while True:
        page = pages.setdefault(last, Watched("/studies", {"after": last or None})).look(client)
        yield from page
        if len(page) < _PAGE:
            return
        last = str(page[-1]["study"])


def line_of(summary: Mapping[str, Any]) -> StudyLine:
    """Return one summary of ``GET /studies`` as a value."""
    fields = {name: summary[name] for name in ("study", "state", "reason", "rounds", "rounds_completed", "seconds")}
    more = {name: summary[name] for name in ("last_round_seconds", "uplink_bytes", "refusals", "waiting")}
    sites = tuple(SiteLine(**site) for site in summary["sites"])
    return StudyLine(**fields, **more, sites=sites, words=tuple(summary["words"]))


def client_of(home: Home, *, answer_seconds: float = _ANSWER_SECONDS) -> SignedClient:
    """Return a client that asks the orchestrator in this role's name."""
    return SignedClient(
        home.identity(),
        orchestrator_url(home),
        home.roster().orchestrator.public_key,
        timeout_seconds=answer_seconds,
        retry_seconds=answer_seconds,
        ca=home.config().ca,
        proxy=home.config().proxy if home.config().role != "orchestrator" else "",
        trust=trust_of(home),
    )


def orchestrator_url(home: Home) -> str:
    """Return where this role's orchestrator is: from its settings.

    The orchestrator's own commands ask where it listens; from another machine or container, where it is reached.
    """
    config = home.config()
    if config.role != "orchestrator":
        return config.orchestrator_url
    if (home.folder / "address.json").exists():
        announced = json.loads((home.folder / "address.json").read_bytes())
        return str(announced["listens"] if _somebody_listens(announced["listens"]) else announced["url"])
    return config.public_url or f"http://{config.host}:{config.port}"


def _somebody_listens(url: str) -> bool:
    place = urlsplit(url)
    try:
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=1.0):
            return True
    except OSError:
        return False


def trust_of(home: Home) -> ssl.SSLContext | None:
    """Return how the orchestrator knows its own server: by its own certificate, whatever names stand in it."""
    config = home.config()
    if config.role != "orchestrator" or not config.tls_certificate:
        return None
    return own_context(Path(config.tls_certificate))


def study_line(status: Mapping[str, Any]) -> StudyLine:
    """Return one line of an answer of ``GET /studies/STUDY``."""
    checkpoints = [c for c in status["checkpoints"] if c]
    participants = [p["name"] for p in status["proposal"]["payload"]["participants"]]
    arrived = set(status.get("updates_now", ()))
    return StudyLine(
        study=status["study"],
        state=status["state"],
        reason=status["reason"],
        rounds=status["rounds"],
        rounds_completed=status["rounds_completed"],
        seconds=round(sum(c["seconds"] for c in checkpoints), 3),
        last_round_seconds=checkpoints[-1]["seconds"] if checkpoints else None,
        uplink_bytes=sum(c["uplink_bytes"] for c in checkpoints),
        refusals=sum(len(parties) for parties in status["refusals"].values()),
        sites=tuple(_site(name, status["approvals"], checkpoints, arrived) for name in participants),
        waiting=str(status.get("waiting", "")),
        words=tuple(f"{w.at[:16].replace('T', ' ')} {w.sentence}" for w in said(status)),
    )


def proposal_of(status: Mapping[str, Any]) -> Proposal:
    """Return the proposal in an answer of ``GET /studies/...``."""
    from datasites.study.proposal import Proposal

    return parse(Proposal, status["proposal"]["payload"])


def said(status: Mapping[str, Any]) -> tuple[Word, ...]:
    """Return the thread of an answer of ``GET /studies/...``, oldest first."""
    return tuple(parse(Word, word["payload"]) for word in status.get("words", ()))


def _site(name: str, approvals: Mapping[str, Any], checkpoints: Sequence[Mapping[str, Any]], now: set[str]) -> SiteLine:
    updates = sum(name in c["sites"] for c in checkpoints)
    return SiteLine(
        name=name,
        approved=name in approvals,
        updates=updates,
        dropouts=len(checkpoints) - updates,
        here=name in now,
    )


def _budgets(path: Path) -> tuple[Budget, ...]:
    from datasites.review.budgets import budgets
    from privacy.ledger.ledger import Ledger

    if not path.exists():
        return ()
    ledger = Ledger(path, None)
    try:
        return budgets(ledger)
    finally:
        ledger.close()


def _requests(folder: Path) -> tuple[RequestLine, ...]:
    from datasites.review.records import ReviewRecords

    if not (folder / "approvals.sqlite").exists():
        return ()
    records = ReviewRecords(folder / "approvals.sqlite", read_only=True)
    try:
        found = records.requests()
    finally:
        records.close()
    return tuple(
        RequestLine(
            study=r.proposal.study,
            state=r.state,
            received=r.received,
            rounds=r.proposal.rounds,
            proposal_hash=r.proposal_hash,
        )
        for r in found
    )
