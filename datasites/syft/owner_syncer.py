"""syft's synchronisation of a data owner, made to survive a lost connection and a killed process.

syft 0.10 takes an event off its queue before it is sent, and after a restart takes what the transport has for newer
than what is on disk: a lost connection then loses outputs, and a restart may undo an approval. Here an event leaves
the queue when it was stored, the datasite's own folder goes before the transport's copy, and what a killed process
had noted but not sent is sent after the restart. The own event log is written last and marks a message as done.
"""

from __future__ import annotations

from typing import Any

from syft.sync.checkpoints.rolling_state import RollingState
from syft.sync.sync.datasite_owner_syncer import DatasiteOwnerSyncer

from datasites.syft.postbox import place_of


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
