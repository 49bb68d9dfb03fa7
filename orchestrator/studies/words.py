"""What a scientist says about a study: answers to hospitals, and what becomes of the study, signed as words.

A word goes to the orchestrator, which acts on it and hands it to everybody it concerns (:mod:`datasites.study.thread`).
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.study.proposal import Proposal
from datasites.study.requests import REQUEST_FILE
from datasites.study.signing import Signed, dump, open_sealed, parse, seal
from datasites.study.thread import WORD, ScientistKind, Word, accepted, check_text
from datasites.syft.client import ScientistNode
from datasites.syft.runner import PROPOSAL_FILE
from orchestrator.studies.proposing.brought import files_of
from orchestrator.studies.status import client_of, said
from orchestrator.studies.submit import scientist
from privacy.errors import InvalidInput, Refused

_ANSWER_SECONDS = 30.0


def say(
    home: Home, study: str, kind: ScientistKind, text: str, *, to: str = "", person: str = "", answers: str = ""
) -> Word:
    """Sign one word in the orchestrator's name and send it.

    Args:
        home: the orchestrator's.
        study: its name.
        kind: what is said.
        text: for the people who read it.
        to: the hospital that is meant, where the kind needs one.
        person: who says it; the orchestrator's own name without.
        answers: hash of the word that is answered.

    Raises:
        InvalidInput: no such study or hospital, or no text.
        Refused: the study's state does not allow it.
    """
    with client_of(home, answer_seconds=_ANSWER_SECONDS) as client:
        status, proposal = _read(home, client, study)
        return _send(home, client, proposal, said(status), kind, text, to=to, person=person, answers=answers)


def answer(home: Home, study: str, site: str, text: str, *, accept: bool, person: str = "") -> tuple[Word, ...]:
    """Answer one hospital; with ``accept`` the conditions of its approval are accepted as well.

    Raises:
        InvalidInput: no such study or hospital, or no text.
        Refused: ``accept`` without conditions that wait for it.
    """
    with client_of(home, answer_seconds=_ANSWER_SECONDS) as client:
        status, proposal = _read(home, client, study)
        proposal.participant(site)
        words = said(status)
        if not accept:
            last = [w.word_hash for w in words if w.author == site]
            answered = last[-1] if last else ""
            return (_send(home, client, proposal, words, "answered", text, to=site, person=person, answers=answered),)
        if accepted(words, site):
            raise Refused(f"{site} has set no condition that waits to be accepted")
        sent: list[Word] = []
        for word in [w for w in words if w.kind == "conditions" and w.author == site]:
            known = (*words, *sent)
            sent.append(
                _send(
                    home,
                    client,
                    proposal,
                    known,
                    "accepted",
                    text,
                    to=site,
                    person=person,
                    answers=word.word_hash,
                )
            )
        return tuple(sent)


def resume(home: Home, study: str) -> dict[str, Any]:
    """Let a study go on and return its name and state; who reads that it was paused reads that it goes on.

    Raises:
        InvalidInput: no such study.
        Refused: it was ended for good.
    """
    with client_of(home, answer_seconds=_ANSWER_SECONDS) as client:
        status, proposal = _read(home, client, study)
        words = said(status)
        told = [w.kind for w in words if w.kind in ("paused", "resumed")]
        if told[-1:] != ["paused"]:
            found: dict[str, Any] = client.post_json(f"/studies/{study}/resume", {})
            return found
        _send(home, client, proposal, words, "resumed", "", to="", person="", answers="")
        return {"study": study, "state": client.get_json(f"/studies/{study}")["state"]}


def resend(home: Home, study: str, sites: Sequence[str] = ()) -> tuple[str, ...]:
    """Send the signed proposal once more to hospitals that have not approved it; return their names.

    Args:
        home: the orchestrator's.
        study: its name.
        sites: which hospitals; without, all that have not approved.

    Raises:
        InvalidInput: no such study or hospital.
    """
    with client_of(home, answer_seconds=_ANSWER_SECONDS) as client:
        status, proposal = _read(home, client, study)
        names = tuple(sites) or tuple(p.name for p in proposal.participants if p.name not in status["approvals"])
        for name in names:
            proposal.participant(name)
        files = {**files_of(home, proposal), PROPOSAL_FILE: json.dumps(status["proposal"]).encode()}
        if status.get("request"):
            files[REQUEST_FILE] = json.dumps(status["request"]).encode()
        send_again(scientist(home, client), proposal, files, names)
    return names


def send_again(node: ScientistNode, proposal: Proposal, files: Mapping[str, bytes], sites: Sequence[str]) -> None:
    """Send a proposal and its files to hospitals that it was sent to before, each time as a new job.

    What a hospital restored from a backup still has of the first one differs: nothing, its files, or an answer to it.
    """
    node.sync()
    job = f"{proposal.study}-{proposal.proposal_hash[:8]}-{time.time_ns() // 1_000_000}"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for file, data in files.items():
            write_atomically(tree / file, data)
        for name in sites:
            node.add_peer(name)
            node.submit(name, job, tree)
    node.sync()


def _read(home: Home, client: SignedClient, study: str) -> tuple[dict[str, Any], Proposal]:
    status: dict[str, Any] = client.get_json(f"/studies/{study}")
    keys = home.orchestrator_keys()
    proposal = open_sealed(parse(Signed, status["proposal"]), "proposal", keys, Proposal)
    asker = "" if proposal.scientist is None else proposal.scientist.public_key
    if home.identity().public_key not in {*keys, asker}:
        raise InvalidInput("expected the folder of the orchestrator, or of the scientist who asked for the study")
    return status, proposal


def _send(
    home: Home,
    client: SignedClient,
    proposal: Proposal,
    known: Sequence[Word],
    kind: ScientistKind,
    text: str,
    *,
    to: str,
    person: str,
    answers: str,
) -> Word:
    own = proposal.orchestrator.name
    if to:
        proposal.participant(to)
    if home.identity().public_key != proposal.orchestrator.public_key:
        said_there = {"kind": kind, "text": text, "to": to, "answers": answers}
        return parse(Word, client.post_json(f"/studies/{proposal.study}/said", said_there)["word"])
    word = Word(
        study=proposal.study,
        proposal_hash=proposal.proposal_hash,
        author=own,
        number=1 + sum(w.author == own for w in known),
        kind=kind,
        person=person or own,
        text=check_text(text, required=kind not in ("accepted", "resumed")),
        at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        to=to,
        answers=answers,
    )
    client.post_json(f"/studies/{proposal.study}/words", dump(seal(home.identity(), WORD, word)))
    return word
