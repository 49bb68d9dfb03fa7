"""Items of the mailbox, sealed by whoever wrote them, so that the mailbox can withhold but not invent.

Everything that PySyft exchanges through our mailbox (encryption bundles, versions, mock collections, messages) is
stored as a *letter*: the bytes behind a signed header that names their place and SHA-256. The reader checks the
header against the writer's key in the roster. A letter that was put somewhere else, changed, or written by anybody
but the rightful writer of its place does not open, so nobody in the middle can hand out an encryption key of their own.

    >>> from privacy.identity import Identity
    >>> north = Identity.generate()
    >>> place = Place(owner="north", box="bundle", folder="orchestrator", name="bundle.json")
    >>> open_letter(seal_letter(north, place, b"{}"), place, north.public_key)
    b'{}'

==============  =======================  =====================  ==============================
box             written by               read by                holds
==============  =======================  =====================  ==============================
``own``         owner                    owner                  event log, checkpoints, peers
``version``     owner                    whom it is shared with syft's version of the owner
``bundle``      owner                    the one in ``folder``  encryption keys for one peer
``collection``  owner                    whom it is shared with mock datasets
``request``     the one in ``folder``    owner                  "please become my peer"
``inbox``       the one in ``folder``    owner                  proposed files: jobs
``outbox``      owner                    the one in ``folder``  events: job states, outputs
==============  =======================  =====================  ==============================
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from datasites.study.signing import open_sealed, pack_envelope, seal, unpack_envelope
from datasites.study.text import check_name
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Tampered
from privacy.identity import Identity

Box = Literal["own", "version", "bundle", "collection", "request", "inbox", "outbox"]
BOXES: tuple[Box, ...] = ("own", "version", "bundle", "collection", "request", "inbox", "outbox")

_KIND = "mailbox-letter"
_PARTICIPANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TEXT = re.compile(r"[^\x00-\x1f\x7f/\\]{1,200}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a letter lies: whose mailbox, which box, which folder of it (may be empty), under which name."""

    owner: str
    box: Box
    folder: str
    name: str

    def __post_init__(self) -> None:
        if self.box not in BOXES:
            raise InvalidInput(f"expected a box out of {', '.join(BOXES)}, got {str(self.box)[:40]!r}")
        check_participant(self.owner)
        if self.box in ("bundle", "request", "inbox", "outbox"):
            check_participant(self.folder)
        elif self.folder:
            check_file_name(self.folder)
        check_file_name(self.name)

    @property
    def writer(self) -> str:
        """The only participant who may write here."""
        return self.folder if self.box in ("request", "inbox") else self.owner


@dataclass(frozen=True, kw_only=True)
class Letter:
    """The signed header of a letter."""

    place: Place
    content_hash: str


def check_participant(name: str) -> str:
    """Return ``name`` if a participant may have it.

    Raises:
        InvalidInput: anything but 1 to 63 letters, digits, dots, dashes and underscores.
    """
    if not _PARTICIPANT.fullmatch(name):
        raise InvalidInput(
            f"expected a participant's name of 1 to 63 letters, digits, dots and dashes, got {name[:80]!r}"
        )
    return name


def check_file_name(name: str) -> str:
    """Return ``name`` if it names one file in a folder, and nothing outside it.

    Raises:
        InvalidInput: empty, longer than 200 characters, a dot name, or with a separator or control character.
    """
    if not _TEXT.fullmatch(name) or name.startswith("."):
        raise InvalidInput(f"expected a plain file name without separators, got {name[:80]!r}")
    return check_name(name, "a file name")


def seal_letter(identity: Identity, place: Place, data: bytes) -> bytes:
    """Return the bytes to store at ``place``: a header signed by ``identity``, then ``data``."""
    letter = Letter(place=place, content_hash=sha256_hex(data))
    return pack_envelope(seal(identity, _KIND, letter), data)


def open_letter(letter: bytes, place: Place, public_key: str | Collection[str]) -> bytes:
    """Return the data of a letter after checking that ``public_key`` (or one of several) wrote it for ``place``.

    Raises:
        Tampered: another writer, another place, or changed data.
        InvalidInput: not a letter at all.
    """
    signed, data = unpack_envelope(letter)
    if signed.public_key not in ((public_key,) if isinstance(public_key, str) else public_key):
        raise Tampered(f"expected a letter signed by {place.writer}, got one signed with another key")
    header = open_sealed(signed, _KIND, public_key, Letter)
    if header.place != place:
        raise Tampered(f"expected a letter for {place.box} of {place.owner}, got one for another place")
    if header.content_hash != sha256_hex(data):
        raise Tampered(f"the letter in {place.box} of {place.owner} was changed after it was signed")
    return data
