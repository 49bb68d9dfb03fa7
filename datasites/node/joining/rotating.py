"""A party's new key: the old one signs the new one, journal and ledger go on with it, and others are told.

    rotate(home, now=now)        # `tessera ROLE rotate`, while the role does not run
    tell(home)                   # `tessera ROLE run`: until the orchestrator's operator has admitted the new key

The steps are repeatable: a rotation that a crash has cut short is finished by the same command.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.node.joining.documents import read_signed
from datasites.node.keys.handover import hand_over, open_handover
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import dump
from datasites.study.thread import OVER_FOR_GOOD
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.identity import Identity, fingerprint, first_key_path
from privacy.ledger.chain import Chain
from privacy.ledger.verification import FILES

_log = logging.getLogger(__name__)
NEXT = "identity.next.pem"
PENDING = "handover.json"
"""In a role's folder: the hand-over that the orchestrator's operator has not admitted yet."""
_POLL_SECONDS = 2.0
_TRY_SECONDS = 10.0


def rotate(home: Home, *, now: dt.datetime) -> str:
    """Give a role a new key and return its fingerprint; the role must not run.

    Journal and ledger go on under the new key, and secrets that must last (case hashes, stored round keys) stay. The
    old key is deleted, unless lasting secrets depend on it: then it stays as ``identity.first.pem`` and signs nothing.

    Raises:
        Refused: the hand-over before this one is not admitted yet.
        InvalidInput: the folder is damaged.
    """
    folder, waiting = home.folder, home.folder / PENDING
    old = home.identity()
    started = (folder / NEXT).exists()
    if waiting.exists() and not started:
        raise Refused("the key before this one is not admitted yet; let the role run until it is, then rotate again")
    new = _next_identity(home, old)
    if not waiting.exists() or read_signed(waiting).payload.get("new_key") != new.public_key:
        signed = hand_over(old, new, name=home.config().name, now=now)
        write_atomically(waiting, json.dumps(dump(signed)).encode())
    for purpose, file in FILES.items():
        if (folder / file).exists():
            _go_on(folder / file, purpose, old, new)
    _replace_own(home, old.public_key, new.public_key)
    new.save(folder / "identity.pem")
    (folder / NEXT).unlink(missing_ok=True)
    first_key_path(folder / NEXT).unlink(missing_ok=True)
    return fingerprint(new.public_key)


def refuse_open(home: Home, open_studies: Callable[[Home], list[str]]) -> None:
    """Refuse a new key while studies that name the old one are not over.

    Raises:
        Refused: there are some, or nobody can say.
    """
    if (home.folder / NEXT).exists():  # the rotation has begun
        return
    try:
        found = open_studies(home)
    except TesseraError as error:
        raise Refused(f"expected to learn which studies are not over, but: {error}; --now rotates without") from error
    if found:
        raise Refused(
            f"studies that are not over name the key here: {', '.join(found)}; let them end, or end them, or leave "
            "them now with --now: a hospital is dropped from them, and of another role they end"
        )


def studies_at(home: Home) -> list[str]:
    """Ask the orchestrator which of this role's studies are not over."""
    if not (home.folder / "roster.json").exists():
        return []
    states: dict[str, str] = {}
    found: list[str] = []
    with _client(home) as client:
        while page := client.get_json("/studies", params={"after": found[-1] if found else None}):
            found += [str(line["study"]) for line in page]
            states.update({str(line["study"]): str(line["state"]) for line in page})
    return [study for study in found if states[study] not in OVER_FOR_GOOD]


def _client(home: Home) -> SignedClient:
    config = home.config()
    return SignedClient(
        home.identity(),
        config.orchestrator_url,
        home.roster().orchestrator.public_key,
        ca=config.ca,
        proxy=config.proxy,
        retry_seconds=_TRY_SECONDS,
    )


def _next_identity(home: Home, old: Identity) -> Identity:
    path = home.folder / NEXT
    if not path.exists():
        old.successor().save(path)
    return Identity.load_or_create(path)


def _go_on(path: Path, purpose: Any, old: Identity, new: Identity) -> None:
    with closing(Chain(path, None, purpose=purpose)) as chain:
        there = chain.public_key
    if there != new.public_key:
        with closing(Chain(path, old, purpose=purpose)) as chain:
            chain.rotate(new)


def _replace_own(home: Home, old: str, new: str) -> None:
    """Put the new key into this role's own roster: its own people need no telling."""
    path = home.folder / "roster.json"
    if path.exists():
        with_key(Roster.load(path), old, new).save(path)


def with_key(roster: Roster, old: str, new: str) -> Roster:
    """Return the roster with one key in the place of another."""

    def changed(party: Party) -> Party:
        return replace(party, public_key=new) if party.public_key == old else party

    return Roster(
        orchestrator=changed(roster.orchestrator),
        keyholder=changed(roster.keyholder),
        sites=tuple(map(changed, roster.sites)),
        helpers=tuple(map(changed, roster.helpers)),
        scientists=tuple(map(changed, roster.scientists)),
    )


def tell(home: Home, *, told: Callable[[str], None] | None = None, seconds: float = float("inf")) -> None:
    """Wait until the consortium's operator has admitted this role's new key; without a new one there is no wait.

    Args:
        home: the role's.
        told: told once what is waited for.
        seconds: how long.

    Raises:
        Refused: the orchestrator does not take the hand-over.
        TesseraError: not admitted in time.
    """
    path = home.folder / PENDING
    if not path.exists() or home.config().role == "orchestrator":
        return
    signed = read_signed(path)
    found = open_handover(signed)
    until = time.monotonic() + seconds
    (told or _tell)(
        f"{found.name} has a new key and waits for the consortium's operator to admit it; read this fingerprint out to "
        f"them by telephone: {fingerprint(found.new_key)}"
    )
    for state in _answers(home, dump(signed)):
        if state == "admitted":
            break
        if time.monotonic() > until:
            raise TesseraError(f"the new key of {found.name} was not admitted in {seconds:g} s")
        time.sleep(_POLL_SECONDS)
    home.keep_handovers([*home.handovers(), signed])
    path.unlink()


def _answers(home: Home, document: dict[str, Any]) -> Iterator[str]:
    with _client(home) as client:
        while True:
            try:
                yield str(client.post_json("/handovers", document)["state"])
            except (Declined, InvalidInput):
                raise
            except TesseraError as error:  # it does not answer just now
                _log.warning("%s", error)
                yield ""


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
