"""A role from nothing to serving: identity, certificates, enrolment, policy, data, and then its daemon.

Every step is done once and found done after a restart. Secrets are made here, in the role's own folder; what others
need (the party file, the authority's certificate) goes into the exchange folder (:mod:`datasites.node.consortium`).
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from datasites.node.consortium import AUTHORITY_FILE, Consortium, gather, publish, publish_party, wait_for
from datasites.node.home import Config, Home
from datasites.node.roster import Roster
from datasites.node.tls import client_context, ensure_authority, ensure_server_certificate
from privacy.errors import InvalidInput

_log = logging.getLogger(__name__)
TEST_FOLDER = "test"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one role of a consortium is to be served.

    Args:
        name: who this is; the consortium's file says its role.
        home: the role's own folder.
        exchange: the folder all roles share; only public files go there.
        consortium: who is expected.
        orchestrator_url: the address everybody dials; ``https`` makes the orchestrator an authority of its own.
        host: the address it listens on.
        port: the port it listens on.
        public_url: where people reach a hospital's portal.
        data: a ready dataset or cohort tables; None gives synthetic patients.
        policy: the owner's policy to start with; None writes the cautious one of :func:`starting_policy`.
        tls_certificate: the operator's own certificate (and key) for what this role serves.
        tls_key: the key, where it is not in the same file.
        ca: who vouches for the orchestrator's own certificate, where the operator gave it one.
        wait_seconds: how long to wait for the others.
    """

    name: str
    home: Path
    exchange: Path
    consortium: Consortium
    orchestrator_url: str
    host: str
    port: int
    public_url: str = ""
    data: Path | None = None
    policy: Path | None = None
    tls_certificate: str = ""
    tls_key: str = ""
    ca: str = ""
    wait_seconds: float = 600.0


def serve(settings: Settings) -> None:
    """Prepare the role and run it until the process is asked to end.

    Raises:
        InvalidInput: settings that do not fit together; the message says which.
        TesseraError: the others did not come.
    """
    role, _ = settings.consortium.member(settings.name)
    signal.signal(signal.SIGTERM, _end)  # the first process of a container has no default for it
    prepare(settings)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if role == "orchestrator":
        from orchestrator.daemon import run
    elif role == "keyholder":
        from datasites.keyholder.daemon import run
    else:
        from datasites.hospital.daemon import run
    run(settings.home)


def prepare(settings: Settings) -> Home:
    """Do everything that comes before the daemon; what is there already stays.

    Raises:
        InvalidInput: as :func:`serve`.
        TesseraError: the others did not come.
    """
    role, member = settings.consortium.member(settings.name)
    home = Home(folder=settings.home)
    config = Config(
        name=member.name,
        institution=member.institution,
        role=role,
        orchestrator_url=settings.orchestrator_url,
        host=settings.host,
        port=settings.port,
        public_url=settings.orchestrator_url if role == "orchestrator" else settings.public_url,
        ca=settings.ca or (str(settings.home / AUTHORITY_FILE) if _own_authority(settings) else ""),
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
    )
    if role == "orchestrator" and _own_authority(settings):
        config = _with_certificate(settings, config)
    home = Home.create(settings.home, config)
    publish_party(settings.exchange, role, home.party())
    if role != "keyholder":
        _data(settings, home)
    _enrol(settings, home)
    if role == "datasite":
        _policy(settings, home)
    return home


def starting_policy(roster: Roster, own_key: str) -> str:
    """Return the policy a hospital starts with where its owner gave none, as TOML."""
    lines = [
        "# This hospital's policy (docs/review.md); edit it and restart. Partners came through the exchange folder:",
        "# on one machine nobody compared fingerprints, between machines people did before they copied the roster.",
        "accept_only_partners = true",
        "[budget]",
        "epsilon_cap = 10.0",
        "delta = 1e-4",
        "[noise]",
        'modes = ["local", "shared"]',
    ]
    for party in roster.everybody:
        if party.public_key != own_key:
            lines += ["[[partners]]", f"name = {json.dumps(party.name)}", f'public_key = "{party.public_key}"']
            lines += [f"institution = {json.dumps(party.institution)}"]
    return "\n".join(lines) + "\n"


def _own_authority(settings: Settings) -> bool:
    return settings.orchestrator_url.startswith("https:") and not settings.ca


def _with_certificate(settings: Settings, config: Config) -> Config:
    from dataclasses import replace

    if settings.tls_certificate:
        raise InvalidInput("expected --ca beside --tls-certificate: who vouches for the orchestrator's certificate?")
    name = urlsplit(settings.orchestrator_url).hostname
    authority = ensure_authority(settings.home / "tls", name=settings.name)
    names = list(dict.fromkeys([str(name), "localhost", "127.0.0.1"]))
    certificate = ensure_server_certificate(authority, settings.home / "tls", names=names)
    publish(settings.exchange, AUTHORITY_FILE, authority.certificate_path.read_bytes())
    return replace(config, tls_certificate=str(certificate))


def _enrol(settings: Settings, home: Home) -> None:
    """Keep the roster and the authority's certificate as they were at the first start."""
    own = home.folder / AUTHORITY_FILE
    if _own_authority(settings) and not own.exists():
        source = settings.exchange / AUTHORITY_FILE
        wait_for({"the orchestrator's certificate": source}, seconds=settings.wait_seconds, waiting=_waiting)
        client_context(source)
        shutil.copyfile(source, own)
    path = home.folder / "roster.json"
    if not path.exists():
        roster = gather(settings.exchange, settings.consortium, seconds=settings.wait_seconds, waiting=_waiting)
        roster.save(path)
    if home.roster().by_name(settings.name).public_key != home.identity().public_key:
        raise InvalidInput("the roster lists this role under another key; restore its folder, or enrol everybody again")


def _policy(settings: Settings, home: Home) -> None:
    path = home.folder / "policy.toml"
    if path.exists():
        return
    if settings.policy is not None:
        shutil.copyfile(settings.policy, path)
    else:
        path.write_text(starting_policy(home.roster(), home.identity().public_key), encoding="utf-8")


def _data(settings: Settings, home: Home) -> None:
    from datasites.data.ingest import place_dataset, place_synthetic_test

    role, _ = settings.consortium.member(settings.name)
    if role == "datasite" and not home.datasets():
        place_dataset(settings.consortium, settings.name, settings.data, home.folder / "datasets")
    elif role == "orchestrator" and settings.data is None and not (home.folder / TEST_FOLDER).exists():
        place_synthetic_test(settings.consortium, home.folder / TEST_FOLDER)


def _waiting(missing: str) -> None:
    _log.warning("waiting for %s", missing)


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
