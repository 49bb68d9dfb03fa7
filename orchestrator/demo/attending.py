"""Beside a composed consortium: its study is proposed once, people are told what to do, and the report is written.

A study that is there already is followed further, so that the same command serves a first start and every later one.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from datasites.node.home import Home
from datasites.review.accounts import AccountStore
from datasites.study.thread import OVER_FOR_GOOD
from orchestrator.dashboard.access import new_link
from orchestrator.rounds.checkpoints import NEXT_ROUND
from orchestrator.studies.run import Progress
from orchestrator.studies.status import Watched, client_of, summaries_of
from orchestrator.studies.words import resume
from privacy.errors import TesseraError

_log = logging.getLogger(__name__)
_READY_SECONDS = 300.0
_POLL_SECONDS = 1.0
_ROUNDS_OF_A_START = 2
"""So many rounds a start of everybody may cost: the one under way, and the next if its key was made ahead."""


def wait_until_served(home: Home, *, seconds: float = _READY_SECONDS) -> None:
    """Wait until the orchestrator of this folder answers.

    Raises:
        TesseraError: it does not in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with client_of(home, answer_seconds=5.0) as client:
                client.get_json("/healthz")
            return
        except (TesseraError, OSError) as error:
            if time.monotonic() > deadline:
                raise TesseraError(f"the orchestrator did not answer in {seconds:g} s; see its log") from error
            time.sleep(_POLL_SECONDS)


def is_proposed(home: Home, study: str) -> bool:
    """Return whether the study is known already."""
    with client_of(home) as client:
        return any(known["study"] == study for known in summaries_of(client))


def dashboard_link(home: Home, base: str) -> str:
    """Return a one-time link to the dashboard, at the address where people reach it."""
    link = urlsplit(new_link(home))
    place = urlsplit(base) if base else link
    return urlunsplit((place.scheme, place.netloc, link.path, link.query, ""))


def portals_of(home: Home, study: str, addresses: str) -> dict[str, str]:
    """Return where people reach the portals of a study's hospitals.

    Args:
        home: the orchestrator's.
        study: that was proposed.
        addresses: ``hospital-a=http://127.0.0.1:8101,...``; those of hospitals without a part in it are left out.
    """
    pairs = (entry.partition("=") for entry in addresses.split(",") if entry)
    known = {name.strip(): url.strip() for name, _, url in pairs}
    with client_of(home) as client:
        proposal = client.get_json(f"/studies/{study}")["proposal"]["payload"]
    names = [str(hospital["name"]) for hospital in proposal["participants"]]
    return {name: known.get(name, "its portal") for name in names}


def guide(study: str, portals: Mapping[str, str], dashboard: str, results: Path) -> list[str]:
    """Return what people do next, one line each.

    Args:
        study: that waits.
        portals: address by hospital.
        dashboard: a one-time link.
        results: the folder that gets the report.
    """
    lines = [f"The study {study} waits for {len(portals)} hospitals. At each of them a person decides:"]
    for name, url in portals.items():
        lines.append(f"  {name}: {url}, with the one-time link that `docker compose logs {name}` shows")
    return [
        *lines,
        "Make an account there, open the request, try it on the mock data, and approve it with your password.",
        "Once everybody has signed, the study starts by itself.",
        f"Dashboard, for one browser and half an hour: {dashboard}",
        f"Its certificate is the consortium's own. The report will be in {results}.",
    ]


def follow(
    home: Home, study: str, progress: Progress, *, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Wait until a study is over, through pauses and restarts of the orchestrator; return its last status.

    Whoever starts the whole consortium anew in the middle of a round wants the study to go on: it is resumed where such
    a start cost a round (docs/decisions/0025-cleared-after-a-start.md). Every other pause waits for people.

    Raises:
        TesseraError: it ended without a model.
    """
    told, resumable, watched = "", _ROUNDS_OF_A_START, Watched(f"/studies/{study}")
    while True:
        try:
            with client_of(home) as client:
                status: dict[str, Any] = watched.look(client)
        except TesseraError as error:
            status = {"state": "out of reach", "reason": str(error), "rounds_completed": 0, "rounds": 0}
        state = status["state"]
        said = f"{state}: {status['reason']}" if status["reason"] else state
        if said != told:
            progress.note(f"{study} is {said}")
            told = said
        if status["rounds"]:
            progress.rounds(status["rounds_completed"], status["rounds"], state)
        if state == "finished":
            return status
        if state in OVER_FOR_GOOD or state == "failed":
            raise TesseraError(f"{study} is {state} and will not go on: {status['reason']}")
        if state == "paused" and resumable and status["reason"].endswith(NEXT_ROUND):
            resumable -= _resumed(home, study, progress)
        sleep(_POLL_SECONDS)


def _resumed(home: Home, study: str, progress: Progress) -> bool:
    try:
        resume(home, study)
    except TesseraError as error:
        progress.note(f"{study} could not be resumed: {error}")
        return False
    progress.note(f"{study} goes on with the next round")
    return True


def play_steward(
    home: Home, portal: str, *, over: Callable[[], bool], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Approve everything that is proposed to a hospital, as a made-up steward: for demonstrations with nobody's data.

    Args:
        home: the hospital's, on this machine.
        portal: its address.
        over: asked between two looks; True ends.

    Raises:
        TesseraError: the portal refuses.
    """
    name, password = "demo-steward", home.identity().derive_secret("demo").hex()
    with httpx.Client(base_url=portal, timeout=60.0, trust_env=False) as client:
        csrf = told = ""
        while not over():
            try:
                if not csrf:
                    csrf = _signed_in(home, client, name, password)
                refused = _approve_all(client, csrf, password)
                if refused and refused != told:
                    _log.warning("%s: %s", home.config().name, refused)
                told = refused
            except httpx.TransportError:
                csrf = ""  # it is being started again
            except _SignedOut:
                csrf = ""
            sleep(_POLL_SECONDS)


class _SignedOut(Exception):
    """The session is over."""


def _signed_in(home: Home, client: httpx.Client, name: str, password: str) -> str:
    accounts = AccountStore(home.folder / "accounts.sqlite")
    try:
        if not any(account.name == name for account in accounts.accounts()):
            token = accounts.invite("steward", now=dt.datetime.now(dt.UTC))
            _ok(client.post("/api/register", json={"token": token, "name": name, "password": password}))
    finally:
        accounts.close()
    return str(_ok(client.post("/api/login", json={"name": name, "password": password}))["csrf"])


def _approve_all(client: httpx.Client, csrf: str, password: str) -> str:
    """Approve what waits; return why the portal refused it, or nothing."""
    for request in _ok(client.get("/api/requests")):
        if request["state"] == "pending":
            path = f"/api/requests/{request['proposal_hash']}/approve"
            try:
                _ok(client.post(path, json={"password": password}, headers={"x-csrf-token": csrf}))
            except TesseraError as error:
                return str(error)
    return ""


def _ok(response: httpx.Response) -> Any:
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise _SignedOut
    if response.is_success:
        return response.json()
    raise TesseraError(f"{response.request.url.path} answered {response.status_code}: {response.text[:300]}")
