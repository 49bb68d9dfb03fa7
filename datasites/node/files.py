"""Files that are there whole or not at all, and the room for them."""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasites.study.text import visible
from privacy.errors import InvalidInput, Refused
from privacy.sentences import say

LEAST_BYTES = 64 * 1024**2
"""With less room than this left nothing new is begun."""

_UNFINISHED = ".new"


def write_atomically(
    path: Path, data: bytes, *, mode: int = 0o600, unfinished_in: Path | None = None, name_follows: bool = False
) -> None:
    """Write ``data`` at ``path`` so that a crash leaves the old file or the new one, never a torn one.

    Args:
        path: where; its folder is made.
        data: the whole content.
        mode: the new file's permission bits.
        unfinished_in: another folder of the same file system for what is not finished; default: the file's own.
        name_follows: the caller makes the folder's names durable itself, once for several files, or does not mind that
            a loss of power may bring back the old file.
    """
    make_folder(path.parent)
    temporary = (unfinished_in or path.parent) / f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the process's umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if not name_follows:
        sync_folder(path.parent)


def state_of(path: Path) -> tuple[int, ...]:
    """Return what is another one once a file was replaced or written to: what was read from it may be used till then.

    Raises:
        FileNotFoundError: there is none.
    """
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def text_of(path: Path) -> str:
    """Return the text of a file that people edit, without the mark that some editors put before UTF-8.

    Raises:
        InvalidInput: the file is missing, a folder, unreadable, or no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(say("expected UTF-8 text in {name}, and could not read it", name=path.name)) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; each new name is durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shred(path: Path) -> None:
    """Overwrite a file with noise, remove it, and make both durable: for keys that must not come back."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_folder(path.parent)


def remove_unfinished(folder: Path, *, older_than_seconds: float = 60.0) -> None:
    """Remove what a crash left of files that were being written below ``folder``; for the start of a role."""
    latest = time.time() - older_than_seconds
    for path in folder.rglob(f".*{_UNFINISHED}"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mtime < latest:
            path.unlink(missing_ok=True)


HOLDER = "process.lock"
"""The file by whose lock a process holds a role's folder; it says which process that is."""
_HOLDER_BYTES = 1000


@contextmanager
def only_holder(folder: Path, who: str) -> Iterator[None]:
    """Hold a folder so that no second process works in it; the system lets go when this process ends, however it ends.

    Args:
        folder: an existing one.
        who: what runs there, for the one that comes second.

    Raises:
        Refused: another process holds it; the message says which.
        InvalidInput: the file system cannot lock, or gives no file.
    """
    path = folder / HOLDER
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInput(f"expected to write {path}, but {os.strerror(error.errno or 0).lower()}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        if error.errno == errno.EWOULDBLOCK:
            raise Refused(f"{who} runs already on {folder}: {holder}; end that process first") from error
        raise InvalidInput(
            f"expected a file system that can lock {path}, but {os.strerror(error.errno or 0).lower()}; put the "
            "folder on a local disk"
        ) from error
    try:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode())
        except OSError as error:  # a full disk takes the name of the holder, and not the lock
            if not is_out_of_room(error):
                raise
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, _HOLDER_BYTES, 0))
        return visible(f"process {found['pid']} on {found['host']}, since {found['since']}")
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not written its name"


def is_out_of_room(error: BaseException) -> bool:
    """Tell whether an error says that the disk, or its owner's share of it, is full."""
    cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps what the database said
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(cause, sqlite3.OperationalError) and "is full" in str(cause)


def lack_of_room(folder: Path) -> str:
    """Return a sentence when there is hardly any room left where ``folder`` lies, else nothing."""
    free = shutil.disk_usage(folder).free
    if free >= LEAST_BYTES:
        return ""
    return f"the disk is nearly full ({free // 1024**2} MiB free, {LEAST_BYTES // 1024**2} needed): make room there"


def require_room(folder: Path) -> None:
    """Raise OSError (no space left) where there is hardly any room, before anything is begun that would need some."""
    lack = lack_of_room(folder)
    if lack:
        raise OSError(errno.ENOSPC, lack)
