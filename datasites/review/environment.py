"""The software that will run, as comparable facts: installed versions, their files, and our own code.

The same installation gives the same :class:`~datasites.study.proposal.Environment`, so the orchestrator writes it into
a proposal and every datasite compares it with its own before every round. The values are those of the running
process: they are computed once, from what it was started with.

Under the same release of Tessera everything must be the same, to the last byte. Between releases at most one minor
version apart, what touches data must be the same: the rooms and packages whose code reads records, trains, clips, adds
noise, charges or encrypts. The rest may differ, such as the portal, the reports and the web server, and people are
shown how. So a patch of the portal needs no approval anew, and a patch of the training does. What is new counts as
touching data until it is named among the rest (:data:`REST_OF_CODE`, :data:`REST_OF_PACKAGES`).
"""

from __future__ import annotations

import email
import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from datasites.node.installed import Installed, survey
from datasites.node.plugins import DISTRIBUTION, PACKAGES, plugged_in
from datasites.study.proposal import Environment
from datasites.study.protocol import understands
from privacy.canonical import canonical_hash
from privacy.errors import InvalidInput
from privacy.sentences import say

REST_OF_CODE = (
    "datasites/helper",
    "datasites/hospital/cli.py",
    "datasites/hospital/commands",
    "datasites/hospital/facts.py",
    "datasites/hospital/people",
    "datasites/hospital/reports.py",
    "datasites/hospital/study_reports.py",
    "datasites/hospital/watch.py",
    "datasites/keyholder",
    "datasites/language",
    "datasites/node",
    "datasites/portal",
    "datasites/report",
    "orchestrator",
    "tessera",
)
"""Files and folders of ours that touch no record and no update before it is encrypted."""
REST_OF_PACKAGES = frozenset(
    {"argon2-cffi", "authlib", "babel", "certifi", "fastapi", "fonttools", "httpx", "idna", "jinja2", "joserfc"}
    | {"manimgx-fonts", "manimgx-fonts-cjk", "matplotlib", "precis-i18n", "prometheus-client", "psutil", "pygments"}
    | {"pyhanko", "python-multipart", "rich", "structlog", "tenacity", "tomlkit", "typer", "typst", "uvicorn"}
    | {"webauthn"}
)
"""Direct dependencies of ours that touch none either."""

_SOURCE_SUFFIXES = frozenset({".py", ".html", ".css", ".js", ".json", ".typ", ".toml", ".po"})


@lru_cache(maxsize=1)
def current_environment() -> Environment:
    """Return the environment of this process.

    ``packages`` has the versions of the direct dependencies; ``lock_hash`` covers those of all dependencies of
    dependencies as well, ``files_hash`` the content of all their files (:mod:`datasites.node.installed`),
    ``code_hash`` every source file of our own packages.

    Raises:
        InvalidInput: the distribution is not installed, so its dependencies cannot be known.
    """
    needs = _needs()
    own = needs.of(DISTRIBUTION)
    if own is None:
        raise InvalidInput(say("expected {distribution} to be installed; install it first", distribution=DISTRIBUTION))
    direct = own[1]
    everything = needs.closure(direct)
    data = needs.closure(direct - REST_OF_PACKAGES)
    touching = {name: version for name, version in data.items() if name not in REST_OF_PACKAGES}
    packages = {name: everything[name] for name in sorted(direct) if name in everything}
    files = installed_files()
    return Environment(
        lock_hash=canonical_hash(everything),
        code_hash=code_hash(),
        packages=packages,
        files_hash=files.files_hash,
        release=importlib.metadata.version(DISTRIBUTION),
        data_code=_hash_of_code(besides=REST_OF_CODE),
        data_lock=canonical_hash(touching),
        data_files=canonical_hash({name: files.packages[name] for name in touching if name in files.packages}),
    )


def data_hash(environment: Environment) -> str:
    """Return one SHA-256 over the part of an environment that touches data."""
    return canonical_hash({name: getattr(environment, name) for name in ("data_code", "data_lock", "data_files")})


@lru_cache(maxsize=1)
def installed_files() -> Installed:
    """Return what lies there of all dependencies, compared with what was installed."""
    return survey(dependencies())


def dependencies(distribution: str = DISTRIBUTION) -> set[str]:
    """Return the normalised names of what is installed for ``distribution``: its needs, and itself if not ours."""
    needs = _needs()
    if distribution != DISTRIBUTION:
        return set(needs.closure({distribution}))
    own = needs.of(DISTRIBUTION)
    if own is None:
        raise importlib.metadata.PackageNotFoundError(DISTRIBUTION)
    return set(needs.closure(own[1]))


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Return the SHA-256 over the path and content of every source file, and over what is plugged in."""
    return _hash_of_code(begin="\n".join(plugged_in()))


def _hash_of_code(*, begin: str = "", besides: tuple[str, ...] = ()) -> str:
    digest = hashlib.sha256(begin.encode())
    for package in PACKAGES:
        root = _folder(package)
        for path in sorted(p for p in root.rglob("*") if p.suffix in _SOURCE_SUFFIXES):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            if not any(name == rest or name.startswith(f"{rest}/") for rest in besides):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How the software here differs from what was approved, one readable line each.

    Nothing runs while anything is ``refused``. What is ``allowed`` may differ, and people are shown it.
    """

    refused: tuple[str, ...]
    allowed: tuple[str, ...] = ()


