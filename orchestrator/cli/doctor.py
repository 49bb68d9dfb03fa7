"""``tessera doctor``: is everything there that a role needs before it may start?

Every check looks and changes nothing: no key is made, no store is opened for writing, no request is signed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from cryptography import x509
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from datasites.node.credentials.trust import client_context, machine_context
from datasites.node.home import Config, Home
from datasites.node.http import PLAIN, checked_proxy
from datasites.node.joining.entering import is_unconfirmed
from datasites.node.plugins import DISTRIBUTION
from datasites.node.rollback import GAP
from datasites.review.environment import installed_files
from datasites.review.policy import Policy
from datasites.worker.pool import script_layers
from datasites.worker.sandbox import available_layers
from orchestrator.studies.status import orchestrator_url, trust_of
from privacy.errors import TesseraError
from privacy.identity import Identity, fingerprint
from privacy.ledger.verification import FILES, verify_folder

CLOCK_SECONDS = 10.0
SOON_DAYS = 30
ENOUGH_DISK_BYTES = 2 * 1024**3
_ANSWER_SECONDS = 5.0
_NAMED_FILES = 5
_SECRETS = (
    "identity.pem",
    "identity.first.pem",
    "keys",
    "rounds-kept",
    "accounts.sqlite",
    "ledger.sqlite",
    "metrics.token",
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: whether it holds, what was found, and what to do if not."""

    name: str
    ok: bool
    found: str
    advice: str = ""


class _Failed(Exception):
    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found, self.advice = found, advice


def examine(folder: Path, *, lock: Path | None = None) -> tuple[Check, ...]:
    """Look at a role's folder and its surroundings.

    Args:
        folder: the role's home.
        lock: a file of ``name==version`` lines that the installation must match; without it only the versions that
            the distribution itself demands are compared.
    """
    checks: list[Check] = []
    settings = _try("settings", lambda: _settings(folder))
    checks.append(settings)
    if settings.ok:
        home = Home(folder=folder)
        config = home.config()
        checks += [_try(name, look) for name, look in _looks(home, config)]
    checks.append(_try("versions", lambda: _versions(lock)))
    checks.append(_try("files", _files))
    checks.append(_try("disk", lambda: _disk(folder)))
    return tuple(checks)


