"""syft's own notes and files on disk, whole or not at all.

syft 0.10 writes a note of every event and then the event's file, each in place. A full disk or a killed process leaves
a note that cannot be read, which ends every later start, or a note without its file, which reads as a deletion. Here a
write replaces the old file in one step, and a file that its note knows and the folder lacks is written again at start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from syft.sync.sync.caches.cache_file_writer_connection import FSFileConnection

from datasites.files import write_atomically

_CONNECTIONS = ("events_messages_connection", "events_connection", "file_connection")


class DurableFiles(FSFileConnection):  # type: ignore[misc]  # syft ships no types
    """A folder of syft's in which no torn file is ever seen."""

    @classmethod
    def of(cls, plain: FSFileConnection) -> DurableFiles:
        """Return the same folder with whole writes."""
        return cls(base_dir=plain.base_dir, dtype=plain.dtype)

    def write_file(self, path: str, content: Any) -> None:
        """Write one file; what is unfinished lies beside the folder, where syft does not look."""
        write_atomically(self._resolve_full_path(path), _as_bytes(content), unfinished_in=Path(self.base_dir).parent)


def make_durable(cache: Any) -> None:
    """Let a cache of syft's write its notes and files whole."""
    for name in _CONNECTIONS:
        if isinstance(plain := getattr(cache, name, None), FSFileConnection):
            setattr(cache, name, DurableFiles.of(plain))


def restore_missing(cache: Any) -> None:
    """Write again what the notes of a data owner know and the folder lacks."""
    newest: dict[str, Any] = {}
    for message in sorted(cache.events_messages_connection.get_all(), key=lambda m: m.timestamp):
        for event in message.events:
            newest[str(event.path_in_datasite)] = None if event.is_deleted else event.content
    for path, content in newest.items():
        if content is not None and not (Path(cache.file_connection.base_dir) / path).exists():
            cache.file_connection.write_file(path, content)


def _as_bytes(content: Any) -> bytes:
    if isinstance(content, BaseModel):
        return content.model_dump_json().encode()
    return content.encode() if isinstance(content, str) else bytes(content)