def compare(approved: Environment, actual: Environment) -> Compared:
    """Return how an environment differs from the approved one, and what of it keeps rounds from running."""
    if not approved.release or approved.release == actual.release:
        return Compared(refused=tuple(differences(approved, actual)))
    expected, here = approved.release, actual.release
    releases = say("Tessera {expected} was approved, {actual} is here", expected=expected, actual=here)
    if not understands(expected, here):
        return Compared(refused=(say("{releases}: more than one minor version apart", releases=releases),))
    versions = (approved.packages, actual.packages)
    touching, rest = _packages(*versions, rest=False), _packages(*versions, rest=True)
    if approved.data_code != actual.data_code:
        touching.append(say("the part of Tessera's source code that touches data is not the one approved"))
    if approved.data_lock != actual.data_lock:
        touching.append(say("the versions of all packages that touch data together are not those approved"))
    elif approved.data_files != actual.data_files:
        touching.append(say("the packages that touch data have the approved versions, but not the approved files"))
    return Compared(refused=tuple(touching), allowed=(releases, *rest))


def _packages(expected: Mapping[str, str], actual: Mapping[str, str], *, rest: bool) -> list[str]:
    return [
        say(
            "{package}: {expected} was approved, {actual} is here",
            package=name,
            expected=expected.get(name) or say("none"),
            actual=actual.get(name) or say("none"),
        )
        for name in sorted(set(expected) | set(actual))
        if expected.get(name) != actual.get(name) and (name in REST_OF_PACKAGES) == rest
    ]


def differences(expected: Environment, actual: Environment) -> list[str]:
    """Return everything that differs between two environments, one readable line each.

    Proposals from before files were covered have no ``files_hash``; their code is not that of today either.
    """
    found: list[str] = sorted(
        _packages(expected.packages, actual.packages, rest=False)
        + _packages(expected.packages, actual.packages, rest=True)
    )
    if expected.lock_hash != actual.lock_hash:
        found.append(say("the installed versions of all dependencies together are not those approved"))
    elif expected.files_hash != actual.files_hash:
        found.append(
            say(
                "the dependencies have the approved versions, but not the approved files (another platform's packages, "
                "or a changed file: `tessera doctor` names it)"
            )
        )
    if expected.code_hash != actual.code_hash:
        found.append(say("Tessera's own source code is not the version approved"))
    return found


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InvalidInput(
            say(
                "expected the package {package} to be installed; install {distribution} again",
                package=package,
                distribution=DISTRIBUTION,
            )
        )
    return Path(spec.origin).parent


class _Needs:
    """Version and needs of installed distributions; each one's metadata are read once, and only their head."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, frozenset[str]] | None] = {}

    def of(self, name: str) -> tuple[str, frozenset[str]] | None:
        """Return version and normalised names of what a distribution needs; None where it is not installed."""
        if name not in self._found:
            try:
                self._found[name] = self._read(importlib.metadata.distribution(name))
            except importlib.metadata.PackageNotFoundError:
                self._found[name] = None  # optional on this platform
        return self._found[name]

    def closure(self, direct: Iterable[str]) -> dict[str, str]:
        """Return the versions of these distributions and of everything that they need."""
        versions: dict[str, str] = {}
        waiting = sorted(direct)
        while waiting:
            name = waiting.pop()
            found = None if name in versions else self.of(name)
            if found is not None:
                versions[name] = found[0]
                waiting.extend(found[1] - set(versions))
        return versions

    def _read(self, distribution: importlib.metadata.Distribution) -> tuple[str, frozenset[str]]:
        text = distribution.read_text("METADATA")
        if text is None:  # an old form, which the library knows
            return distribution.version, _names(distribution.requires or [])
        head = email.message_from_string(text.replace("\r\n", "\n").partition("\n\n")[0])  # the body is a README
        return str(head["Version"]), _names(head.get_all("Requires-Dist", []))


@lru_cache(maxsize=1)
def _needs() -> _Needs:
    """Return what was read in this process, whose software does not change while it runs."""
    return _Needs()


_EXTRA_ALONE = re.compile(r"""[^;]+;\s*extra\s*==\s*(["'])[^"']+\1\s*""")
"""A need of an extra and nothing else: nine of ten lines, which need no parser."""


def _names(requirements: Iterable[str]) -> frozenset[str]:
    parsed = (Requirement(line) for line in requirements if not _EXTRA_ALONE.fullmatch(line))
    return frozenset(canonicalize_name(r.name) for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""}))
