"""What this installation will mean for the studies that run and for every party, before it replaces the one that runs.

It is called from the new installation, on the folder of a role that may still run on the old one; nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from datasites.node.home import Home
from datasites.node.plugins import DISTRIBUTION
from datasites.review.environment import compare, current_environment, data_hash
from datasites.review.records import ReviewRecords
from datasites.study.proposal import Environment, Party, Proposal
from datasites.study.protocol import PROPOSALS, PROTOCOL, check_protocol, understands
from datasites.study.signing import Signed, parse
from datasites.study.thread import OVER_FOR_GOOD
from orchestrator.rounds.peers import FILE, Software, read_peers
from orchestrator.rounds.tables import SCHEMA
from orchestrator.studies.status import client_of
from privacy.errors import OtherProtocol, TesseraError
from privacy.sentences import joined
from privacy.storage import read_sqlite

Fate = Literal["goes on", "needs re-approval", "needs an upgrade", "refused", "unknown"]
_WORST: tuple[Fate, ...] = ("refused", "needs an upgrade", "needs re-approval", "unknown", "goes on")
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What will happen to one party, or to one study at it (``study`` empty: to the party itself), and why."""

    party: str
    study: str
    fate: Fate
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return it as plain JSON."""
        return dict(vars(self))


def forecasts(home: Home, *, environment: Environment | None = None) -> tuple[Forecast, ...]:
    """Return what happens to every party that this role knows of, and to its running studies, under this installation.

    Args:
        home: of a hospital, a keyholder, a helper or an orchestrator.
        environment: the software that will run; this process's if left out.

    Raises:
        InvalidInput: the folder is no role's.
    """
    here = environment or current_environment()
    config, roster = home.config(), home.roster()
    if config.role != "orchestrator":
        own = _own_protocol(home)
        return (own, *_studies_of_hospital(home, config.name, here)) if config.role == "datasite" else (own,)
    peers = read_peers(home.folder / FILE)
    running = [parse(Proposal, dict(signed.payload)) for signed in _running(home)]
    found: list[Forecast] = []
    for party in roster.everybody:
        if party.public_key == roster.orchestrator.public_key:
            reason = f"it will run Tessera {here.release} and speak protocol {PROTOCOL}"
            found.append(Forecast(party=party.name, study="", fate="goes on", reason=reason))
            continue
        found.append(_peer(party, peers.get(party.name), here))
        mine = [proposal for proposal in running if any(p.name == party.name for p in proposal.participants)]
        found += [_study(party.name, proposal, here) for proposal in mine]
    return tuple(found)


def worst(found: Sequence[Forecast]) -> Fate:
    """Return the worst of several fates."""
    return next((fate for fate in _WORST if any(one.fate == fate for one in found)), "goes on")


def _peer(party: Party, software: Software | None, here: Environment) -> Forecast:
    if software is None:
        reason = "the orchestrator has not heard from it since it notes what its peers run"
        return Forecast(party=party.name, study="", fate="unknown", reason=reason)
    runs = software.name
    try:
        check_protocol(software.protocol, party.name)
    except OtherProtocol as error:
        return Forecast(party=party.name, study="", fate="refused", reason=str(error))
    if 0 < software.proposals < PROPOSALS:
        reason = (
            f"it runs {runs}, which understands proposals up to version {software.proposals}, and new ones are of "
            f"version {PROPOSALS}: upgrade Tessera at {party.name} before the next study; studies that run go on"
        )
        return Forecast(party=party.name, study="", fate="needs an upgrade", reason=reason)
    same = " with the same software where it touches data" if software.data == data_hash(here) else ""
    reason = f"it runs {runs}{same} and speaks protocol {software.protocol}, which is understood"
    return Forecast(party=party.name, study="", fate="goes on", reason=reason)


def _study(party: str, proposal: Proposal, here: Environment) -> Forecast:
    """Say what becomes of a running study at a hospital once that hospital runs this installation."""
    approved = proposal.environment
    compared = compare(approved, here)
    if compared.refused:
        apart = bool(approved.release) and not understands(approved.release, here.release)
        advice = f"`tessera propose NEW --from {proposal.study}` proposes the rounds that are left"
        return Forecast(
            party=party,
            study=proposal.study,
            fate="refused" if apart else "needs re-approval",
            reason=f"{joined(compared.refused[:3])}; finish the study first, or {advice}",
        )
    reason = joined(compared.allowed[:3]) if compared.allowed else "the software is exactly the approved one"
    return Forecast(party=party, study=proposal.study, fate="goes on", reason=str(reason))


def _studies_of_hospital(home: Home, name: str, here: Environment) -> Iterable[Forecast]:
    path = home.folder / "approvals.sqlite"
    if not path.exists():
        return
    records = ReviewRecords(path, read_only=True)
    try:
        requests = records.requests()
    finally:
        records.close()
    for request in requests:
        if request.state == "approved":
            yield _study(name, request.proposal, here)


def _own_protocol(home: Home) -> Forecast:
    """Ask the orchestrator as this installation will, and see whether they understand one another."""
    name = home.config().name
    try:
        with client_of(home, answer_seconds=_ANSWER_SECONDS) as client:
            client.get_json("/heads")
    except OtherProtocol as error:
        return Forecast(party=name, study="", fate="refused", reason=str(error))
    except TesseraError as error:
        reason = f"the orchestrator could not be asked for its protocol: {error}"
        return Forecast(party=name, study="", fate="unknown", reason=reason)
    reason = f"the orchestrator understands protocol {PROTOCOL} of Tessera {version(DISTRIBUTION)}"
    return Forecast(party=name, study="", fate="goes on", reason=reason)


def _running(home: Home) -> list[Signed]:
    """Return the signed proposals of studies that are not over, and never change the store."""
    rows: list[Any]
    query = "SELECT study, proposal, state FROM studies ORDER BY study"
    named = os.environ.get("DATABASE_URL_FILE")
    url = Path(named).read_text().strip() if named else os.environ.get("DATABASE_URL")
    if url:
        engine = sa.create_engine(url)
        try:
            with engine.connect() as connection:
                rows = [tuple(row) for row in connection.execute(sa.text(query))]
        finally:
            engine.dispose()
    else:
        path = Path(os.environ.get("STORE_FOLDER") or home.folder) / "store" / "orchestrator.sqlite"
        if not path.exists():
            return []
        database = read_sqlite(path, SCHEMA)
        try:
            rows = database.execute(query).fetchall()
        finally:
            database.close()
    return [parse(Signed, proposal.encode()) for _, proposal, state in rows if state not in OVER_FOR_GOOD]
