from __future__ import annotations

import asyncio
import random

import pytest
import typst
from cryptography.hazmat.primitives import serialization

from datasites.node.credentials.signed_pdf import MOST_BYTES, check_pdf, sign_pdf, signing_key
from privacy.errors import InvalidInput, Tampered
from privacy.identity import Identity

ALBA = Identity.from_seed(b"a" * 32)


@pytest.fixture(scope="module")
def plain() -> bytes:
    return bytes(typst.compile(b'#set document(title: "Report")\n= A report'))


@pytest.fixture(scope="module")
def signed(plain: bytes) -> bytes:
    return sign_pdf(plain, ALBA, name="alba", institution="東京大学病院 " * 20, reason="Report alba-J1-L1")


def test_the_signature_says_whose_identity_it_is_and_covers_the_document(plain: bytes, signed: bytes) -> None:
    found = check_pdf(signed)
    assert found.public_key == ALBA.public_key and found.name == "alba" and found.signed_at.endswith("+00:00")
    assert found.institution.startswith("東京大学病院") and len(found.institution) <= 64
    assert signed.startswith(plain)  # an incremental update: nothing of what was set is written anew
    assert b"ETSI.CAdES.detached" in signed


def test_inside_a_running_event_loop_a_report_is_signed_and_checked_too(plain: bytes) -> None:
    async def notebook() -> str:
        return check_pdf(sign_pdf(plain, ALBA, name="alba", institution="Alba", reason="Report")).name

    assert asyncio.run(notebook()) == "alba"


def test_a_changed_byte_is_found_wherever_it_is(signed: bytes) -> None:
    start = signed.index(b"/Contents <") + 10
    end = signed.index(b">", start)
    envelope = range(start, end)  # no PDF signature covers its own place; ours does
    chosen = random.Random(12)  # noqa: S311  the same places every time
    places = {*chosen.sample(range(len(signed)), 12), *chosen.sample(envelope, 20), start + 1, start + 52, end - 1}
    for place in sorted(places | {0, len(signed) - 1}):
        changed = bytearray(signed)
        changed[place] ^= 1
        with pytest.raises((Tampered, InvalidInput)):
            check_pdf(bytes(changed))


@pytest.mark.parametrize("change", [lambda d: d + b"\n", lambda d: d[:-1], lambda d: d[: len(d) // 2]])
def test_a_document_that_is_longer_or_shorter_is_refused(signed: bytes, change) -> None:
    with pytest.raises((Tampered, InvalidInput)):
        check_pdf(change(signed))


def test_what_is_no_signed_pdf_is_refused(plain: bytes) -> None:
    with pytest.raises(InvalidInput, match="without a signature"):
        check_pdf(plain)
    with pytest.raises(InvalidInput, match="another kind"):
        check_pdf(b"hello")
    with pytest.raises(InvalidInput, match="at most"):
        check_pdf(b"%PDF-" + bytes(MOST_BYTES))


def test_a_second_signature_on_top_is_refused(signed: bytes) -> None:
    from io import BytesIO

    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter

    writer = IncrementalPdfFileWriter(BytesIO(signed))
    writer.update_root()
    changed = BytesIO()
    writer.write(changed)
    with pytest.raises(Tampered):
        check_pdf(changed.getvalue())


def test_the_signing_key_is_derived_from_the_identity_and_from_nothing_else() -> None:
    def raw(identity: Identity) -> bytes:
        key = signing_key(identity).public_key()
        return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)

    assert raw(ALBA) == raw(Identity.from_seed(b"a" * 32)) != raw(Identity.from_seed(b"b" * 32))
