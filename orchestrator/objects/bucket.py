"""Blobs in an S3-compatible store, with the orchestrator's folder as their cache.

Only blobs go there: models, round keys and sums, which participants may fetch anyway. Single updates never do: nobody
but the orchestrator may hold one (docs/encryption.md). Whoever runs the store can lose a blob, and never change one:
what comes back must have the hash that names it.

    STORE_URL=s3://bucket/prefix AWS_ENDPOINT_URL=https://s3.example AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...

Needs the extra ``s3`` (obstore).
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datasites.node.files import write_atomically
from privacy.errors import InvalidInput, Tampered

KEPT_BYTES = 2 * 1024**3
"""Local copies beyond this are removed, the oldest first."""
_YOUNG_SECONDS = 600.0
_SECONDS = "30s"


class Objects:
    """The bucket behind a folder of blobs.

    Args:
        folder: of the local copies.
        url: ``s3://bucket/prefix``.
        environment: where keys and endpoint stand.
        kept_bytes: how much of it may lie in the folder.

    Raises:
        InvalidInput: no such address, the extra is not installed, or the bucket cannot be written and read.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        environment: Mapping[str, str] = os.environ,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.hostname:
            raise InvalidInput(f"expected an address such as s3://bucket/prefix in STORE_URL, got {url[:80]!r}")
        try:
            from obstore import store as stores
        except ImportError as error:
            raise InvalidInput("STORE_URL names a store, but: pip install 'tessera-fl[s3]' first") from error
        self._folder, self._kept_bytes = folder, kept_bytes
        self._lock = threading.Lock()
        self._taken = -1
        endpoint = environment.get("AWS_ENDPOINT_URL", "")
        settings: Any = _settings(environment, endpoint)
        self._store: Any = stores.S3Store(
            parts.hostname,
            prefix=parts.path.strip("/") or None,
            config=settings,
            client_options={"allow_http": endpoint.startswith("http:"), "timeout": _SECONDS},
        )
        self._try()

    def keep(self, path: Path) -> None:
        """Put a durable local blob into the bucket too; nobody is told its hash before.

        Raises:
            OSError: the store does not take it now.
        """
        import obstore

        with _as_oserror("kept"):
            obstore.put(self._store, path.name, path)
        self._trim(path.stat().st_size)

    def fetch(self, path: Path) -> bool:
        """Bring a blob back into the folder; False where the bucket has none either.

        Raises:
            Tampered: it has another hash than its name.
            OSError: the store does not answer now.
        """
        data = self._get(path.name)
        if data is None:
            return False
        if hashlib.sha256(data).hexdigest() != path.name:
            raise Tampered("the object store gave a blob of another hash; restore it there, and ask who changed it")
        write_atomically(path, data)
        self._trim(len(data))
        return True

    def drop(self, name: str) -> None:
        """Remove a blob from the bucket.

        Raises:
            OSError: the store does not answer now.
        """
        import obstore

        with _as_oserror("removed"):
            obstore.delete(self._store, name)

    def size(self, name: str) -> int | None:
        """Return how many bytes a blob has there, None where it is missing."""
        import obstore

        try:
            with _as_oserror("looked at"):
                return int(obstore.head(self._store, name)["size"])
        except FileNotFoundError:
            return None

    def _get(self, name: str) -> bytes | None:
        import obstore

        try:
            with _as_oserror("fetched"):
                return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def _try(self) -> None:
        import obstore

        probe = f".tessera-{os.getpid()}"
        try:
            with _as_oserror("tried"):
                obstore.put(self._store, probe, b"tessera")
                obstore.delete(self._store, probe)
        except OSError as error:
            raise InvalidInput(
                "expected a bucket in STORE_URL that can be written; check the bucket's name, AWS_ENDPOINT_URL and the "
                "keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error

    def _trim(self, added: int) -> None:
        """Remove local copies that are not young, once there are too many of them."""
        with self._lock:
            self._taken = self._taken + added if self._taken >= 0 else sum(size for _, size, _ in self._copies())
            if self._taken <= self._kept_bytes:
                return
            left = 0
            for at, size, path in sorted(self._copies(), reverse=True):
                left += size
                if left > 3 * self._kept_bytes // 4 and time.time() - at > _YOUNG_SECONDS:
                    path.unlink(missing_ok=True)
                    left -= size
            self._taken = left

    def _copies(self) -> list[tuple[float, int, Path]]:
        found = [(path.stat(), path) for path in self._folder.glob("[0-9a-f]*") if len(path.name) == 64]
        return [(status.st_mtime, status.st_size, path) for status, path in found]


def _settings(environment: Mapping[str, str], endpoint: str) -> dict[str, str]:
    named = {
        "access_key_id": environment.get("AWS_ACCESS_KEY_ID", ""),
        "secret_access_key": environment.get("AWS_SECRET_ACCESS_KEY", ""),
        "session_token": environment.get("AWS_SESSION_TOKEN", ""),
        "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", "us-east-1"),
        "endpoint": endpoint,
    }
    return {name: value for name, value in named.items() if value}


class _as_oserror:  # noqa: N801 - a context, read like a function
    """Let what the library raises be an OSError, which every writer of files expects; its text may hold an address."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, FileNotFoundError) or not isinstance(error, Exception):
            return
        raise OSError(errno.EIO, f"the object store could not be reached: a blob was not {self._what}") from error