def _looks(home: Home, config: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "keys", lambda: _keys(home.folder)
    yield "roster", lambda: _roster(home, config)
    yield "certificates", lambda: _certificates(config)
    yield "orchestrator", lambda: _orchestrator(home, config)
    if config.role not in ("keyholder", "helper"):
        yield "port", lambda: _port(home.folder, config)
    if config.role == "datasite":
        yield "datasets", lambda: _datasets(home)
        yield "policy", lambda: _policy(home.folder)
        yield "sandbox", lambda: _sandbox(home.folder)
        yield "plain-jobs", lambda: _plain_jobs(home.folder)
    yield "chains", lambda: _chains(home, config)
    yield "times", lambda: _times(home.folder)
    yield "standing", lambda: _standing(home.folder)


def _try(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name=name, ok=True, found=look())
    except _Failed as failed:
        return Check(name=name, ok=False, found=failed.found, advice=failed.advice)
    except TesseraError as error:
        return Check(name=name, ok=False, found=str(error))
    except (OSError, ValueError) as error:
        return Check(name=name, ok=False, found=f"could not be read: {type(error).__name__}", advice="check the folder")


def _settings(folder: Path) -> str:
    config = Home(folder=folder).config()
    return f"{config.role} {config.name} of {config.institution}"


def _keys(folder: Path) -> str:
    path = folder / "identity.pem"
    if not path.exists():
        raise _Failed("identity.pem is missing", "restore it from the backup; a new key needs a new roster everywhere")
    if folder.stat().st_mode & 0o077:
        raise _Failed("the folder is open to other users", f"chmod 700 {folder}")
    for name in _SECRETS:
        secret = folder / name
        if secret.exists() and secret.stat().st_mode & (0o077 if secret.is_dir() or name.endswith(".pem") else 0o022):
            raise _Failed(
                f"{name} is open to other users ({stat.filemode(secret.stat().st_mode)})", f"chmod go= {secret}"
            )
    if path.stat().st_uid != os.geteuid():
        raise _Failed("identity.pem belongs to another user", "run as the user who owns the folder")
    return f"fingerprint {fingerprint(Identity.load_or_create(path).public_key)}"


def _roster(home: Home, config: Config) -> str:
    roster = home.roster()
    own = roster.by_name(config.name)
    key = home.folder / "identity.pem"
    if not key.exists() or own.public_key != Identity.load_or_create(key).public_key:
        raise _Failed("the roster lists this role under another key", "exchange public keys again (docs/deploy.md)")
    places = {
        "orchestrator": (roster.orchestrator,),
        "keyholder": (roster.keyholder,),
        "helper": roster.helpers,
        "datasite": roster.sites,
    }
    if own not in places[config.role]:
        raise _Failed(f"the roster does not list {config.name} as {config.role}", "correct the roster or the settings")
    if is_unconfirmed(home):
        raise _Failed(
            "nobody here has compared the roster that came with the admission; no study is served",
            "compare the fingerprints by telephone, then: tessera confirm-roster --by NAME",
        )
    return f"{len(roster.sites)} hospitals, orchestrator {roster.orchestrator.name}, keyholder {roster.keyholder.name}"


def _datasets(home: Home) -> str:
    """Open every file of the newest versions, and say what lies among them and is no dataset."""
    found = home.datasets()
    for folder in found:
        name = f"{folder.parent.name}/{folder.name}"
        for part in ("schema.json", "private", "mock"):
            if not (folder / part).exists():
                raise _Failed(f"{name} has no {part}", "put it back from the backup, or ingest the tables again")
        for file in (folder / "schema.json", *(folder / "private").iterdir(), *(folder / "mock").iterdir()):
            with file.open("rb"):
                pass
    odd = [str(path.relative_to(home.folder)) for path in home.odd_datasets()]
    beside = f"; not read, since versions are called v1, v2 and so on: {', '.join(odd[:5])}" if odd else ""
    names = ", ".join(f"{folder.parent.name} {folder.name}" for folder in found)
    return f"{names or 'none yet: tessera datasite ingest'}{beside}"


def _orchestrator(home: Home, config: Config) -> str:
    url = orchestrator_url(home)
    try:
        verify = trust_of(home) or (client_context(Path(config.ca)) if config.ca else machine_context())
        options: dict[str, Any] = {"timeout": _ANSWER_SECONDS, "trust_env": False, "verify": verify, "headers": PLAIN}
        if config.proxy and config.role != "orchestrator":
            options["proxy"] = checked_proxy(config.proxy)
        with httpx.stream("GET", f"{url}/healthz", **options) as answer:  # its head is enough
            pass
        there = parsedate_to_datetime(answer.headers["date"])
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fault = certificate_fault(error)
        if fault:
            raise _Failed(f"the certificate of {url} does not hold: {fault}", _CERTIFICATES) from error
        raise _Failed(
            f"{url} does not answer ({type(error).__name__})", "start the orchestrator or correct its address"
        ) from error
    except (KeyError, ValueError, TypeError) as error:
        raise _Failed(f"{url} says no time", "is this the orchestrator's address?") from error
    apart = abs((datetime.now(UTC) - there.astimezone(UTC)).total_seconds())
    if apart > CLOCK_SECONDS:
        raise _Failed(
            f"this clock is {apart:.0f} s apart from the orchestrator's", "set the clock by NTP; tokens hold for 60 s"
        )
    return f"{url} answers, and its clock is within {max(apart, 1.0):.0f} s of this one"


def _certificates(config: Config) -> str:
    """Name every certificate that this role's settings name, and when it ends; 30 days before, that is a fault."""
    ends = []
    for what, place in (("this server's", config.tls_certificate), ("the trusted", config.ca)):
        for found in x509.load_pem_x509_certificates(Path(place).read_bytes()) if place else ():
            name = f"{what} certificate in {Path(place).name} ({found.subject.rfc4514_string()[:80]})"
            end, left = found.not_valid_after_utc, found.not_valid_after_utc - datetime.now(UTC)
            if left < timedelta(days=SOON_DAYS):
                told = "has expired on" if left <= timedelta(0) else "ends on"
                raise _Failed(f"{name} {told} {end:%Y-%m-%d}", _RENEWAL)
            ends.append(f"{name} ends on {end:%Y-%m-%d}, in {left.days} days")
    return "; ".join(ends) or "none are used"


_RENEWAL = (
    "restart the role: a start renews what an authority of Tessera's made; any other is for its owner: renew it and "
    "restart the role (docs/deploy.md)"
)
_CERTIFICATES = (
    "renew the orchestrator's certificate, or correct its names or this role's ca in config.json (docs/deploy.md); "
    "only where it is not valid yet, compare this machine's clock"
)


def certificate_fault(error: BaseException) -> str:
    """Return what is wrong with a server's certificate if that is why a connection failed, else nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return ""


def _times(folder: Path) -> str:
    """Compare the newest entries with the clock: whatever it says, no role goes back behind them."""
    clock = datetime.now(UTC)
    for chain in verify_folder(folder).chains:
        newest = datetime.fromisoformat(chain.last) if chain.last else clock
        if newest - clock > timedelta(seconds=CLOCK_SECONDS):
            raise _Failed(
                f"{chain.file} has an entry of {newest:%Y-%m-%d %H:%M}, {_span(newest - clock)} ahead of this clock",
                "set the clock by NTP; if it is right now, it was set forward once: what expires before "
                f"{newest:%Y-%m-%d %H:%M} counts as expired here, so propose studies with a later expiry",
            )
    return "no entry is ahead of the clock"


def _span(apart: timedelta) -> str:
    return f"{apart.days} days" if apart.days else f"{apart.seconds // 60} minutes"


def _standing(folder: Path) -> str:
    places = [path for path in (folder / GAP, folder / "store" / GAP) if path.exists()]
    if not places:
        return "nothing that was shown to others is known to be missing"
    raise _Failed(str(json.loads(places[0].read_bytes())["reason"]), "see docs/survival.md before you import anything")


def _versions(lock: Path | None) -> str:
    wrong = [line for line in _demanded() if line]
    if lock is not None:
        wrong += [line for line in _locked(lock) if line]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise _Failed("; ".join(wrong[:3]) + more, "install the locked versions again")
    return "as the lock file says" if lock is not None else "as the distribution demands; no lock file given"


def _files() -> str:
    found = installed_files()
    if found.changed:
        more = f" and {len(found.changed) - _NAMED_FILES} more" if len(found.changed) > _NAMED_FILES else ""
        raise _Failed(
            f"not as installed: {', '.join(found.changed[:_NAMED_FILES])}{more}",
            "make the environment anew (make setup, or the image); no study approved elsewhere runs with these files",
        )
    return f"as installed; hash {found.files_hash}"


def _demanded() -> Iterator[str]:
    for text in importlib.metadata.requires(DISTRIBUTION) or []:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            yield _compared(wanted, missing_is_wrong=True)


def _locked(lock: Path) -> Iterator[str]:
    for line in lock.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text:
            try:
                yield _compared(Requirement(text), missing_is_wrong=False)
            except InvalidRequirement as error:
                raise _Failed(f"{lock.name}: not a list of name==version lines", "give the lock file") from error


def _compared(wanted: Requirement, *, missing_is_wrong: bool) -> str:
    try:
        here = importlib.metadata.version(canonicalize_name(wanted.name))
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted.name} is missing" if missing_is_wrong else ""
    fits = wanted.specifier.contains(here, prereleases=True)
    return "" if fits else f"{wanted.name} {here} instead of {wanted.specifier}"


def _port(folder: Path, config: Config) -> str:
    owner = running(folder)
    if owner is not None:
        return f"held by this role itself (process {owner})"
    if config.port == 0:
        return "any free one"
    try:
        with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((config.host, config.port))
    except OSError as error:
        advice = "end the other program or choose another port"
        raise _Failed(f"{config.host}:{config.port} cannot be listened on", advice) from error
    return f"{config.host}:{config.port} is free"


def running(folder: Path) -> int | None:
    """Return the process id of the role that runs on this folder, or None."""
    try:
        process_id = int(json.loads((folder / "address.json").read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return process_id if psutil.pid_exists(process_id) else None


def _disk(folder: Path) -> str:
    place = folder if folder.exists() else folder.absolute().parent
    free = shutil.disk_usage(place).free
    if free < ENOUGH_DISK_BYTES:
        raise _Failed(f"{free / 1024**3:.1f} GiB free", f"keep at least {ENOUGH_DISK_BYTES // 1024**3} GiB free")
    return f"{free / 1024**3:.1f} GiB free"


def _policy(folder: Path) -> str:
    policy = Policy.load(folder / "policy.toml")
    if policy.noise.allow_public_seed or policy.noise.allow_infinite_epsilon:
        return f"readable, but ALLOWS NO PRIVACY (public seed or infinite epsilon); {policy.policy_hash[:16]}"
    return f"epsilon at most {policy.budget.epsilon_cap:g} at delta {policy.budget.delta:g}; {policy.policy_hash[:16]}"


def _plain_jobs(folder: Path) -> str:
    layers, limits = available_layers(), Policy.load(folder / "policy.toml").sandbox
    missing = [layer for layer in script_layers(limits) if not layers[layer]]
    if missing:
        return (
            f"plain PySyft jobs do NOT run here: this machine lacks {', '.join(missing)} (studies do run); allow "
            "unprivileged user namespaces, or accept with sandbox.jobs_may_measure that jobs see sizes of files"
        )
    if not layers["disk"]:
        return "plain PySyft jobs run, and CAN MEASURE the private part (sandbox.jobs_may_measure)"
    return "plain PySyft jobs run on mock data, and see nothing of the home"


def _sandbox(folder: Path) -> str:
    layers = available_layers()
    missing = [layer for layer in Policy.load(folder / "policy.toml").sandbox.minimum_layers if not layers[layer]]
    if missing:
        advice = "use a kernel and container that offer it, or let the owner change minimum_layers"
        if "landlock" in missing:
            advice = _LANDLOCK
        raise _Failed(f"the policy demands {', '.join(missing)}, which this machine does not offer", advice)
    absent = [layer for layer, on in layers.items() if not on]
    return "all layers" if not absent else f"all demanded layers; this machine lacks {', '.join(absent)}"


_LANDLOCK = (
    "run Linux 5.13 or newer with landlock in /sys/kernel/security/lsm (boot with lsm=landlock,... to add it); without "
    "it workers could read the whole home, so an owner who drops it from minimum_layers needs a machine of their own "
    "for the hospital's role"
)


def _chains(home: Home, config: Config) -> str:
    if not any((home.folder / file).exists() for file in FILES.values()):
        return "none yet: the role has not run"
    key = home.roster().by_name(config.name).public_key
    found = verify_folder(home.folder, public_key=key, name=config.name)
    if not found.holds:
        first = found.findings[0]
        raise _Failed(
            f"{first.file}: {first.message}", "do not start this role; compare with a backup (tessera verify)"
        )
    return ", ".join(f"{chain.file}: {chain.entries} entries" for chain in found.chains)
