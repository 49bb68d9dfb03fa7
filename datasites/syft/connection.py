"""PySyft's transport over our mailbox: every method that ``syft`` 0.10 calls on its platform connection.

It behaves like syft's Google Drive connection; a contract test runs the same cases over syft's own in-memory drive and
over this one. The difference is safety: every letter is signed by its writer and checked against the roster (an
encryption bundle from anybody else raises ``Tampered``), and the mailbox itself decides who reads what. PySyft knows
people by email address, we know institutions by name: ``north`` is ``north@tessera.invalid``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pydantic import ConfigDict
from syft.sync.connections.base_connection import ConnectionConfig, FileCollection
from syft.sync.messages.proposed_filechange import FileNameParseError, MessageFileName
from syft.sync.version.version_info import VersionInfo

from datasites.node.letters import Box, Place, check_file_name, check_participant
from datasites.syft.own_storage import OwnStorage, dated_events
from datasites.syft.postbox import file_id_of, place_of
from privacy.errors import InvalidInput

_DOMAIN = "@tessera.invalid"  # a reserved name (RFC 2606): no mail will ever go there


def address(participant: str) -> str:
    """Return the address PySyft shall know ``participant`` by."""
    return check_participant(participant) + _DOMAIN


def participant(email: str) -> str:
    """Return whose address this is.

    Raises:
        InvalidInput: not an address of ours.
    """
    if not email.endswith(_DOMAIN):
        raise InvalidInput(f"expected an address that ends in {_DOMAIN}, got {email[:80]!r}")
    return check_participant(email[: -len(_DOMAIN)])


_PEERS = "peers.json"
_ANY = "any.json"


class MailboxConnection(OwnStorage):
    """One participant's connection; thread-safe, and shared by all parts of its syft client."""

    @classmethod
    def from_config(cls, config: MailboxConnectionConfig) -> MailboxConnection:
        """Return the configuration's one connection."""
        return config.connection

    @property
    def email(self) -> str:
        """The address of this participant."""
        return address(self._postbox.name)

    def get_authenticated_email(self) -> str:
        """Return the address that the mailbox will accept from us."""
        return self.email

    def copy(self) -> MailboxConnection:
        """Return this connection: it is safe to share."""
        return self

    def reset_caches(self) -> None:
        """Ask the mailbox anew."""
        self._postbox.refresh()

    # peers -----------------------------------------------------------------------------------------------------

    def add_peer(self, peer_email: str) -> None:
        """Ask ``peer_email`` to become a peer."""
        peer = participant(peer_email)
        place = Place(owner=peer, box="request", folder=self._postbox.name, name="request")
        self._postbox.put(place, b"{}")

    def get_peer_requests(self) -> list[str]:
        """Return the addresses of those who asked and were neither accepted nor rejected."""
        peers = self._peers()
        asked = [address(e.place.folder) for e in self._list("request")]
        return [email for email in asked if peers.get(email, {}).get("state") not in ("accepted", "rejected")]

    def _get_peers_json(self, force_download: bool = False) -> dict[str, dict[str, Any]]:  # noqa: ARG002
        # syft asks this first in every synchronisation: the one request that brings the mirror up to date
        self._postbox.refresh()
        return self._peers()

    def _update_peer_state(
        self, peer_email: str, state: str, public_encryption_bundle: dict[str, Any] | None = None
    ) -> None:
        peers = self._peers()
        entry = peers.setdefault(peer_email, {})
        entry["state"] = state
        if public_encryption_bundle is not None:
            entry["public_encryption_bundle"] = public_encryption_bundle
        self._postbox.put(self._own("", _PEERS), json.dumps(peers).encode())

    def _peers(self) -> dict[str, dict[str, Any]]:
        data = self._postbox.get(self._own("", _PEERS)) if self._list("own", folder="") else None
        return dict(json.loads(data)) if data else {}

    # versions and encryption bundles ---------------------------------------------------------------------------

    def write_version_file(self, version_info: VersionInfo) -> None:
        """Publish our version of syft."""
        self._postbox.put(_version_of(self._postbox.name), version_info.to_json().encode())

    def read_own_version_file(self) -> VersionInfo | None:
        """Return the version we published."""
        return self.read_peer_version_file(self.email)

    def read_peer_version_file(self, peer_email: str) -> VersionInfo | None:
        """Return the version of a peer who shared it, or None."""
        owner = participant(peer_email)
        if not self._list("version", owner=owner):
            return None
        data = self._postbox.get(_version_of(owner))
        return VersionInfo.from_json(data.decode()) if data else None

    def share_version_file_with_peer(self, peer_email: str) -> None:
        """Let a peer read our version."""
        if not self._list("version", owner=self._postbox.name):
            self.write_version_file(VersionInfo.current())
        self._postbox.share(box="version", folder="", readers=[participant(peer_email)])

    def write_encryption_bundle(self, peer_email: str, bundle_json: str) -> None:
        """Hand our encryption keys to one peer."""
        self._postbox.put(_bundle_of(self._postbox.name, participant(peer_email)), bundle_json.encode())

    def share_encryption_bundles_folder(self, peer_email: str) -> None:
        """Nothing to do: a bundle is readable by the peer it was written for, and by nobody else."""

    def read_peer_encryption_bundle(self, peer_email: str) -> str | None:
        """Return the bundle that a peer wrote for us, or None.

        Raises:
            Tampered: it is not signed with the key that the roster knows the peer by.
        """
        owner = participant(peer_email)
        if not self._list("bundle", owner=owner, folder=self._postbox.name):
            return None
        data = self._postbox.get(_bundle_of(owner, self._postbox.name))
        return data.decode() if data else None

    # collections (mock datasets) -------------------------------------------------------------------------------

    def owner_create_collection_folder(
        self,
        prefix: str,
        tag: str,
        content_hash: str,
        owner_email: str,
    ) -> str:
        """Return the id of a collection; it comes into being with its first file."""
        return f"{participant(owner_email)}/{_collection(prefix, tag, content_hash)}"

    def owner_tag_collection_as_any(self, prefix: str, tag: str, content_hash: str) -> None:
        """Remember that every peer may have this collection."""
        self._postbox.put(self._own(_collection(prefix, tag, content_hash), _ANY), b"{}")

    def owner_share_collection(self, prefix: str, tag: str, content_hash: str, users: list[str]) -> None:
        """Let ``users`` read a collection."""
        if users:
            folder = _collection(prefix, tag, content_hash)
            self._postbox.share(box="collection", folder=folder, readers=map(participant, users))

    def owner_upload_collection_files(self, prefix: str, tag: str, content_hash: str, files: dict[str, bytes]) -> None:
        """Store the files of a collection."""
        folder = _collection(prefix, tag, content_hash)
        for path, data in files.items():
            name = check_file_name(PurePosixPath(path).name)
            self._postbox.put(Place(owner=self._postbox.name, box="collection", folder=folder, name=name), data)

    def owner_list_collections(self, prefix: str) -> list[str]:
        """Return the tags of our collections."""
        return [c.tag for c in self.owner_list_all_collections_with_permissions(prefix)]

    def owner_list_all_collections_with_permissions(self, prefix: str) -> list[FileCollection]:
        """Return our collections, and whether they are for every peer."""
        open_to_all = {e.place.folder for e in self._list("own") if e.place.name == _ANY}
        return [
            FileCollection(
                folder_id=f"{self._postbox.name}/{folder}",
                tag=tag,
                content_hash=content_hash,
                has_any_permission=folder in open_to_all,
            )
            for folder, tag, content_hash in self._collections(prefix, self._postbox.name)
        ]

    def owner_delete_collection(self, prefix: str, tag: str) -> None:
        """Remove every version of one of our collections."""
        for folder, found, _ in self._collections(prefix, self._postbox.name):
            if found == tag:
                self.delete_file_by_id(f"{self._postbox.name}/{folder}")

    def watcher_list_collections(self, prefix: str) -> list[dict[str, str]]:
        """Return the collections that others share with us."""
        owners = sorted({e.place.owner for e in self._list("collection")} - {self._postbox.name})
        return [
            {"owner_email": address(owner), "tag": tag, "content_hash": content_hash}
            for owner in owners
            for _, tag, content_hash in self._collections(prefix, owner)
        ]

    def watcher_get_collection_file_metadatas(
        self, prefix: str, tag: str, content_hash: str, owner_email: str
    ) -> list[dict[str, str]]:
        """Return the files of a collection without their content."""
        found = self._list("collection", owner=participant(owner_email), folder=_collection(prefix, tag, content_hash))
        if not found:
            raise InvalidInput(f"there is no collection {tag!r} of {owner_email} with hash {content_hash}")
        return [{"file_id": file_id_of(e.place), "file_name": e.place.name} for e in found]

    def watcher_download_collection(
        self, prefix: str, tag: str, content_hash: str, owner_email: str
    ) -> dict[str, bytes]:
        """Return all files of a collection."""
        files = self.watcher_get_collection_file_metadatas(prefix, tag, content_hash, owner_email)
        return {f["file_name"]: self.download_file(f["file_id"]) for f in files}

    def watcher_download_collection_file(self, file_id: str) -> bytes:
        """Return one file of a collection."""
        return self.download_file(file_id)

    # messages --------------------------------------------------------------------------------------------------

    def watcher_send_raw_bytes_to_inbox(self, recipient: str, filename: str, data: bytes) -> None:
        """Propose file changes to a datasite."""
        self._postbox.put(
            Place(owner=participant(recipient), box="inbox", folder=self._postbox.name, name=filename), data
        )

    def owner_download_next_raw_proposed_message_from_inbox(self, sender_email: str) -> tuple[bytes, str] | None:
        """Return the oldest proposal of a peer and its id, or None."""
        proposals = self._list("inbox", owner=self._postbox.name, folder=participant(sender_email))
        dated = [(stamp, e.place) for e in proposals if (stamp := _proposed_at(e.place.name)) is not None]
        if not dated:
            return None
        place = min(dated, key=lambda pair: (pair[0], pair[1].name))[1]
        return self._postbox.require(place), file_id_of(place)

    def owner_remove_proposed_filechange_message_from_inbox(self, proposed_filechange_message: Any) -> None:
        """Remove a proposal that was dealt with."""
        self.delete_file_by_id(proposed_filechange_message.platform_id)

    def owner_write_raw_bytes_to_outbox(self, recipient: str, filename: str, data: bytes) -> None:
        """Send events to a peer."""
        self._postbox.put(
            Place(owner=self._postbox.name, box="outbox", folder=participant(recipient), name=filename), data
        )

    def watcher_get_outbox_file_metadatas(self, peer_email: str, since_timestamp: float | None) -> list[dict[str, Any]]:
        """Return the events that a datasite sent us after ``since_timestamp``, oldest first."""
        sent = self._list("outbox", owner=participant(peer_email), folder=self._postbox.name)
        return dated_events(sent, since_timestamp)

    def watcher_download_raw_events_from_outbox(self, peer_email: str, since_timestamp: float | None) -> list[bytes]:
        """Return the content of those events."""
        return self._download(self.watcher_get_outbox_file_metadatas(peer_email, since_timestamp))

    def _get_own_datasite_outbox_id(self, recipient: str) -> None:  # noqa: ARG002
        # syft merges the messages of an outbox where it can read them; ours are for the peer's eyes only
        return None

    # removal ---------------------------------------------------------------------------------------------------

    def delete_file_by_id(self, file_id: str, **_: Any) -> None:
        """Remove one letter, or all of a collection, from our own mailbox."""
        if file_id.count("/") == 1:
            owner, folder = file_id.split("/")
            found = [e.place for e in self._list("collection", owner=owner, folder=folder)]
            self._postbox.remove([*found, self._own(folder, _ANY)])
        else:
            self._postbox.remove([place_of(file_id)])

    def delete_multiple_files_by_ids(self, file_ids: Iterable[str], **_: Any) -> None:
        """Remove letters from our own mailbox."""
        self._postbox.remove([place_of(file_id) for file_id in file_ids])

    def gather_all_file_and_folder_ids(self) -> list[str]:
        """Return the ids of everything in our own mailbox that we can see."""
        boxes: tuple[Box, ...] = ("own", "version", "bundle", "collection", "request", "inbox")
        mine = [e for box in boxes for e in self._list(box, owner=self._postbox.name)]
        return [file_id_of(e.place) for e in mine]

    def find_orphaned_message_files(self) -> list[str]:
        """Return nothing: a letter always has its place."""
        return []

    # ------------------------------------------------------------------------------------------------------------

    def _collections(self, prefix: str, owner: str) -> list[tuple[str, str, str]]:
        folders = sorted({e.place.folder for e in self._list("collection", owner=owner)})
        found = []
        for folder in folders:
            head, _, rest = folder.partition(f"{prefix}_")
            tag, _, content_hash = rest.rpartition("_")
            if not head and tag and content_hash:
                found.append((folder, tag, content_hash))
        return found


class MailboxConnectionConfig(ConnectionConfig):  # type: ignore[misc]  # syft ships no types
    """What syft's configuration takes in place of a Google Drive account."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    connection_type: ClassVar[type[MailboxConnection]] = MailboxConnection
    connection: MailboxConnection


def _collection(prefix: str, tag: str, content_hash: str) -> str:
    return check_file_name(f"{prefix}_{tag}_{content_hash}")


def _version_of(owner: str) -> Place:
    return Place(owner=owner, box="version", folder="", name="version.json")


def _bundle_of(owner: str, peer: str) -> Place:
    return Place(owner=owner, box="bundle", folder=peer, name="bundle.json")


def _proposed_at(name: str) -> float | None:
    try:
        return float(MessageFileName.from_string(name).submitted_timestamp)
    except FileNameParseError:
        return None
