"""PDFs that a role signs, and how to check them (PAdES B-B, ETSI EN 319 142-1, by pyHanko).

PDF readers know elliptic curves over P-256 and hardly any knows Ed25519. So a role signs with a P-256 key that is
derived from its identity, and its identity certifies that key: the signature carries two certificates, the identity's
own (Ed25519, signed by itself) and the one it issued for the P-256 key. Whoever knows the identity's fingerprint knows
who signed; no other authority is involved, and the time of the signature is the signer's own word.

The signature covers every byte and allows no later change.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID, ObjectIdentifier

from datasites.node.home import Home
from privacy.errors import InvalidInput, Tampered, TesseraError
from privacy.identity import Identity, fingerprint

if TYPE_CHECKING:
    from pyhanko.sign.signers import SimpleSigner

MOST_BYTES = 64 * 2**20
_FIELD = "Tessera"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_DOCUMENT_SIGNING = ObjectIdentifier("1.3.6.1.5.5.7.3.36")  # RFC 9336
_FROM, _UNTIL = dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2099, 12, 31, tzinfo=dt.UTC)
_LONGEST_NAME = 64  # of a certificate's subject, RFC 5280


@dataclass(frozen=True, kw_only=True)
class PdfSignature:
    """A signature that holds: whose, and when by the signer's own clock (ISO time, UTC)."""

    public_key: str
    fingerprint: str
    name: str
    institution: str
    signed_at: str


def sign_pdf(document: bytes, identity: Identity, *, name: str, institution: str, reason: str) -> bytes:
    """Return a PDF with the signature of an identity, as its last revision.

    Args:
        document: a PDF without a signature.
        identity: of the role that signs.
        name, institution: the role's name in the consortium, and its institution's; cut to 64 characters.
        reason: why it is signed, as readers show it.
    """
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import signers
    from pyhanko.sign.fields import InvisSigSettings, MDPPerm, SigFieldSpec, SigSeedSubFilter

    settings = signers.PdfSignatureMetadata(
        field_name=_FIELD,
        md_algorithm="sha256",
        subfilter=SigSeedSubFilter.PADES,
        reason=reason,
        name=institution,
        certify=True,
        docmdp_permissions=MDPPerm.NO_CHANGES,
    )
    hidden = InvisSigSettings(set_print_flag=False, set_hidden_flag=True)  # PDF/UA reads no hidden field aloud
    signed: Any = _outside_a_loop(
        lambda: signers.sign_pdf(
            IncrementalPdfFileWriter(io.BytesIO(document)),
            settings,
            _signer(identity, name=name, institution=institution),
            new_field_spec=SigFieldSpec(sig_field_name=_FIELD, invis_sig_settings=hidden),
        )
    )
    return bytes(signed.getvalue())


