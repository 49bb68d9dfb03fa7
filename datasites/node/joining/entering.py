"""The invited party's side: its folder, made from an invitation, and the wait for the operator who admits it.

entered = enter(invitation, folder, settings, now=now)      # `tessera join`: all of the folder, or nothing
await_admission(Home(folder=folder))                       # `tessera ROLE run`: until the roster names this party
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from datasites.node.credentials.tls import ends_soon
from datasites.node.credentials.trust import client_context
from datasites.node.files import make_folder, sync_folder, write_atomically
from datasites.node.home import Config, Home
from datasites.node.http import Declined, SignedClient, checked_proxy
from datasites.node.joining.certificates import request_certificate
from datasites.node.joining.documents import (
    ANSWER,
    Answer,
    Invitation,
    check_time,
    open_edition,
    read_invitation,
    read_signed,
)
from datasites.study.signing import Signed, dump, parse, seal
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.identity import fingerprint

_log = logging.getLogger(__name__)

FOLDER = "joining"
"""In a role's folder: the invitation, the answer, and the newest edition of the roster."""
EDITION_FILE = "roster.signed.json"
UNCONFIRMED = "unconfirmed"
"""In :data:`FOLDER`: keyholder or helper got its first roster from the orchestrator, and nobody there compared it."""
_CA, _SCHEMA, _POLICY = "ca.pem", "schema.json", "policy.toml"
_KEY, _CERTIFICATE = "tls/portal.key", "tls/portal.pem"
_POLL_SECONDS = 2.0
_TRY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the new role listens and how it reaches the orchestrator.

    ``names`` are the host names of its portal; with some, a certificate is asked for, and the portal speaks HTTPS once
    the operator has made it. ``proxy`` is a forward proxy (``http://user:password@host:port``).
    """

    host: str = "127.0.0.1"
    port: int = 8080
    names: tuple[str, ...] = ()
    public_url: str = ""
    proxy: str = ""


def enter(data: bytes, folder: Path, place: Place, *, now: dt.datetime, offline: bool = False) -> Invitation:
    """Make a role's folder from an invitation and send the answer; the folder is there whole, or not at all.

    Args:
        data: the invitation.
        folder: missing or empty.
        place: where the role listens, and how it dials.
        now: the present time, with zone.
        offline: leave the answer to the role's process; whether the invitation was used already is not known then.

    Raises:
        InvalidInput: no invitation, or a folder with something in it.
        Refused: it has expired, or somebody has used it.
        Tampered: it was changed.
        TesseraError: the orchestrator does not answer.
    """
    signed, invitation = read_invitation(data)
    check_time(invitation, now)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "a Tessera home" if (folder / "config.json").exists() else "something"
        raise InvalidInput(
            f"expected a missing or empty folder for the new home, but {folder} holds {what}; nothing was changed"
        )
    if place.proxy:
        checked_proxy(place.proxy)
    make_folder(folder.parent)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".new", dir=folder.parent))
    try:
        home = _furnish(staged, signed, invitation, place)
        if not offline:
            _send(home, invitation, seconds=_TRY_SECONDS)
        staged.chmod(0o700)
        staged.replace(folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    return invitation


def _furnish(staged: Path, signed: Signed, invitation: Invitation, place: Place) -> Home:
    portal = invitation.role == "datasite"
    https = portal and bool(place.names)
    config = Config(
        name=invitation.name,
        institution=invitation.institution,
        role=invitation.role,
        orchestrator_url=invitation.orchestrator_url,
        host=place.host if portal else "127.0.0.1",
        port=place.port if portal else 0,
        public_url=place.public_url if portal else "",
        ca=_CA if invitation.ca else "",
        tls_certificate=_CERTIFICATE if https else "",
        tls_key=_KEY if https else "",
        proxy=place.proxy,
    )
    home = Home.create(staged, config)
    if invitation.ca:
        write_atomically(staged / _CA, invitation.ca.encode(), mode=0o644)
        client_context(staged / _CA)
    request = ""
    if https:
        key, request = request_certificate(place.names)
        write_atomically(staged / _KEY, key)
        write_atomically(staged / "tls" / "portal.csr", request.encode(), mode=0o644)
    if portal:
        write_atomically(staged / _POLICY, DRAFT_POLICY.encode())
    if invitation.study_schema is not None:
        write_atomically(staged / _SCHEMA, json.dumps(dict(invitation.study_schema), indent=2).encode())
    answer = Answer(
        number=invitation.number,
        role=invitation.role,
        name=invitation.name,
        institution=invitation.institution,
        certificate_request=request,
    )
    _keep(staged / FOLDER / "invitation.json", signed)
    _keep(staged / FOLDER / "answer.json", seal(home.identity(), ANSWER, answer))
    return home


def _keep(path: Path, signed: Signed) -> None:
    write_atomically(path, json.dumps(dump(signed)).encode())


def _send(home: Home, invitation: Invitation, *, seconds: float) -> dict[str, Any]:
    """Send the answer, or send it again: the orchestrator says whether this party is admitted by now."""
    config = home.config()
    answer = read_signed(home.folder / FOLDER / "answer.json")
    with SignedClient(
        home.identity(),
        invitation.orchestrator_url,
        invitation.orchestrator.public_key,
        ca=config.ca,
        proxy=config.proxy,
        retry_seconds=seconds,
    ) as client:
        return dict(client.post_json(f"/invitations/{invitation.number}", dump(answer)))


def await_admission(home: Home, *, told: Callable[[str], None] | None = None, seconds: float = float("inf")) -> None:
    """Wait until the consortium's operator has admitted this party, and keep the roster and the portal's certificate.

    A folder that was not made from an invitation, or has its roster, is left as it is.

    Args:
        home: the role's.
        told: told once what is waited for.
        seconds: how long.

    Raises:
        Refused: the invitation is not good any more.
        TesseraError: not admitted in time.
    """
    folder = home.folder
    if (folder / "roster.json").exists() or not (folder / FOLDER / "invitation.json").exists():
        return
    _, invitation = read_invitation((folder / FOLDER / "invitation.json").read_bytes())
    own = fingerprint(home.identity().public_key)
    until = time.monotonic() + seconds
    (told or _tell)(
        f"{invitation.name} waits for the operator of {invitation.orchestrator_url} to admit it; read this fingerprint "
        f"out to them by telephone: {own}"
    )
    with _EndsAtOnce():
        while (found := _asked(home, invitation)).get("state") != "admitted":
            if time.monotonic() > until:
                raise TesseraError(f"{invitation.name} was not admitted in {seconds:g} s")
            time.sleep(_POLL_SECONDS)
    _admit(home, invitation, found)


def renew_certificate(home: Home, *, now: dt.datetime) -> bool:
    """Fetch the portal's certificate anew where the operator's authority made it and it ends soon; True if it changed.

    The operator's process signs the request once more that came with the answer: the same key and the same names. What
    cannot be fetched is said in the log and tried again by the next start.
    """
    path, asked = home.folder / _CERTIFICATE, home.folder / FOLDER / "invitation.json"
    if home.config().tls_certificate != str(path) or not path.exists() or not asked.exists():
        return False
    try:
        if not ends_soon(path, now):
            return False
        _, invitation = read_invitation(asked.read_bytes())
        new = str(_send(home, invitation, seconds=_TRY_SECONDS).get("certificate") or "").encode()
        _check_renewed(path.read_bytes(), new)
    except TesseraError as error:
        _log.warning("the portal's certificate ends soon and was not renewed: %s", error)
        return False
    write_atomically(path, new, mode=0o644)
    _log.warning("the portal's certificate was renewed by the operator's authority")
    return True


def _check_renewed(before: bytes, new: bytes) -> None:
    try:
        old, found = x509.load_pem_x509_certificate(before), x509.load_pem_x509_certificate(new)
        names = [one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value for one in (old, found)]
    except (ValueError, x509.ExtensionNotFound) as error:
        raise InvalidInput("expected the portal's new certificate (PEM) from the orchestrator") from error
    if old.public_key() != found.public_key() or names[0] != names[1]:
        raise InvalidInput("the new certificate is for another key or other names than the portal's")
    if found.not_valid_after_utc <= old.not_valid_after_utc:
        raise InvalidInput("the orchestrator has none that lasts longer; ask the consortium's operator")


def _asked(home: Home, invitation: Invitation) -> dict[str, Any]:
    try:
        return _send(home, invitation, seconds=_TRY_SECONDS)
    except Declined:
        raise
    except TesseraError as error:  # it does not answer just now
        if isinstance(error, Refused | InvalidInput):
            raise
        _log.warning("%s", error)
        return {}


def _admit(home: Home, invitation: Invitation, found: dict[str, Any]) -> None:
    signed = parse(Signed, found["roster"])
    edition = open_edition(signed, invitation.orchestrator)
    if edition.roster.by_name(invitation.name) != home.party():
        raise InvalidInput("the roster names another key for this party than its own; tell the consortium's operator")
    certificate = str(found.get("certificate") or "")
    if certificate:
        try:
            x509.load_pem_x509_certificate(certificate.encode())
        except ValueError as error:
            raise InvalidInput("expected the portal's certificate (PEM) from the orchestrator") from error
        write_atomically(home.folder / _CERTIFICATE, certificate.encode(), mode=0o644)
    elif home.config().tls_certificate and not (home.folder / _CERTIFICATE).exists():
        raw = parse(
            Config, (home.folder / "config.json").read_bytes()
        )  # nobody here signs certificates: plain HTTP until
        plain = replace(raw, tls_certificate="", tls_key="")
        write_atomically(home.folder / "config.json", json.dumps(asdict(plain), indent=2).encode())
        _log.warning("the operator has no authority for the portal's certificate; send tls/portal.csr to your own")
    home.keep_handovers(edition.handovers)
    _keep(home.folder / EDITION_FILE, signed)
    if invitation.role in ("keyholder", "helper"):  # a hospital's people confirm every fingerprint in their portal
        write_atomically(home.folder / FOLDER / UNCONFIRMED, b"")
        _log.warning("compare the fingerprints of the roster by telephone, then: tessera confirm-roster --by NAME")
    edition.roster.save(home.folder / "roster.json")


def is_unconfirmed(home: Home) -> bool:
    """Say whether this keyholder or helper has a roster that came with its admission and that nobody compared."""
    return (home.folder / FOLDER / UNCONFIRMED).exists()


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class _EndsAtOnce:
    """Let SIGTERM end the process while it waits: the first process of a container has no default for it."""

    def __enter__(self) -> None:
        try:
            self._before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        except ValueError:  # not in the main thread: a test
            self._before = None

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


DRAFT_POLICY = """\
# A draft of this hospital's policy, made by `tessera join`. Read docs/review.md, change what is not yours, and restart.
# A study that passes these bounds is refused before anybody is asked.

[budget]
epsilon_cap = 10.0       # per patient, over all studies together
delta = 1e-4

[noise]
modes = ["local", "shared"]

[review]
required_reviewers = 1   # 2: a steward and a privacy officer sign every study
"""
