"""The software that will run, as comparable facts: installed versions, their files, and our own code.

The same installation gives the same :class:`~datasites.study.proposal.Environment`, so the orchestrator writes it into
a proposal and every datasite compares it with its own before every round. The values are those of the running
process: they are computed once, from what it was started with.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from functools import lru_cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from datasites.node.installed import Installed, survey
from datasites.node.plugins import DISTRIBUTION, PACKAGES, plugged_in
from datasites.study.proposal import Environment
from privacy.canonical import canonical_hash
from privacy.errors import InvalidInput
from privacy.sentences import say

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
    try:
        direct = _requirements(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise InvalidInput(
            say("expected {distribution} to be installed; install it first", distribution=DISTRIBUTION)
        ) from error
    everything = _closure(direct)
    packages = {name: everything[name] for name in sorted(direct) if name in everything}
    return Environment(
        lock_hash=canonical_hash(everything),
        code_hash=code_hash(),
        packages=packages,
        files_hash=installed_files().files_hash,
    )


@lru_cache(maxsize=1)
def installed_files() -> Installed:
    """Return what lies there of all dependencies, compared with what was installed."""
    return survey(dependencies())


def dependencies(distribution: str = DISTRIBUTION) -> set[str]:
    """Return the normalised names of what is installed for ``distribution``: its needs, and itself if not ours."""
    return set(_closure(_requirements(DISTRIBUTION) if distribution == DISTRIBUTION else {distribution}))


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Return the SHA-256 over the path and content of every source file, and over what is plugged in."""
    digest = hashlib.sha256("\n".join(plugged_in()).encode())
    for package in PACKAGES:
        root = _folder(package)
        for path in sorted(p for p in root.rglob("*") if p.suffix in _SOURCE_SUFFIXES):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def differences(expected: Environment, actual: Environment) -> list[str]:
    """Return what differs between two environments, one readable line each.

    Proposals from before files were covered have no ``files_hash``; their code is not that of today either.
    """
    found: list[str] = [
        say(
            "{package}: {expected} was approved, {actual} is here",
            package=name,
            expected=expected.packages.get(name) or say("none"),
            actual=actual.packages.get(name) or say("none"),
        )
        for name in sorted(set(expected.packages) | set(actual.packages))
        if expected.packages.get(name) != actual.packages.get(name)
    ]
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


def _requirements(distribution: str) -> set[str]:
    parsed = (Requirement(line) for line in importlib.metadata.requires(distribution) or [])
    return {canonicalize_name(r.name) for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})}


def _closure(direct: set[str]) -> dict[str, str]:
    versions: dict[str, str] = {}
    waiting = sorted(direct)
    while waiting:
        name = waiting.pop()
        if name in versions:
            continue
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # optional on this platform
        waiting.extend(_requirements(name) - set(versions))
    return versions
