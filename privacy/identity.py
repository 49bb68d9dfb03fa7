"""Ed25519 identities and domain-separated signatures.

Every role (orchestrator, datasite, keyholder, reviewer) has one identity. A signature always covers a *kind*
("round-plan", "attestation", ...), so that a signature given for one purpose can never be shown for another.

    >>> identity = Identity.generate()
    >>> signature = identity.sign("greeting", {"to": "hospital-a"})
    >>> verify(identity.public_key, "greeting", {"to": "hospital-a"}, signature)

Ed25519 (RFC 8032) comes from the ``cryptography`` package.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509 import Certificate, CertificateBuilder

from privacy.canonical import NEWEST, CanonicalVersion, canonical_json, sha256_hex
from privacy.errors import InvalidInput, Tampered
from privacy.points import require_ed25519


def fingerprint(public_key: str) -> str:
    """Return the fingerprint people compare by voice: eight groups of four hexadecimal digits.

    Args:
        public_key: 64 hexadecimal digits, a raw Ed25519 public key.
    """
    digest = sha256_hex(_public_bytes(public_key))[:32]
    return "-".join(digest[i : i + 4] for i in range(0, 32, 4))


class Identity:
    """An Ed25519 key pair; the private half leaves the object only for its own key file."""

    def __init__(self, private_key: Ed25519PrivateKey, first: Ed25519PrivateKey | None = None) -> None:
        self._private_key = private_key
        self._first = first or private_key
        raw = private_key.public_key().public_bytes_raw()
        self.public_key: str = raw.hex()

    @classmethod
    def generate(cls) -> Identity:
        """Return a new identity from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """Return the identity of a 32-byte seed; for tests and public-seed demos only."""
        if len(seed) != 32:
            raise InvalidInput(f"expected a seed of 32 bytes, got {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load_or_create(cls, path: Path) -> Identity:
        """Read the key file at ``path`` (mode 0600), or create it.

        Raises:
            InvalidInput: the file is not an Ed25519 private key, or others may read it.
        """
        if not path.exists():
            identity = cls.generate()
            identity.save(path)
            return identity
        first = first_key_path(path)
        return cls(_read_key(path), _read_key(first) if first.exists() else None)

    def successor(self) -> Identity:
        """Return a new identity that keeps the lasting secrets of this one (:meth:`derive_lasting_secret`)."""
        return Identity(Ed25519PrivateKey.generate(), self._first)

    def save(self, path: Path) -> None:
        """Write the key file at ``path`` with mode 0600, whole or not at all; the first key, if another, beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._first is not self._private_key:
            _write_key(self._first, first_key_path(path))
        _write_key(self._private_key, path)

    def sign(self, kind: str, payload: Mapping[str, Any], version: CanonicalVersion = NEWEST) -> str:
        """Return the base64 signature of ``payload`` for the purpose ``kind``.

        It also covers the version of the canonical JSON, so that it holds under no other version.
        """
        return base64.b64encode(self._private_key.sign(_message(kind, payload, version))).decode()

    def sign_certificate(self, builder: CertificateBuilder) -> Certificate:
        """Return an X.509 certificate (RFC 8410) that this identity issues; no message of ours looks like one."""
        return builder.sign(self._private_key, None)

    def derive_secret(self, purpose: str) -> bytes:
        """Return 32 secret bytes bound to this identity's present key and ``purpose`` (HKDF-SHA256, RFC 5869)."""
        return _derived(self._private_key, purpose)

    def derive_secret_of(self, public_key: str, purpose: str) -> bytes:
        """Return what :meth:`derive_secret` gave while ``public_key`` was this identity's key.

        Raises:
            InvalidInput: that key is gone: neither the present one nor the first.
        """
        for key in (self._private_key, self._first):
            if key.public_key().public_bytes_raw().hex() == public_key:
                return _derived(key, purpose)
        raise InvalidInput(
            "expected the present key or the first, but what was drawn under the key of that time cannot be drawn again"
        )

    def derive_lasting_secret(self, purpose: str) -> bytes:
        """Return 32 secret bytes that a new key does not change: for what must be found again, such as case hashes."""
        return _derived(self._first, purpose)


def first_key_path(path: Path) -> Path:
    """Return where the first key of an identity lies once the key at ``path`` is a later one."""
    return path.with_name(f"{path.stem}.first{path.suffix}")


def _derived(key: Ed25519PrivateKey, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, None, b"tessera/v1/derive/" + purpose.encode()).derive(key.private_bytes_raw())


def _read_key(path: Path) -> Ed25519PrivateKey:
    if path.stat().st_mode & 0o077:
        raise InvalidInput(f"expected {path.name} to be readable by its owner only: run chmod 600 on it")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise InvalidInput(f"{path.name} is not a private key in PEM form; restore it") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"expected an Ed25519 key in {path.name}, got another kind; restore it")
    return key


def _write_key(key: Ed25519PrivateKey, path: Path) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def check_public_key(public_key: str) -> None:
    """Check that a text is an Ed25519 public key, before it is kept as somebody's.

    Raises:
        InvalidInput: not 64 hexadecimal digits in lower case, no point, another spelling of one, or of small order.
    """
    _public_bytes(public_key)


def verify(
    public_key: str, kind: str, payload: Mapping[str, Any], signature: str, version: CanonicalVersion = NEWEST
) -> None:
    """Check one signature.

    Args:
        public_key: 64 hexadecimal digits.
        kind: the purpose the signature must have been given for.
        payload: what was signed.
        signature: base64, 64 bytes.
        version: the version of the canonical JSON that was signed.

    Raises:
        Tampered: the signature does not hold for this key, kind, payload and version.
        InvalidInput: the key or the signature is malformed, or the key is a point of small order.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("expected a base64 signature") from error
    if base64.b64encode(raw).decode() != signature:  # one spelling: its last letter has bits that say nothing
        raise InvalidInput("expected a base64 signature in its one spelling")
    try:
        _verifying_key(public_key).verify(raw, _message(kind, payload, version))
    except InvalidSignature as error:
        raise Tampered(f"the {kind} signature does not hold; ask its author to send it again") from error


def _message(kind: str, payload: Mapping[str, Any], version: CanonicalVersion) -> bytes:
    return f"tessera/v{version}/{kind}\0".encode() + canonical_json(payload, version)


@lru_cache(maxsize=4096)
def _public_bytes(public_key: str) -> bytes:
    if len(public_key) != 64 or set(public_key) - set("0123456789abcdef"):  # one spelling for one key
        raise InvalidInput("expected a public key of 64 hexadecimal digits in lower case")
    raw = bytes.fromhex(public_key)
    require_ed25519(raw)
    return raw


@lru_cache(maxsize=4096)
def _verifying_key(public_key: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(_public_bytes(public_key))
