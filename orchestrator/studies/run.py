"""A study from the scientist's side: read what hospitals offer, propose, wait for people and rounds, keep results."""

from __future__ import annotations

import datetime as dt
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from datasites.node.credentials.signed_pdf import signer_of
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.study.thread import OVER_FOR_GOOD, ScientistKind, accepted
from datasites.syft.client import ScientistNode
from orchestrator.studies.evaluation import final_metrics, learning_curve
from orchestrator.studies.facts import study_facts
from orchestrator.studies.proposing.brought import NOTHING, Brought, files_of
from orchestrator.studies.proposing.propose import local_blocks, notes_on
from orchestrator.studies.proposing.settings import Offer, StudySettings
from orchestrator.studies.report import write_study_pdf, write_study_report
from orchestrator.studies.status import Watched, client_of, proposal_of, said, study_line, summaries_of
from orchestrator.studies.submit import Draft, offers_of, scientist, submit
from orchestrator.studies.words import say
from privacy.canonical import sha256_hex
from privacy.errors import Refused, StudyOver, TesseraError

BuiltBy = Callable[[StudySettings, Sequence[Offer], ScientistNode], bytes | None]
_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 30.0


class Progress(Protocol):
    """Somebody who shows how far a study is."""

    def step(self, text: str) -> None:
        """A new step has begun."""

    def note(self, text: str) -> None:
        """Something people should read and keep."""

    def rounds(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` rounds are finished."""


def propose(
    home: Home,
    settings: StudySettings,
    progress: Progress,
    *,
    sites: Sequence[str] = (),
    replaces: str = "",
    offer_seconds: float = 300.0,
    brought: Brought = NOTHING,
    built: BuiltBy | None = None,
) -> dict[str, Any]:
    """Propose a study to hospitals; return its name, proposal hash and participants.

    Args:
        home: the orchestrator's.
        settings: the scientist's wishes.
        progress: is told what happens.
        sites: which hospitals; all of the roster when empty.
        replaces: name of the study of which this is a new version; it ends once the new one is proposed.
        offer_seconds: how long to wait for what they publish.
        brought: an earlier study's last model, own code.
        built: makes the initial model of own code, and tries the code; gets the settings and what hospitals offer.

    Raises:
        InvalidInput: offers that do not fit together or the study.
        Refused: a study of this name exists.
        TesseraError: a hospital published nothing in time.
    """
    with client_of(home, answer_seconds=_ANSWER_SECONDS) as client:
        earlier = client.get_json(f"/studies/{replaces}") if replaces else None
        if earlier is not None:
            settings = replace(settings, replaces=proposal_of(earlier).proposal_hash)
        if (
            Draft.find(home, settings, brought) is None
        ):  # else an earlier command ended on the way: send on what it signed
            _check_new(client, settings.study)
        names = tuple(sites) or tuple(party.name for party in home.roster().sites)
        progress.step(f"Reading what {len(names)} hospitals published")
        node = scientist(home, client)
        offers = offers_of(node, home, names, seconds=offer_seconds)
        initial = built(settings, offers, node) if built is not None else None
        progress.step("Proposing the study")
        proposal = submit(node, home, client, settings, offers, brought, initial)
    for note in notes_on(proposal):
        progress.note(note)
    if earlier is not None and earlier["state"] not in OVER_FOR_GOOD:
        kind: ScientistKind = "cancelled" if earlier["rounds_completed"] else "withdrawn"
        say(home, replaces, kind, f"A new version replaces it: {proposal.study}.")
    for block in local_blocks(proposal):
        progress.note(f"the {block} part has fewer than {proposal.min_sites} contributors and stays at its sites")
    return {"study": proposal.study, "proposal_hash": proposal.proposal_hash, "participants": list(names)}


def _check_new(client: SignedClient, study: str) -> None:
    if any(known["study"] == study for known in summaries_of(client)):
        follow = f"tessera study wait {shlex.quote(study)}"
        raise Refused(f"a study called {study!r} exists; `{follow}` follows it, or use another name")


def wait(
    home: Home,
    study: str,
    progress: Progress,
    *,
    timeout_seconds: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait for approvals and rounds until the study is finished; return its status.

    Raises:
        StudyOver: it was denied, revoked, withdrawn, cancelled or expired.
        TesseraError: it was paused or failed, or it is not over in time; it goes on, only the waiting ends.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    told, heard, watched = "", 0, Watched(f"/studies/{study}")
    with client_of(home, answer_seconds=_ANSWER_SECONDS) as client:
        while True:
            status: dict[str, Any] = watched.look(client)
            state = status["state"]
            missing = ", ".join(site.name for site in study_line(status).sites if not site.approved)
            step = f"Waiting for approval by {missing}" if missing else _waiting(status) or "Everybody approved"
            if state == "waiting" and step != told:
                progress.step(step)
                told = step
            progress.rounds(status["rounds_completed"], status["rounds"], state)
            if state == "finished":
                return status
            for word in said(status)[heard:]:
                progress.note(f"{word.sentence} ({word.who})")
            heard = len(said(status))
            if state in OVER_FOR_GOOD:
                raise StudyOver(f"{study} is {state} and will not go on: {status['reason']}")
            if state in ("paused", "failed"):
                raise TesseraError(f"the study is {state}: {status['reason']}")
            if deadline is not None and time.monotonic() > deadline:
                raise TesseraError(
                    f"{study} is still {state} after {timeout_seconds:g} s; `tessera study wait` goes on"
                )
            sleep(_POLL_SECONDS)


def _waiting(status: dict[str, Any]) -> str:
    """Return which hospitals' conditions the scientist has to accept before a study can start, or nothing."""
    known = said(status)
    sites = [site.name for site in study_line(status).sites if not accepted(known, site.name)]
    return f"Waiting until you accept the conditions of {', '.join(sites)} (tessera study answer)" if sites else ""


def keep_result(
    home: Home, status: dict[str, Any], out: Path, *, test: Path | None = None, language: str = "en"
) -> dict[str, Any]:
    """Write the last model and the study report into ``out``; return what the command line prints.

    Args:
        home: the orchestrator's.
        status: of a study with at least one finished round.
        out: a folder; made when missing.
        test: a dataset of held-out patients, public or synthetic; without it nothing is measured.
        language: of the study report.
    """
    with client_of(home, answer_seconds=_ANSWER_SECONDS) as client:
        digest = status["checkpoints"][-1]["model_hash"]
        write_atomically(out / "model.safetensors", client.get_bytes(f"/blobs/{digest}"))
        model = status["proposal"]["payload"]["model"]
        whole = model["heads"] != "combination" and model.get("counting") is None
        measured = test if whole else None  # heads that stay at their hospitals, and counts, are no model to score
        proposal = proposal_of(status)
        code = files_of(home, proposal) if measured is not None and proposal.own_network else None
        metrics = final_metrics(client, status, measured, code) if measured is not None else None
        curve = learning_curve(client, status, measured, code=code) if measured is not None else []
    made = dt.datetime.now(dt.UTC)
    facts = study_facts(status, metrics=metrics, curve=curve, made=made, language=language)
    sign = signer_of(home, f"Study report {facts.number}")
    reports = (*write_study_report(facts, out), write_study_pdf(facts, out, sign=sign))
    line = asdict(study_line(status))
    return {
        **{k: line[k] for k in ("study", "state", "rounds", "rounds_completed", "seconds", "uplink_bytes", "sites")},
        "epsilon_worst_case": facts.epsilon_study,
        "delta": facts.delta,
        "model": str(out / "model.safetensors"),
        "model_hash": digest,
        "metrics": metrics,
        "reports": [str(path) for path in reports],
    }


def result_folder(home: Home, study: str) -> Path:
    """Return where a study's results lie by default; a name that is no plain file name is hashed."""
    plain = study.replace("-", "").replace("_", "").isalnum() and study.isascii()
    return home.folder / "results" / (study if plain else sha256_hex(study.encode()))
