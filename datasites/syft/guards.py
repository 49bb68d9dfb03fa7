"""Checks of what syft takes on trust from a peer, made before syft acts on it.

End-to-end encryption proves which *peer* wrote a message, not that the peer may do what it says. syft 0.10 takes the
sender's address from inside the message, lets one message that it cannot handle stop every later synchronisation, and
decompresses without a bound. Here a proposal may only create new files in the sender's own job inbox, an event may
only speak of its sender's own datasite, and anything else is dropped and logged. Files that syft keeps are written
whole or not at all, and its synchronisation survives a lost connection and a killed process.
"""

from __future__ import annotations

import gzip
import io
import logging
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, Field
from syft.sync.checkpoints.rolling_state import RollingState
from syft.sync.connections.connection_router import ConnectionRouter
from syft.sync.events.file_change_event import FileChangeEvent, FileChangeEventsMessage, FileChangeEventsMessageFileName
from syft.sync.messages.proposed_filechange import ProposedFileChange, ProposedFileChangesMessage
from syft.sync.sync.caches.cache_file_writer_connection import FSFileConnection
from syft.sync.sync.caches.datasite_owner_cache import ProposedEventFileOutdatedException
from syft.sync.sync.datasite_owner_syncer import DatasiteOwnerSyncer
from syft.sync.sync.datasite_watcher_syncer import DatasiteWatcherSyncer
from syft_permissions.spec.ruleset import PERMISSION_FILE_NAME

from datasites.node.files import write_atomically
from datasites.node.letters import check_file_name
from datasites.syft.postbox import place_of
from privacy.errors import Refused

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


class DurableOwnerSyncer(DatasiteOwnerSyncer):  # type: ignore[misc]  # syft ships no types
    """A data owner's syncer that neither forgets nor falls back."""

    def pull_initial_state(self) -> None:
        """Restore from the transport only where this folder holds no history of its own."""
        if len(self.event_cache.events_messages_connection) == 0:
            super().pull_initial_state()
            return
        if getattr(self, "_rolling_state", None) is None:
            self._rolling_state = RollingState(email=self.email, base_checkpoint_timestamp=0.0)
        self._pull_collections_for_initial_sync()
        self.initial_sync_done = True

    def process_syftbox_events_queue(self) -> None:
        """Send what is queued; whatever could not be sent stays queued for the next time."""
        router = self.connection_router
        while not self.outbox_queue.empty():
            router.owner_write_event_messages_to_outbox(*self.outbox_queue.queue[0])
            self.outbox_queue.get_nowait()
        while not self.syftbox_events_queue.empty():
            router.owner_write_events_message_to_syftbox(self.syftbox_events_queue.queue[0])
            self.syftbox_events_queue.get_nowait()

    def handle_proposed_filechange_events_message(self, sender_email: str, proposed_events_message: Any) -> None:
        """Take what a peer proposes, or drop what does not fit to what is here: it must not stop what comes next."""
        try:
            super().handle_proposed_filechange_events_message(sender_email, proposed_events_message)
        except (ValueError, ProposedEventFileOutdatedException) as error:
            _log.warning("dropped a proposal of %s: %s", sender_email, error)

    def resume(self, recipients: list[str]) -> None:
        """Queue again what an earlier process noted and did not finish sending; sending twice does no harm."""
        finished = {
            place_of(file_id).name for file_id in self.connection_router.owner_get_all_accepted_event_file_ids()
        }
        noted = self.event_cache.events_messages_connection.get_all()
        for message in sorted(noted, key=lambda m: m.timestamp):
            if message.message_filepath.as_string() not in finished:
                self._queue_again(message, recipients)

    def _queue_again(self, message: Any, recipients: list[str]) -> None:
        permissions, data = self._split_events(message.events)
        by_recipient: dict[str, list[Any]] = {recipient: [] for recipient in recipients}
        sent_to: dict[str, set[str]] = {}
        self._route_data_events(data, recipients, by_recipient, sent_to)
        self._route_perm_events(permissions, recipients, by_recipient, sent_to)
        self._queue_events_for_outbox(by_recipient)
        self.syftbox_events_queue.put(message)


MAX_UNPACKED_BYTES = 128 * 1024**2
MAX_FILES = 5000
MAX_JOBS = 1000
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_log = logging.getLogger(__name__)


class _Proposal(ProposedFileChangesMessage):  # type: ignore[misc]  # syft ships no types
    proposed_file_changes: Annotated[list[ProposedFileChange], Field(max_length=MAX_FILES)]


class _Events(FileChangeEventsMessage):  # type: ignore[misc]
    events: Annotated[list[FileChangeEvent], Field(max_length=MAX_FILES)]


