"""The secret keys of rounds on disk: encrypted, one file each, overwritten and removed when a round is over."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from datasites.node.files import shred, write_atomically
from datasites.study.messages import RoundKey
from privacy.canonical import canonical_json, sha256_hex
from privacy.errors import Refused, Tampered
from privacy.identity import Identity

_NONCE_BYTES = 12
_SHORT_DIGITS = 32


class KeyFiles:
    """The secret keys of one keyholder.

    Args:
        folder: where the files lie; made with mode 0700.
        identity: the keyholder; a secret derived from it encrypts the keys.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._cipher = ChaCha20Poly1305(identity.derive_lasting_secret("round-keys"))

    def store(self, key: RoundKey, secret: bytes) -> None:
        """Write one secret key, encrypted, whole or not at all."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, secret, _label(key))
        write_atomically(self._places(key.study, key.round)[0], sealed)

    def load(self, key: RoundKey) -> bytes:
        """Return one secret key.

        Raises:
            Refused: it was destroyed.
            Tampered: its file was changed, or is that of another keyholder, round or key.
        """
        path = next((p for p in self._places(key.study, key.round) if p.exists()), None)
        if path is None:
            raise Refused(f"the key of round {key.round} is gone")
        sealed = path.read_bytes()
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _label(key))
        except (InvalidTag, ValueError) as error:
            raise Tampered(f"the stored key of round {key.round} was changed; the round is lost") from error

    def destroy_all_but(self, wanted: Collection[tuple[str, int]]) -> None:
        """Destroy every key but those of the given (study, round) pairs."""
        kept = {path for study, number in wanted for path in self._places(study, number)}
        for path in [p for p in self._folder.glob("*.key") if p not in kept]:
            shred(path)

    def _places(self, study: str, number: int) -> tuple[Path, Path]:
        """Return where a key lies: by the whole hash of its study, and where it lay before, by half of it."""
        digest = sha256_hex(study.encode())
        return self._folder / f"{digest}-{number}.key", self._folder / f"{digest[:_SHORT_DIGITS]}-{number}.key"


def _label(key: RoundKey) -> bytes:
    return canonical_json({"study": key.study, "round": key.round, "key_hash": key.key_hash}, 1)
