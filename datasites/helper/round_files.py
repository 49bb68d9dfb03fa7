"""A helper's rounds on disk: one encrypted file for each key, and one for each answer; overwritten and then removed.

A file says what was decided before anybody is told, so that a kill loses nothing. What a restored file does not know of
is what :mod:`datasites.helper.custody` asks the hospitals for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from datasites.node.files import shred, write_atomically
from privacy.canonical import canonical_json, plain_json, sha256_hex
from privacy.errors import Tampered
from privacy.identity import Identity

Kind = Literal["key", "answer", "over"]
KINDS: tuple[Kind, ...] = ("answer", "key")
_NONCE_BYTES = 12


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What lies in one file: values as JSON, and bytes."""

    values: Mapping[str, Any]
    body: bytes


class RoundFiles:
    """The files of one helper.

    Args:
        folder: where they lie; made with mode 0700.
        identity: the helper; a secret derived from it encrypts them.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._cipher = ChaCha20Poly1305(identity.derive_lasting_secret("helper-rounds"))

    def store(self, study: str, number: int, kind: Kind, values: Mapping[str, Any], body: bytes) -> None:
        """Write one file, encrypted and synchronised, whole or not at all."""
        header, nonce = plain_json(dict(values)), os.urandom(_NONCE_BYTES)
        plain = len(header).to_bytes(4, "big") + header + body
        sealed = nonce + self._cipher.encrypt(nonce, plain, _label(study, number, kind))
        write_atomically(self._path(study, number, kind), sealed)

    def load(self, study: str, number: int, kind: Kind) -> Kept | None:
        """Return one file, or None where there is none.

        Raises:
            Tampered: it was changed, or is that of another helper, study or round.
        """
        path = self._path(study, number, kind)
        if not path.exists():
            return None
        sealed = path.read_bytes()
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _label(study, number, kind))
        except (InvalidTag, ValueError) as error:
            raise Tampered(f"what is kept of round {number} was changed; the round is lost here") from error
        size = int.from_bytes(plain[:4], "big")
        return Kept(values=json.loads(plain[4 : 4 + size]), body=plain[4 + size :])

    def destroy(self, study: str, number: int, *kinds: Kind) -> None:
        """Overwrite and remove files of a round, whichever there are."""
        for path in [self._path(study, number, kind) for kind in kinds]:
            if path.exists():
                shred(path)

    def over(self, study: str) -> int:
        """Return the last round of a study that is over here, of which nothing is kept; 0 for none."""
        kept = self.load(study, 0, "over")
        return 0 if kept is None else int(kept.values["round"])

    def note_over(self, study: str, number: int) -> None:
        """Write down, durably, that a round and all before it are over here."""
        if number > self.over(study):
            self.store(study, 0, "over", {"round": number}, b"")

    def rounds(self, study: str) -> set[int]:
        """Return the rounds of a study of which anything is kept."""
        found = self._folder.glob(f"{sha256_hex(study.encode())}-*.*")
        return {int(path.stem.rpartition("-")[2]) for path in found if path.suffix[1:] in KINDS}

    def _path(self, study: str, number: int, kind: Kind) -> Path:
        return self._folder / f"{sha256_hex(study.encode())}-{number}.{kind}"


def _label(study: str, number: int, kind: str) -> bytes:
    return canonical_json({"study": study, "round": number, "kind": kind}, 1)