class GuardedRouter(ConnectionRouter):  # type: ignore[misc]  # syft ships no types
    """The owner's router: only proposals that a peer may make come through."""

    datasite: Path

    def owner_get_next_proposed_filechange_message(self, sender_email: str) -> Any:
        """Return the next acceptable proposal of a peer, or None; drop those that are not."""
        connection = self.connection_for_receive_message()
        while True:
            result = connection.owner_download_next_raw_proposed_message_from_inbox(sender_email)
            if result is None:
                return None
            data, file_id = result
            try:
                message = self._read(sender_email, data)
            except Exception as error:  # whatever a peer sends must not stop the others
                _log.warning("dropped a proposal of %s: %s", sender_email, error)
                connection.delete_file_by_id(file_id)
                continue
            message.platform_id = file_id
            return message

    def _read(self, sender_email: str, data: bytes) -> Any:
        content = unpacked(self.peer_store.decrypt_and_verify_if_needed(sender_email, data))
        message = _Proposal.model_validate_json(content)
        if message.sender_email != sender_email:
            raise Refused("it names another sender than the one who encrypted it")
        for change in message.proposed_file_changes:
            self._check(change, sender_email)
        self._check_room(sender_email)
        return message

    def _check_room(self, sender_email: str) -> None:
        inbox = self.datasite / "app_data" / "job" / "inbox" / sender_email
        jobs = sum(1 for version in inbox.glob("*") if version.is_dir() for _ in version.iterdir())
        if jobs >= MAX_JOBS:
            raise Refused(f"its sender has {MAX_JOBS} jobs here; remove old ones")

    def _check(self, change: Any, sender_email: str) -> None:
        path = check_relative(change.path_in_datasite)
        if path.parts[:4] != ("app_data", "job", "inbox", sender_email) or len(path.parts) < 6:
            raise Refused("it writes outside the sender's own job inbox")
        if path.name == PERMISSION_FILE_NAME:
            raise Refused("it brings permissions of its own")
        if change.is_deleted or change.content is None or (self.datasite / path).exists():
            raise Refused("it changes or removes what was submitted before; submit a new job")
        change.old_hash = None  # it is new here, also where its sender knows it from before this folder was restored


class GuardedWatcher(DatasiteWatcherSyncer):  # type: ignore[misc]  # syft ships no types
    """The scientist's side: events of a datasite may only speak of that datasite."""

    def download_events_message_with_new_connection(self, file_id: str, peer_email: str) -> Any:
        """Return one message of events, or an empty one in place of what may not be acted on."""
        name = FileChangeEventsMessageFileName.from_string(place_of(file_id).name)
        connection = self.connection_router.connection_for_parallel_download()
        data = connection.download_file(file_id)
        try:
            peer_store = self.connection_router.peer_store
            message = _Events.model_validate_json(unpacked(peer_store.decrypt_and_verify_if_needed(peer_email, data)))
            for event in message.events:
                check_relative(event.path_in_datasite)
                if event.datasite_email != peer_email:
                    raise Refused("it speaks of another datasite than its sender's")
            message.message_filepath = name
            return message
        except Exception as error:  # one hostile datasite must not keep us from the others
            _log.warning("dropped events of %s: %s", peer_email, error)
            return FileChangeEventsMessage(events=[], message_filepath=name)


def check_relative(path: Path) -> PurePosixPath:
    """Return ``path`` if every part of it is a plain name.

    Raises:
        Refused: absolute, empty or with a part that leads elsewhere.
        InvalidInput: a part that is no plain file name.
    """
    relative = PurePosixPath(path)
    if relative.is_absolute() or not relative.parts or ".." in relative.parts:
        raise Refused("it holds a path that leads out of the datasite")
    for part in relative.parts:
        check_file_name(part)
    return relative


def unpacked(data: bytes, limit_bytes: int = MAX_UNPACKED_BYTES) -> bytes:
    """Return the JSON inside one of syft's messages, which is a compressed tar archive of one file.

    syft unpacks whatever is called so: a sparse file of a terabyte, a link, or the last of a million entries. Here the
    first entry is a plain file that lies whole in at most ``limit_bytes``, or the message is refused.

    Raises:
        Refused: anything else.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            archive = stream.read(limit_bytes + 1)
        if len(archive) > limit_bytes:
            raise Refused(f"it unpacks to more than {limit_bytes} bytes")
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            entry = tar.next()
            if entry is None or entry.type not in _PLAIN or entry.issparse() or not 0 <= entry.size <= len(archive):
                raise Refused("it is not an archive of one plain file")
            file = tar.extractfile(entry)
            content = file.read() if file is not None else b""
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise Refused("it is not a compressed message") from error
    if len(content) != entry.size:
        raise Refused("it is cut short")
    return content