def _outside_a_loop(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns; in a thread of its own where an event loop runs, as in a notebook.

    pyHanko starts an event loop of its own, which Python allows only once in a thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()


def signer_of(home: Home, reason: str) -> Callable[[bytes], bytes]:
    """Return what signs a PDF in the name of a role, as :func:`sign_pdf` does."""
    config, identity = home.config(), home.identity()
    return lambda document: sign_pdf(
        document, identity, name=config.name, institution=config.institution, reason=reason
    )


def check_pdf(document: bytes) -> PdfSignature:
    """Check that a PDF is as its signer signed it, every byte of it.

    Who the signer is, only the fingerprint says: compare it with the one that the institution tells.

    Raises:
        InvalidInput: too large, no PDF, or without a signature.
        Tampered: changed after it was signed, or signed in another way than :func:`sign_pdf` does.
    """
    from pyhanko.pdf_utils.reader import PdfFileReader

    if len(document) > MOST_BYTES:
        raise InvalidInput(f"expected a PDF of at most {MOST_BYTES // 2**20} MiB, got {len(document) // 2**20} MiB")
    if not document.startswith(b"%PDF-"):
        raise InvalidInput("expected a PDF, got another kind of file")
    try:
        found = PdfFileReader(io.BytesIO(document)).embedded_signatures
        if not found:
            raise InvalidInput("expected a signed PDF, got one without a signature; ask its author for the signed one")
        if len(found) > 1:
            raise Tampered(f"the PDF has {len(found)} signatures instead of one; ask its author for it again")
        _check_place(document, found[0])
        return _checked(found[0])
    except TesseraError:
        raise
    except Exception as error:  # three libraries read foreign bytes here; each has errors of its own
        raise Tampered("the PDF or its signature is damaged; ask its author for it again") from error


def _check_place(document: bytes, signature: Any) -> None:
    """Refuse a change of the bytes that no PDF signature covers: its own place, written in hexadecimal digits."""
    start, length, second, _ = (int(number) for number in signature.byte_range)
    place = document[start + length : second]
    expected = _envelope(signature).hex().upper().encode().ljust(len(place) - 2, b"0")
    if start != 0 or place != b"<" + expected + b">":
        raise Tampered("the PDF was changed beside its signature; ask its author for it again")


def _envelope(signature: Any) -> bytes:
    """Return the one way to write down what the signature says: DER, in the order that :func:`sign_pdf` writes."""
    from asn1crypto import cms
    from asn1crypto.x509 import Certificate

    def rebuilt(certificate: Any) -> Any:
        parts = {name: certificate[name] for name in ("tbs_certificate", "signature_algorithm")}
        return Certificate({**parts, "signature_value": certificate["signature_value"].native})

    signer, sha256 = signature.signer_info, {"algorithm": "sha256"}
    return bytes(
        cms.ContentInfo(
            {
                "content_type": "signed_data",
                "content": {
                    "version": "v1",
                    "digest_algorithms": [sha256],
                    "encap_content_info": {"content_type": "data"},
                    "certificates": [rebuilt(found.chosen) for found in signature.signed_data["certificates"]],
                    "signer_infos": [
                        {
                            "version": "v1",
                            "sid": signer["sid"],
                            "digest_algorithm": sha256,
                            "signed_attrs": signer["signed_attrs"],
                            "signature_algorithm": {"algorithm": "sha256_ecdsa"},
                            "signature": signer["signature"].native,
                        }
                    ],
                },
            }
        ).dump()
    )


def _checked(signature: Any) -> PdfSignature:
    from pyhanko.sign.diff_analysis import ModificationLevel
    from pyhanko.sign.validation import SignatureCoverageLevel, validate_pdf_signature
    from pyhanko_certvalidator import ValidationContext

    root, leaf = _certificates(signature)
    context = ValidationContext(trust_roots=[_asn1(root)], allow_fetching=False)
    status = _outside_a_loop(lambda: validate_pdf_signature(signature, signer_validation_context=context))
    covered = status.coverage == SignatureCoverageLevel.ENTIRE_FILE
    unchanged = status.modification_level in (None, ModificationLevel.NONE)
    if not (status.intact and status.valid and status.trusted and covered and unchanged):
        raise Tampered("the PDF was changed after it was signed; do not use it, and ask its author for it again")
    key = root.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise Tampered("the PDF was signed with another kind of key than Tessera's; ask its author for it again")
    public_key = key.public_bytes_raw().hex()
    when = status.signer_reported_dt
    return PdfSignature(
        public_key=public_key,
        fingerprint=fingerprint(public_key),
        name=_part(leaf, NameOID.COMMON_NAME),
        institution=_part(leaf, NameOID.ORGANIZATION_NAME),
        signed_at=when.astimezone(dt.UTC).isoformat(timespec="seconds") if when else "",
    )


def _certificates(signature: Any) -> tuple[x509.Certificate, x509.Certificate]:
    """Return the identity's own certificate and the one it issued, as they are in the signature."""
    leaf = x509.load_der_x509_certificate(signature.signer_cert.dump())
    others = [x509.load_der_x509_certificate(c.dump()) for c in signature.other_embedded_certs]
    root = next((c for c in others if c.subject == c.issuer == leaf.issuer), None)
    if root is None:
        raise Tampered("the PDF's signature does not say whose key it is; ask its author for it again")
    try:
        root.verify_directly_issued_by(root)
        leaf.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise Tampered("the key of the PDF's signature is not certified; ask its author for it again") from error
    return root, leaf


def _part(certificate: x509.Certificate, oid: ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _signer(identity: Identity, *, name: str, institution: str) -> SimpleSigner:
    from asn1crypto.keys import PrivateKeyInfo
    from pyhanko.sign.signers import SimpleSigner
    from pyhanko_certvalidator.registry import SimpleCertificateStore

    key = signing_key(identity)
    root, leaf = _issue(identity, key, name=name, institution=institution)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    registry: Any = SimpleCertificateStore()  # type: ignore[no-untyped-call]
    registry.register(_asn1(root))
    return SimpleSigner(signing_cert=_asn1(leaf), signing_key=PrivateKeyInfo.load(der), cert_registry=registry)


def signing_key(identity: Identity) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key of an identity: 64 derived bytes, reduced modulo the order (FIPS 186-5, A.2.1)."""
    wide = identity.derive_secret("pdf-signature/1") + identity.derive_secret("pdf-signature/2")
    return ec.derive_private_key(int.from_bytes(wide, "big") % (_ORDER - 1) + 1, ec.SECP256R1())


def _issue(
    identity: Identity, key: ec.EllipticCurvePrivateKey, *, name: str, institution: str
) -> tuple[x509.Certificate, x509.Certificate]:
    """Return the identity's own certificate and the one it gives to the P-256 key."""
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, (institution or name)[:_LONGEST_NAME])
    issuer = x509.Name(
        [organisation, x509.NameAttribute(NameOID.COMMON_NAME, f"Tessera {fingerprint(identity.public_key)}")]
    )
    subject = x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, name[:_LONGEST_NAME])])
    own = Ed25519PublicKey.from_public_bytes(bytes.fromhex(identity.public_key))
    usage = {"key_encipherment": False, "data_encipherment": False, "key_agreement": False}
    usage |= {"encipher_only": False, "decipher_only": False, "crl_sign": False}
    root = (
        _builder(issuer, issuer, own)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=False, content_commitment=False, key_cert_sign=True, **usage),
            critical=True,
        )
    )
    leaf = (
        _builder(subject, issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, content_commitment=True, key_cert_sign=False, **usage),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([_DOCUMENT_SIGNING]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
    )
    return identity.sign_certificate(root), identity.sign_certificate(leaf)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey | ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _asn1(certificate: x509.Certificate) -> Any:
    from asn1crypto.x509 import Certificate

    return Certificate.load(certificate.public_bytes(serialization.Encoding.DER))
