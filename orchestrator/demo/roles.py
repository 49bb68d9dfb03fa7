"""``tessera serve``: a role from nothing to serving. Identity, certificates, enrolment, policy, data, then its process.

Every step is done once and found done after a restart. Secrets are made here, in the role's own folder; what others
need (the party file, the authority's certificate) goes into the exchange folder (:mod:`datasites.node.consortium`).
"""

from __future__ import annotations

import logging
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import tomlkit

from datasites.node.consortium import (
    AUTHORITY_FILE,
    Consortium,
    check_address,
    gather,
    publish,
    publish_party,
    wait_for,
)
from datasites.node.credentials.tls import ensure_authority, ensure_server_certificate
from datasites.node.credentials.trust import client_context
from datasites.node.home import Config, Home
from datasites.node.plugins import process_of
from datasites.node.roster import Roster
from orchestrator.demo.settings import RoleSettings
from privacy.errors import InvalidInput

_log = logging.getLogger(__name__)
TEST_FOLDER = "test"


def serve(settings: RoleSettings) -> None:
    """Prepare the role and run it until the process is asked to end.

    Raises:
        InvalidInput: settings that do not fit together; the message says which.
        TesseraError: the others did not come.
    """
    settings = replace(settings, home=settings.home.resolve())
    role, _ = Consortium.load(settings.consortium).member(settings.name)
    signal.signal(signal.SIGTERM, _end)  # the first process of a container has no default for it
    prepare(settings)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    process_of(role)(settings.home)


def prepare(settings: RoleSettings) -> Home:
    """Do everything that comes before the daemon; what is there already stays.

    Raises:
        InvalidInput: as :func:`serve`.
        TesseraError: the others did not come.
    """
    settings = replace(settings, home=settings.home.resolve())
    consortium = Consortium.load(settings.consortium)
    check_address(settings.orchestrator_url)
    role, member = consortium.member(settings.name)
    config = Config(
        name=member.name,
        institution=member.institution,
        role=role,
        orchestrator_url=settings.orchestrator_url,
        host=settings.host,
        port=settings.port,
        public_url=settings.orchestrator_url if role == "orchestrator" else settings.public_url,
        ca=_absolute(settings.ca) or (str(settings.home / AUTHORITY_FILE) if settings.own_authority else ""),
        tls_certificate=_absolute(settings.tls_certificate),
        tls_key=_absolute(settings.tls_key),
    )
    if role == "orchestrator" and settings.own_authority:
        config = _with_certificate(settings, config)
    home = Home.create(settings.home, config)
    publish_party(settings.exchange, role, home.party())
    _data(settings, consortium, home)
    _enrol(settings, consortium, home)
    if role == "datasite":
        _policy(settings, home)
    return home


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if path else ""


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
        *partner_lines(roster, own_key),
    ]
    return "\n".join(lines) + "\n"


def partner_lines(roster: Roster, own_key: str) -> list[str]:
    """Return everybody else of the roster as a policy's partners, whose fingerprints count as compared."""
    lines = []
    for party in roster.known:
        if party.public_key != own_key:
            lines += ["[[partners]]", f"name = {_toml(party.name)}", f'public_key = "{party.public_key}"']
            lines += [f"institution = {_toml(party.institution)}"]
    return lines


def _toml(text: str) -> str:
    return tomlkit.item(text).as_string()


def _with_certificate(settings: RoleSettings, config: Config) -> Config:
    if settings.tls_certificate:
        raise InvalidInput("expected --ca beside --tls-certificate: who vouches for the orchestrator's certificate?")
    name = urlsplit(settings.orchestrator_url).hostname
    authority = ensure_authority(settings.home / "tls", name=settings.name)
    names = list(dict.fromkeys([str(name), "localhost", "127.0.0.1"]))
    certificate = ensure_server_certificate(authority, settings.home / "tls", names=names)
    publish(settings.exchange, AUTHORITY_FILE, authority.certificate_path.read_bytes())
    return replace(config, tls_certificate=str(certificate))


def _enrol(settings: RoleSettings, consortium: Consortium, home: Home) -> None:
    """Keep the roster and the authority's certificate as they were at the first start."""
    own = home.folder / AUTHORITY_FILE
    if settings.own_authority and not own.exists():
        source = settings.exchange / AUTHORITY_FILE
        wait_for({"the orchestrator's certificate": source}, seconds=settings.wait_seconds, waiting=_waiting)
        client_context(source)
        shutil.copyfile(source, own)
    path = home.folder / "roster.json"
    if not path.exists():
        roster = gather(settings.exchange, consortium, seconds=settings.wait_seconds, waiting=_waiting)
        roster.save(path)
    if home.roster().by_name(settings.name).public_key != home.identity().public_key:
        raise InvalidInput("the roster lists this role under another key; restore its folder, or enrol everybody again")


def _policy(settings: RoleSettings, home: Home) -> None:
    path = home.folder / "policy.toml"
    if path.exists():
        return
    if settings.policy is not None:
        shutil.copyfile(settings.policy, path)
    else:
        path.write_text(starting_policy(home.roster(), home.identity().public_key), encoding="utf-8")


def _data(settings: RoleSettings, consortium: Consortium, home: Home) -> None:
    role, _ = consortium.member(settings.name)
    if role in ("keyholder", "helper"):
        return
    from datasites.data.ingest import place_dataset, place_synthetic_test

    if role == "datasite" and not home.datasets():
        place_dataset(consortium, settings.name, settings.tables, home.folder / "datasets")
    elif role == "orchestrator" and settings.tables is None and not (home.folder / TEST_FOLDER).exists():
        place_synthetic_test(consortium, home.folder / TEST_FOLDER)


def _waiting(missing: str) -> None:
    _log.warning("waiting for %s", missing)


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
