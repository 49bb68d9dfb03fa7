"""One file with everything that a role must remember, and a folder made from it again.

A backup may be taken while the role runs: each SQLite store is copied as of one moment, by SQLite itself. The archive
is a compressed tar whose last member says whose folder it is and gives the hash of every file, so that a damaged or
foreign archive is refused and leaves nothing. It holds the role's key: keep it like the folder itself.

    >>> made = back_up(Home(folder=Path("hospital-a")), Path("hospital-a.tessera"))
    >>> restore(Path("hospital-a.tessera"), Path("/var/lib/tessera/home")).role
    'datasite'
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from datasites.node.files import HOLDER, make_folder, sync_folder
from datasites.node.home import Config, Home, Role
from datasites.study.signing import parse
from privacy.errors import InvalidInput, Tampered

_MANIFEST = "tessera-backup.json"
_MANIFEST_BYTES = 64 * 1024**2
_LEFT_OUT = frozenset({HOLDER, "address.json", "scratch"})
_SQLITE = b"SQLite format 3\x00"
_BESIDE = ("-wal", "-shm", "-journal")
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an archive holds: whose folder, as of when, and every file's SHA-256 by its path."""

    role: Role
    name: str
    made: str
    files: dict[str, str]


def back_up(home: Home, out: Path) -> Manifest:
    """Write an archive of a role's folder, whole or not at all; the role may run meanwhile.

    Args:
        home: the role's.
        out: a file that does not exist yet, outside the folder.

    Raises:
        InvalidInput: no role's folder, or ``out`` exists or lies in it.
    """
    config, target = home.config(), out.absolute()
    if target.exists() or home.folder in target.resolve().parents:
        raise InvalidInput(f"expected a new file outside {home.folder} for the backup, got {out}; choose another name")
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        unfinished, copy = Path(folder, "archive"), Path(folder, "store")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed:
                manifest = _write(packed, home, config, copy)
            raw.flush()
            os.fsync(raw.fileno())
        unfinished.replace(target)
        sync_folder(target.parent)
    return manifest


def restore(archive: Path, folder: Path) -> Manifest:
    """Make a role's folder from an archive; nothing is left where anything is wrong with it.

    Args:
        archive: what :func:`back_up` wrote.
        folder: missing or empty.

    Raises:
        InvalidInput: no archive of ours, or the folder holds something.
        Tampered: a file is not the one that was backed up.
    """
    target = folder.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInput(f"expected a missing or an empty folder, got {folder}; move what is there out of the way")
    make_folder(target.parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        try:
            with gzip.open(archive, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
                manifest = _read(tar, staging)
                while packed.read(_BLOCK):  # to its end, where the checksum stands
                    pass
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile) and error.errno:
                raise
            raise InvalidInput(
                f"expected a backup that `tessera backup` made, could not read {archive.name}"
            ) from error
        if target.exists():
            target.rmdir()
        staging.chmod(0o700)
        staging.replace(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield what belongs into an archive, the top of the folder last.

    The chains lie there: whatever a round leaves in other folders while this goes on, its charge is in the archive too.
    """
    last: list[tuple[str, Path]] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        top = here == folder
        folders[:] = sorted(name for name in folders if not (top and name in _LEFT_OUT))
        for name in sorted(names):
            path = here / name
            temporary = name.startswith(".") and name.endswith(".new")
            beside = any(name.endswith(end) and (here / name.removesuffix(end)).is_file() for end in _BESIDE)
            if (top and name in _LEFT_OUT) or temporary or beside or not path.is_file():
                continue
            if top:
                last.append((name, path))
            else:
                yield path.relative_to(folder).as_posix(), path
    yield from last


def _write(packed: gzip.GzipFile, home: Home, config: Config, copy: Path) -> Manifest:
    """Write every file, and last the list of what was written: a file may be replaced while this goes on."""
    hashes: dict[str, str] = {}
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, path in _files(home.folder):
            try:
                source = _as_of_now(path, copy)
            except FileNotFoundError:  # the role has removed it meanwhile
                continue
            with source:
                status = os.fstat(source.fileno())
                hashed = _Hashed(source)
                tar.addfile(_member(name, status.st_size, path.stat().st_mode & 0o700), hashed)
                hashes[name] = hashed.sha256.hexdigest()
        made = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        manifest = Manifest(role=config.role, name=config.name, made=made, files=hashes)
        text = json.dumps(asdict(manifest), sort_keys=True).encode()
        tar.addfile(_member(_MANIFEST, len(text), 0o600), io.BytesIO(text))
    return manifest


def _as_of_now(path: Path, copy: Path) -> BinaryIO:
    """Open a file, or the copy of a store as of one moment that SQLite makes."""
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            return path.open("rb")
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store, closing(sqlite3.connect(copy)) as to:
        store.backup(to)
    return copy.open("rb")


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.sha256.update(block)
        return block


def _member(name: str, size: int, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode | 0o600
    return member


def _read(tar: tarfile.TarFile, staging: Path) -> Manifest:
    found: dict[str, str] = {}
    manifest = None
    for member in tar:
        parts = PurePosixPath(member.name).parts
        if not member.isfile() or member.name.startswith("/") or {"..", ""} & set(parts) or manifest is not None:
            raise Tampered(f"the backup holds {member.name[:80]!r}, which no backup of ours does; nothing was restored")
        source = tar.extractfile(member)
        if source is None:
            raise Tampered(f"the backup holds no bytes for {member.name[:80]!r}; nothing was restored")
        if member.name == _MANIFEST:
            manifest = parse(Manifest, source.read(_MANIFEST_BYTES))
            continue
        target = staging.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        found[member.name] = _unpacked(source, target, member.mode)
    if manifest is None:
        raise InvalidInput("expected a backup that `tessera backup` made: its list of files is missing")
    differing = sorted(set(found.items()) ^ set(manifest.files.items()))
    if differing:
        raise Tampered(f"{differing[0][0][:80]!r} in the backup is not as it was saved; nothing was restored")
    return manifest


def _unpacked(source: IO[bytes], target: Path, mode: int) -> str:
    found = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600 | (mode & 0o100))
    with os.fdopen(descriptor, "wb") as file:
        while block := source.read(_BLOCK):
            found.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return found.hexdigest()
