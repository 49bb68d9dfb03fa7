"""The certificate of a hospital's portal: its request, made when it joins, and what the operator makes of it.

The operator's authority vouches for the orchestrator's server everywhere. So it never signs a name of that server for
anybody else, and what it signs is good for a server only.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from datasites.node.credentials.tls import Authority, general_name, new_key, server_certificate
from privacy.errors import InvalidInput, Refused

MOST_NAMES = 10
_MOST_CHARACTERS = 16 * 1024
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def request_certificate(names: Sequence[str]) -> tuple[bytes, str]:
    """Make a key and ask for a certificate of these host names and addresses.

    Returns:
        The key (PEM, secret) and the request (PEM, PKCS #10).

    Raises:
        InvalidInput: no name, too many, or none that a host can have.
    """
    if not 1 <= len(names) <= MOST_NAMES:
        raise InvalidInput(f"expected 1 to {MOST_NAMES} host names for the certificate, got {len(names)}")
    wanted = [general_name(name) for name in names]
    for name, shown in zip(wanted, names, strict=True):
        if not _is_plain(name):
            raise InvalidInput(f"expected the name or the address of a host, got {shown[:80]!r}")
    key, pem = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _written(wanted[0])[:64])])
    builder = x509.CertificateSigningRequestBuilder(subject_name=subject)
    builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
    return pem, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def requested_names(request: str) -> tuple[str, ...]:
    """Return the names that a request asks for, after checking that whoever asks has the key.

    Raises:
        InvalidInput: no such request.
    """
    return tuple(_written(name) for name in _read(request)[1])


def answer_request(authority: Authority, request: str, *, ours: Collection[str]) -> str:
    """Sign a request; return the certificate (PEM).

    Args:
        authority: who signs.
        request: of the party.
        ours: the orchestrator's own names, which nobody else gets.

    Raises:
        InvalidInput: no sound request.
        Refused: it asks for a name of the orchestrator's.
    """
    asked, names = _read(request)
    taken = sorted({_written(general_name(name)) for name in ours} & {_written(name) for name in names})
    if taken:
        raise Refused(f"the request asks for {', '.join(taken)}, the orchestrator's own name; nobody else gets that")
    key = asked.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidInput("expected a certificate request with an elliptic-curve key")
    return server_certificate(authority, names, key).decode()


def _read(request: str) -> tuple[x509.CertificateSigningRequest, list[x509.GeneralName]]:
    try:
        if len(request) > _MOST_CHARACTERS:
            raise ValueError
        asked = x509.load_pem_x509_csr(request.encode())
        names = list(asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        sound = asked.is_signature_valid and 1 <= len(names) <= MOST_NAMES
        plain = all(_is_plain(name) for name in names)
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise InvalidInput("expected a certificate request (PEM), signed with its own key") from error
    if not sound or not plain:
        raise InvalidInput(f"expected a request signed with its own key, for 1 to {MOST_NAMES} plain host names")
    return asked, names


def _is_plain(name: x509.GeneralName) -> bool:
    return isinstance(name, x509.IPAddress) or (
        isinstance(name, x509.DNSName) and _HOST.fullmatch(_written(name)) is not None
    )


def _written(name: x509.GeneralName) -> str:
    value = name.value
    return str(value) if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address) else str(value).lower()
