"""The part of PySyft's transport that keeps a datasite's own state: event log, checkpoints, rolling state.

Everything lies in the ``own`` box, which nobody else reads, and is encrypted by syft to the owner's own keys.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, PrivateAttr
from syft.sync.checkpoints.checkpoint import (
    CHECKPOINT_FILENAME_PREFIX,
    INCREMENTAL_CHECKPOINT_PREFIX,
    Checkpoint,
    IncrementalCheckpoint,
)
from syft.sync.connections.base_connection import SyftboxPlatformConnection
from syft.sync.events.file_change_event import FileChangeEventsMessageFileName

from datasites.node.letters import Box, Place
from datasites.syft.postbox import Entry, Postbox, file_id_of, place_of

_EVENTS = "events"
_CHECKPOINTS = "checkpoints"
_ROLLING = "rolling-state"
MAX_SUMMARY_BYTES = 64 * 1024**2
_log = logging.getLogger(__name__)


class OwnStorage(SyftboxPlatformConnection):  # type: ignore[misc]  # syft ships no types
    """A postbox, and what a participant keeps in its own part of it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    _postbox: Postbox = PrivateAttr()

    def __init__(self, postbox: Postbox, **fields: Any) -> None:
        super().__init__(**fields)
        self._postbox = postbox

    @property
    def postbox(self) -> Postbox:
        """The mirror and the letters below."""
        return self._postbox

    def download_file(self, file_id: str) -> bytes:
        """Return the content of any letter we may read."""
        return self._postbox.require(place_of(file_id))

    def owner_write_raw_bytes_to_syftbox(self, filename: str, data: bytes) -> str:
        """Append to our event log."""
        return self._keep(_EVENTS, filename, data)

    def owner_download_raw_bytes_by_id(self, file_id: str) -> bytes:
        """Return one entry of our event log."""
        return self.download_file(file_id)

    def owner_get_all_accepted_event_file_ids(self, since_timestamp: float | None = None) -> list[str]:
        """Return the ids of our event log's entries."""
        return [event["file_id"] for event in self._own_events(since_timestamp)]

    def owner_download_all_raw_events_from_syftbox(self) -> list[bytes]:
        """Return our whole event log."""
        return self._download(self._own_events(None))

    def download_raw_events_since_timestamp(self, since_timestamp: float) -> list[bytes]:
        """Return our event log after a moment."""
        return self._download(self._own_events(since_timestamp))

    def get_events_count_since_checkpoint(self, checkpoint_timestamp: float | None) -> int:
        """Count our event log after a moment."""
        return len(self._own_events(checkpoint_timestamp))

    def upload_raw_checkpoint(self, filename: str, data: bytes) -> str:
        """Keep a full checkpoint, and only this one."""
        file_id = self._keep(_CHECKPOINTS, filename, data)
        older = [p for p in self._checkpoints(CHECKPOINT_FILENAME_PREFIX) if p.name != filename]
        self._postbox.remove(older)
        return file_id

    def download_raw_latest_checkpoint(self) -> bytes | None:
        """Return the full checkpoint, or None."""
        dated = [
            (stamp, p.name, p)
            for p in self._checkpoints(CHECKPOINT_FILENAME_PREFIX)
            if (stamp := Checkpoint.filename_to_timestamp(p.name)) is not None
        ]
        return self._postbox.get(max(dated)[2]) if dated else None

    def upload_raw_incremental_checkpoint(self, filename: str, data: bytes) -> str:
        """Keep one incremental checkpoint."""
        return self._keep_if_small(_CHECKPOINTS, filename, data)

    def download_all_raw_incremental_checkpoints(self) -> list[bytes]:
        """Return the incremental checkpoints."""
        return [self._postbox.require(p) for p in self._checkpoints(INCREMENTAL_CHECKPOINT_PREFIX)]

    def get_incremental_checkpoint_count(self) -> int:
        """Count the incremental checkpoints."""
        return len(self._checkpoints(INCREMENTAL_CHECKPOINT_PREFIX))

    def get_next_incremental_sequence_number(self) -> int:
        """Return the number of the next incremental checkpoint; the first is 1."""
        names = [p.name for p in self._checkpoints(INCREMENTAL_CHECKPOINT_PREFIX)]
        return max((IncrementalCheckpoint.filename_to_sequence_number(n) or 0 for n in names), default=0) + 1

    def delete_all_incremental_checkpoints(self) -> None:
        """Forget the incremental checkpoints."""
        self._postbox.remove(self._checkpoints(INCREMENTAL_CHECKPOINT_PREFIX))

    def upload_raw_rolling_state(self, filename: str, data: bytes) -> str:  # noqa: ARG002
        """Keep the rolling state in its one place."""
        return self._keep_if_small("", _ROLLING, data)

    def download_raw_rolling_state(self) -> bytes | None:
        """Return the rolling state, or None."""
        return self._postbox.get(self._own("", _ROLLING))

    def delete_rolling_state(self) -> None:
        """Forget the rolling state."""
        self._postbox.remove([self._own("", _ROLLING)])

    def _list(self, box: Box, *, owner: str | None = None, folder: str | None = None) -> list[Entry]:
        if owner is None and box in ("own", "request"):
            owner = self._postbox.name
        return self._postbox.list(box=box, owner=owner, folder=folder)

    def _own(self, folder: str, name: str) -> Place:
        return Place(owner=self._postbox.name, box="own", folder=folder, name=name)

    def _keep(self, folder: str, name: str, data: bytes) -> str:
        place = self._own(folder, name)
        self._postbox.put(place, data)
        return file_id_of(place)

    def _keep_if_small(self, folder: str, name: str, data: bytes) -> str:
        # these shorten a restore after the loss of a folder and nothing else: the event log has it all
        if len(data) > MAX_SUMMARY_BYTES:
            _log.info("left out a summary of %d bytes", len(data))
            return file_id_of(self._own(folder, name))
        return self._keep(folder, name, data)

    def _own_events(self, since_timestamp: float | None) -> list[dict[str, Any]]:
        return dated_events(self._list("own", folder=_EVENTS), since_timestamp)

    def _checkpoints(self, prefix: str) -> list[Place]:
        kept = [e.place for e in self._list("own", folder=_CHECKPOINTS)]
        return [place for place in kept if place.name.startswith(prefix)]

    def _download(self, events: list[dict[str, Any]]) -> list[bytes]:
        return [self.download_file(event["file_id"]) for event in events]


def dated_events(entries: Iterable[Entry], since_timestamp: float | None) -> list[dict[str, Any]]:
    """Return the event messages among ``entries`` after a moment, oldest first, as syft describes them."""
    events = []
    for entry in entries:
        try:
            timestamp = FileChangeEventsMessageFileName.from_string(entry.place.name).timestamp
        except ValueError:
            continue
        if since_timestamp is None or timestamp > since_timestamp:
            name = entry.place.name
            events.append({"file_id": file_id_of(entry.place), "file_name": name, "timestamp": timestamp})
    return sorted(events, key=lambda event: (event["timestamp"], event["file_name"]))
