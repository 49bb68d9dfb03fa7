"""One participant's view of the mailbox: a mirror of what it may see, refreshed by a single request.

The server numbers every change, so a refresh asks "what is new after number N" and costs one short request when
nothing is. Lists are answered from the mirror; letters are fetched, opened and checked against the roster's keys.
Safe to use from several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from datasites.node.http import SignedClient
from datasites.node.letters import BOXES, Box, Place, open_letter, seal_letter
from datasites.node.roster import Roster
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Tampered, TesseraError
from privacy.identity import Identity

_FRESH_SECONDS = 2.0
_CACHED_LETTER_BYTES = 64 * 1024
_CACHED_LETTERS = 512


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A letter in the mirror."""

    place: Place
    sha256: str


class Postbox:
    """Reads and writes sealed letters as one participant.

    Args:
        http: signs as this participant.
        name: this participant's name in the roster.
        public_key_of: gives the key of a participant by name, or all that it had: letters lie long; raises for unknown
            names.
    """

    def __init__(self, http: SignedClient, name: str, public_key_of: Callable[[str], str | Collection[str]]) -> None:
        self.name = name
        self._http = http
        self._public_key_of = public_key_of
        self._lock = threading.RLock()
        self._mirror: dict[Box, dict[Place, Entry]] = {box: {} for box in BOXES}
        self._sequence = 0
        self._refreshed = float("-inf")
        self._cache: dict[str, bytes] = {}

    @classmethod
    def of(cls, identity: Identity, roster: Roster, base_url: str) -> Postbox:
        """Return the postbox of whoever ``identity`` is in the roster, at the orchestrator's address.

        Raises:
            InvalidInput: the roster does not know this identity.
        """
        party = roster.known_by_key(identity.public_key)
        if party is None:
            raise InvalidInput("expected an identity that the roster knows; enrol it first")
        http = SignedClient(identity, base_url, roster.orchestrator.public_key)
        return cls(http, party.name, lambda name: roster.by_name(name).public_key)

    def refresh(self) -> None:
        """Bring the mirror up to date: one request, and one more for every 2000 changes."""
        with self._lock:
            more = True
            while more:
                answer = self._ask(0.0)
                self._apply(answer)
                more = bool(answer["more"])
            self._refreshed = time.monotonic()

    def wait_for_news(self, wait_seconds: float) -> bool:
        """Wait until something changed for this participant since the last refresh, or the time is over.

        Args:
            wait_seconds: at most 60.

        Returns:
            True if there is news; the next refresh brings it.
        """
        answer = self._ask(wait_seconds)
        return bool(answer["items"] or answer["reset"])

    def list(self, *, box: Box, owner: str | None = None, folder: str | None = None) -> list[Entry]:
        """Return the letters of a box, by place; refreshes a mirror that is older than two seconds."""
        if time.monotonic() - self._refreshed > _FRESH_SECONDS:
            self.refresh()
        with self._lock:
            found = [
                entry
                for place, entry in self._mirror[box].items()
                if owner in (None, place.owner) and folder in (None, place.folder)
            ]
        return sorted(found, key=lambda e: (e.place.owner, e.place.folder, e.place.name))

    def put(self, place: Place, data: bytes) -> None:
        """Seal ``data`` and store it at ``place``."""
        letter = seal_letter(self._http.identity, place, data)
        self._http.put_bytes("/mailbox/letter", letter, params=asdict(place))
        self._refreshed = float("-inf")

    def get(self, place: Place) -> bytes | None:
        """Return the checked content of the letter at ``place``, or None where there is none.

        Raises:
            Tampered: the letter is not what its writer sealed.
            Refused: this participant may not read there.
        """
        with self._lock:
            known = self._mirror[place.box].get(place)
            letter = self._cache.get(known.sha256) if known else None
        if letter is None:
            letter = self._http.get_bytes("/mailbox/letter", params=asdict(place)) or None
        if letter is None:
            return None
        data = open_letter(letter, place, self._public_key_of(place.writer))
        self._remember(letter)
        return data

    def require(self, place: Place) -> bytes:
        """Return the content at ``place``.

        Raises:
            TesseraError: there is none any more.
        """
        data = self.get(place)
        if data is None:
            raise TesseraError(f"the letter {place.name!r} of {place.owner} is gone; synchronise again")
        return data

    def remove(self, places: Iterable[Place]) -> None:
        """Remove letters from this participant's own mailbox."""
        wanted = [asdict(place) for place in places]
        for start in range(0, len(wanted), 1000):
            self._http.post_json("/mailbox/remove", {"places": wanted[start : start + 1000]})
        self._refreshed = float("-inf")

    def share(self, *, box: Box, folder: str, readers: Iterable[str]) -> None:
        """Let others read one folder of this participant's ``version`` or ``collection`` box."""
        self._http.post_json("/mailbox/share", {"box": box, "folder": folder, "readers": sorted(set(readers))})

    def _ask(self, wait_seconds: float) -> dict[str, Any]:
        answer = self._http.get_json(
            "/mailbox/news", params={"since": self._sequence, "wait": wait_seconds}, wait_seconds=wait_seconds
        )
        if not isinstance(answer, dict) or not {"reset", "more", "items"} <= answer.keys():
            raise InvalidInput("expected news from the mailbox, got something else; is this the right address?")
        return answer

    def _apply(self, answer: dict[str, Any]) -> None:
        if answer["reset"]:
            self._mirror = {box: {} for box in BOXES}
            self._sequence = 0
        for owner, box, folder, name, digest, _, sequence in answer["items"]:
            place = Place(owner=owner, box=box, folder=folder, name=name)
            if digest:
                self._mirror[place.box][place] = Entry(place=place, sha256=str(digest))
            else:
                self._mirror[place.box].pop(place, None)
            self._sequence = max(self._sequence, int(sequence))

    def _remember(self, letter: bytes) -> None:
        if len(letter) > _CACHED_LETTER_BYTES:
            return
        with self._lock:
            if len(self._cache) >= _CACHED_LETTERS:
                self._cache.pop(next(iter(self._cache)))
            self._cache[sha256_hex(letter)] = letter


def place_of(file_id: str) -> Place:
    """Read a place back from the text that :func:`file_id_of` made.

    Raises:
        Tampered: not such a text.
    """
    parts = file_id.split("/")
    if len(parts) != 4:
        raise Tampered("expected a mailbox place of four parts; synchronise again")
    owner, box, folder, name = parts
    return Place(owner=owner, box=box, folder=folder, name=name)  # type: ignore[arg-type]  # checked by Place


def file_id_of(place: Place) -> str:
    """Return one text for a place; no part can hold a slash."""
    return f"{place.owner}/{place.box}/{place.folder}/{place.name}"
