"""What scientists should know, read from the orchestrator's journal: decisions, refused rounds, pauses and ends."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from datasites.node.notices.delivery import Delivery
from datasites.node.notices.outbox import Notice, Outbox, last_before
from datasites.node.notices.settings import Kind, NoticeSettings
from datasites.study.signing import parse
from datasites.study.thread import Word
from privacy.ledger.chain import Entry
from privacy.ledger.journal import Journal

_ENTRIES: dict[str, tuple[Kind, str]] = {
    "refusal": ("refused-round", "refused its part of a round"),
    "study-paused": ("refused-round", "the study is paused"),
    "study-ended": ("decision", "the study has ended"),
    "study-finished": ("decision", "the study is finished"),
}


class ScientistsNotices:
    """Notices of one orchestrator, in its folder; without ``notices.toml`` nobody gets any."""

    def __init__(self, folder: Path, journal: Journal, *, name: str) -> None:
        self._settings = NoticeSettings.load(folder)
        self.outbox = Outbox(folder / "notices.sqlite")
        self._journal, self._name = journal, name
        self._delivery = Delivery(self._settings, self.outbox, journal.append)
        self._since = last_before(journal, journal.now() - dt.timedelta(days=1))

    def step(self, now: dt.datetime) -> None:
        """Queue what is new and send what is due."""
        if not (self._settings.people or self._settings.webhooks):
            return
        for entry in self._journal.entries(since=self._since):
            notice = self._notice(entry)
            if notice is not None:
                self.outbox.add(notice, self._settings, now)
            self._since = entry.index
        self._delivery.step(now)

    def _notice(self, entry: Entry) -> Notice | None:
        study = str(entry.body.get("study", ""))
        if entry.kind == "word":
            word = parse(Word, {name: value for name, value in entry.body.items() if name != "place"})
            if word.author == self._name:
                return None
            return self._made("decision", entry, f"{study}: {word.kind} at {word.author}", word.sentence)
        if entry.kind not in _ENTRIES:
            return None
        kind, text = _ENTRIES[entry.kind]
        who = entry.body.get("party", "")
        return self._made(kind, entry, f"{study}: {who} {text}".replace("  ", " "), str(entry.body.get("reason", text)))

    def _made(self, kind: Kind, entry: Entry, subject: str, text: str) -> Notice:
        return Notice(key=f"journal:{entry.hash}", kind=kind, subject=f"[{self._name}] {subject}", body=text)
