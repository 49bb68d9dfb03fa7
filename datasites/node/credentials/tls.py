"""Certificates between the roles: a small authority made at first start, or the operator's own files.

The orchestrator is the only server that others dial. At its first start it makes an authority of its own and a server
certificate signed by it; everybody else gets the authority's certificate (public) and trusts nothing beside it. TLS
hides who asks for what; who may ask stands in the signed tokens (:mod:`datasites.node.credentials.tokens`), which hold
without it.

    >>> authority = ensure_authority(home / "tls", name="orchestrator")
    >>> server = ensure_server_certificate(authority, home / "tls", names=["orchestrator", "localhost", "127.0.0.1"])
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import idna
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from datasites.node.files import write_atomically
from datasites.node.home import Home
from privacy.errors import InvalidInput

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
RENEW_DAYS = 180
_BACKDATED = dt.timedelta(hours=1)  # for clocks that are a little behind


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Who signs server certificates; ``certificate_path`` is the public half that clients are given."""

    certificate_path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_authority(folder: Path, *, name: str, now: dt.datetime | None = None) -> Authority:
    """Read the authority in ``folder`` or make it: ``authority.pem`` (key and certificate) and ``ca.pem`` (public).

    Raises:
        InvalidInput: the file holds no key and certificate.
    """
    path = folder / "authority.pem"
    if not path.exists():
        write_atomically(path, _new_authority(name, now or dt.datetime.now(dt.UTC)))
    key, certificate = _read(path)
    public = folder / "ca.pem"
    text = certificate.public_bytes(Encoding.PEM)
    if not public.exists() or public.read_bytes() != text:
        write_atomically(public, text, mode=0o644)
    return Authority(certificate_path=public, certificate=certificate, key=key)


def ensure_server_certificate(
    authority: Authority, folder: Path, *, names: Sequence[str], now: dt.datetime | None = None
) -> Path:
    """Return ``server.pem`` (key and certificate in one file), made or renewed where that is due.

    It is made again when it ends within :data:`RENEW_DAYS` days, or stands for other names.

    Args:
        authority: who signs.
        folder: where the file lies.
        names: host names and IP addresses that clients dial.
        now: the present time.

    Raises:
        InvalidInput: no name at all, or the file is damaged.
    """
    if not names:
        raise InvalidInput("expected at least one host name or address for the server certificate, got none")
    moment = now or dt.datetime.now(dt.UTC)
    path = folder / "server.pem"
    if not path.exists() or not _still_good(path, authority, names, moment):
        write_atomically(path, _new_server(authority, names, moment))
    return path


def renew_own(home: Home) -> None:
    """Make a role's certificate again where its own authority made it and it ends soon; others are their owner's.

    Raises:
        InvalidInput: the authority's file is damaged.
    """
    folder, config = home.folder / "tls", home.config()
    path = folder / "server.pem"
    if (folder / "authority.pem").exists() and path.exists() and config.tls_certificate == str(path):
        authority = ensure_authority(folder, name=config.name)
        _, certificate = _read(path)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        ensure_server_certificate(authority, folder, names=[str(name.value) for name in names])


def ends_soon(path: Path, now: dt.datetime) -> bool:
    """Return whether the certificate in a file ends within the last days in which a start renews it.

    Raises:
        InvalidInput: there is none in it.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"expected a certificate (PEM) in {path.name}; restore it from backup") from error
    return certificate.not_valid_after_utc - now <= dt.timedelta(days=RENEW_DAYS)


def _still_good(path: Path, authority: Authority, names: Sequence[str], now: dt.datetime) -> bool:
    _, certificate = _read(path)
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        standing = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # cryptography raises one of several kinds; each means: make it again
        return False
    lasts = certificate.not_valid_after_utc - now > dt.timedelta(days=RENEW_DAYS)
    return lasts and list(standing) == [general_name(name) for name in names]


def _new_authority(name: str, now: dt.datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Tessera authority of {name}"[:64])])
    builder = _builder(subject, subject, key.public_key(), now, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return _key_pem(key) + certificate.public_bytes(Encoding.PEM)


def new_key() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return a new key for a server, and the same as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _key_pem(key)


def _new_server(authority: Authority, names: Sequence[str], now: dt.datetime) -> bytes:
    key, pem = new_key()
    return pem + server_certificate(authority, [general_name(name) for name in names], key.public_key(), now=now)


def server_certificate(
    authority: Authority,
    names: Sequence[x509.GeneralName],
    key: ec.EllipticCurvePublicKey,
    *,
    now: dt.datetime | None = None,
) -> bytes:
    """Return a server's certificate (PEM) for these names and this key, good for :data:`SERVER_DAYS` days."""
    moment = now or dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(names[0].value)[:64])])
    builder = _builder(authority.certificate.subject, subject, key, moment, SERVER_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = builder.add_extension(issuer, critical=False).sign(authority.key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM)


def _builder(
    issuer: x509.Name, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=public_key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _BACKDATED,
        not_valid_after=now + dt.timedelta(days=days),
    )
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def general_name(name: str) -> x509.DNSName | x509.IPAddress:
    """Return a host's name or address as a certificate holds it; a name is written as name servers write it (IDNA).

    Raises:
        InvalidInput: no host can be called so.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(ascii_host(name))


def ascii_host(name: str) -> str:
    """Return a host's name as certificates and name servers write it (IDNA).

    >>> ascii_host("klinik-köln.example")
    'xn--klinik-kln-lcb.example'

    Raises:
        InvalidInput: no host can be called so.
    """
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise InvalidInput(f"expected the name of a host, got {name[:80]!r}") from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    data = path.read_bytes()
    try:
        key, certificate = load_pem_private_key(data, None), x509.load_pem_x509_certificate(data)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"expected a key and a certificate (PEM) in {path.name}; restore it from backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"expected an elliptic-curve key in {path.name}; restore it from backup")
    return key, certificate
