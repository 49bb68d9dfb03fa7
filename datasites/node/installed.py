"""The files of installed packages: what lies there, compared with what their RECORDs promised at installation.

A version says which release a package claims to be. Only its files say what will run: the same version with one changed
line is another program. So the hash that an approval binds covers the content of every file (:func:`survey`).

    survey(["numpy"])   # hash of numpy's files; changed files and added modules, by name

A file is read once: until its size, times or place change, the result of an earlier look is kept beside the environment
(or in the role's folder). Who can write there can also change Python itself, which no look from within would notice.

Not covered: Python and its standard library, the operating system, and cached byte code (``__pycache__``), which Python
takes for a source file of the same size and time. The digest of the image covers those (docs/deploy.md).
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import os
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

_CACHE = ".tessera-files.json"
_VERSION = 1
_IMPORTABLE = (".py", ".so", ".pth", ".pyc")
_SETTLED_NS = 2_000_000_000
"""A result is kept if nothing changed so shortly before: two changes within one tick of a file system look like one."""

_OF_THE_INSTALLER = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"})
"""What pip writes beside a package: it says how, not what, was installed."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What :func:`survey` found.

    ``packages`` has the SHA-256 (hexadecimal) over path and content of every file, by package; ``files_hash`` is over
    them all and over modules that belong to no package. ``changed`` names these modules, files with another content
    than they were installed with, and missing ones.
    """

    files_hash: str
    packages: Mapping[str, str]
    changed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Entry:
    path: str  # below its folder, as RECORD writes it
    promised: str  # "sha256=..." or empty


def survey(packages: Iterable[str], *, cache: Path | None = None) -> Installed:
    """Compare the files of ``packages`` with their RECORDs.

    The hash is the same wherever the same wheels were installed and nothing was changed since: scripts, whose first
    line names the environment, and what the installer writes about itself do not count.

    Args:
        packages: normalised names of installed distributions; others are passed over.
        cache: the file that keeps the result; by default beside the environment or, where that cannot be written, in
            the role's folder (``TESSERA_HOME``).
    """
    began = time.time_ns()
    names = sorted({str(canonicalize_name(name)) for name in packages})
    looked = {name: _distribution(name) for name in names}
    chosen = {name: one for name, one in looked.items() if one is not None}
    seal = hashlib.sha256(repr([_VERSION, list(chosen)]).encode())
    walked = {root: _walk(root, seal) for root in sorted({_root(one) for one in chosen.values()})}
    place = cache if cache is not None else _usual_cache()
    found = _kept(place, seal.hexdigest())
    if found is None:
        found = _look(chosen, {root: paths for root, (paths, _) in walked.items()})
        if began - max((newest for _, newest in walked.values()), default=0) > _SETTLED_NS:
            _keep(place, seal.hexdigest(), found)
    return found


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _root(distribution: importlib.metadata.Distribution) -> str:
    return os.path.realpath(str(distribution.locate_file("")))


def _walk(root: str, seal: hashlib._Hash) -> tuple[set[str], int]:
    """Return every file below ``root`` but cached byte code, and the newest change (nanoseconds since 1970).

    Size, times and place of each file go into ``seal``.
    """
    found: set[str] = set()
    newest = 0
    waiting = [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            lines = []
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        waiting.append(entry.path)
                elif entry.name != _CACHE:
                    try:
                        at = entry.stat()
                    except FileNotFoundError:
                        continue  # a link to nowhere, or just removed: missing
                    lines.append(f"{entry.path}\0{at.st_size} {at.st_mtime_ns} {at.st_ctime_ns} {at.st_ino}\n")
                    found.add(entry.path)
                    newest = max(newest, at.st_ctime_ns)
        seal.update("".join(lines).encode("utf-8", "surrogateescape"))
    return found, newest


def _look(chosen: Mapping[str, importlib.metadata.Distribution], seen: dict[str, set[str]]) -> Installed:
    packages: dict[str, str] = {}
    changed: list[str] = []
    for name, one in chosen.items():
        root = _root(one)
        digest = hashlib.sha256()
        for entry in _entries(one):
            there = f"{root}/{entry.path}"
            content = _content(there) if there in seen[root] else "missing"
            digest.update(f"{entry.path}\0{content}\n".encode("utf-8", "surrogateescape"))
            if content != entry.promised:
                changed.append(f"{entry.path} ({'missing' if content == 'missing' else 'changed'})")
        packages[name] = digest.hexdigest()
    everything = hashlib.sha256("\n".join(f"{name} {value}" for name, value in sorted(packages.items())).encode())
    for root, path in _strays(seen):
        everything.update(f"{path}\0{_content(f'{root}/{path}')}\n".encode("utf-8", "surrogateescape"))
        changed.append(f"{path} (of no package)")
    return Installed(files_hash=everything.hexdigest(), packages=packages, changed=tuple(changed))


def _entries(distribution: importlib.metadata.Distribution) -> Iterator[_Entry]:
    """Yield the files that RECORD promises with a hash, in order of their paths; nothing outside its own folder."""
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    for path, promised, *_ in sorted(row for row in rows if len(row) == 3):
        outside = path.startswith(("/", "..")) or path.rsplit("/", 1)[-1] in _OF_THE_INSTALLER
        if promised.startswith("sha256=") and not outside:
            yield _Entry(path=path, promised=promised)


def _strays(seen: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return (folder, path) of what Python could import from there although no installed package brought it."""
    claimed: set[str] = set()
    for one in importlib.metadata.distributions():
        root = _root(one)
        if root in seen:
            claimed.update(
                f"{root}/{row[0]}" for row in csv.reader((one.read_text("RECORD") or "").splitlines()) if row
            )
    return sorted(
        (root, path.removeprefix(f"{root}/"))
        for root, files in seen.items()
        for path in files - claimed
        if path.endswith(_IMPORTABLE)
    )


def _content(path: str) -> str:
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return "sha256=" + urlsafe_b64encode(digest).rstrip(b"=").decode()


def _usual_cache() -> Path | None:
    for folder in (sys.prefix, os.environ.get("TESSERA_HOME", "")):
        if folder and os.access(folder, os.W_OK):
            return Path(folder) / _CACHE
    return None


def _kept(place: Path | None, seal: str) -> Installed | None:
    try:
        kept = json.loads(place.read_bytes()) if place else {}
        if kept.get("seal") == seal:
            return Installed(
                files_hash=str(kept["files_hash"]),
                packages={str(name): str(value) for name, value in kept["packages"].items()},
                changed=tuple(map(str, kept["changed"])),
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no result that can be used: look again
    return None


def _keep(place: Path | None, seal: str, found: Installed) -> None:
    if place is None:
        return
    temporary = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump({"seal": seal, **asdict(found)}, file)
        temporary.replace(place)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full or read-only disk costs the next process the time to look again
