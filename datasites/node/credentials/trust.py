"""TLS settings of those who dial: whom they trust. They need no certificate's content, and load quickly."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import certifi

from privacy.errors import InvalidInput


def client_context(ca: Path) -> ssl.SSLContext:
    """Return TLS settings that trust the authority in ``ca`` and nobody else.

    Raises:
        InvalidInput: no certificate can be read there.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"expected the authority's certificate (PEM) at {ca.name}; copy it there") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def own_context(certificate: Path) -> ssl.SSLContext:
    """Return TLS settings by which a server's own commands know it: this very certificate, under any name.

    Raises:
        InvalidInput: no certificate can be read there.
    """
    context = client_context(certificate)
    context.check_hostname = False  # it is dialled where it listens, and certificates are made out to public names
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, BSD
)


def machine_context() -> ssl.SSLContext:
    """Return TLS settings that trust whom this machine trusts: ``SSL_CERT_FILE``, or the system's own authorities.

    Only a machine without any uses those that come with the package certifi.

    Raises:
        InvalidInput: ``SSL_CERT_FILE`` names no file of certificates.
    """
    named = os.environ.get("SSL_CERT_FILE", "")
    if named:
        try:
            return client_context(Path(named))
        except InvalidInput as error:
            raise InvalidInput(
                f"expected a file of certificates (PEM) in SSL_CERT_FILE, got {named!r}; correct it or unset it"
            ) from error
    bundle = next((path for path in _BUNDLES if Path(path).is_file()), None) or certifi.where()
    return client_context(Path(bundle))
