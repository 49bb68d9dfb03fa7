"""An invitation as a QR code. A code holds some hundred letters, so it says where the invitation lies, and its hash.

    https://study.example:8443/invitations/0f...#<SHA-256 of the invitation>

Whoever reads it fetches the invitation from the orchestrator and compares the hash: nobody on the way can change it.
"""

from __future__ import annotations

import hmac
import io
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from datasites.node.consortium import check_address
from datasites.node.http import PLAIN, checked_proxy, read_plain
from datasites.node.joining.documents import MOST_BYTES
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Tampered, TesseraError

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_PIXELS = 16_000_000
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Code:
    """Where an invitation lies, and the SHA-256 of its bytes."""

    address: str
    sha256: str

    @property
    def text(self) -> str:
        """What stands in the code."""
        return f"{self.address}#{self.sha256}"

    @classmethod
    def read(cls, text: str) -> Code:
        """Read the text of a code.

        Raises:
            InvalidInput: it is none.
        """
        address, _, digest = text.strip().partition("#")
        number = urlsplit(address).path.rpartition("/")[2]
        hexadecimal = all(letter in "0123456789abcdef" for letter in digest + number)
        if len(digest) != 64 or len(number) != 32 or not hexadecimal:
            raise InvalidInput("expected the text of an invitation's QR code, an address with # and 64 digits")
        check_address(address)
        return cls(address=address, sha256=digest)


def draw(code: Code) -> bytes:
    """Return the code as a picture (PNG)."""
    import segno  # only the operator's command draws

    picture = io.BytesIO()
    segno.make(code.text, error="m", micro=False).save(picture, kind="png", scale=8, border=4)
    return picture.getvalue()


def is_picture(data: bytes) -> bool:
    """Tell whether these bytes are a PNG."""
    return data.startswith(_PNG)


def read_picture(data: bytes) -> Code:
    """Read the code in a picture (PNG).

    Raises:
        InvalidInput: no picture, too large a one, or not exactly one invitation's code in it.
    """
    import zxingcpp  # only a command that is given a picture needs these
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise InvalidInput(f"expected a picture of at most {_MOST_PIXELS // 10**6} million pixels")
            found = zxingcpp.read_barcodes(picture.convert("L"), formats=zxingcpp.barcode_formats_from_str("QRCode"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidInput("expected a picture (PNG) of an invitation's QR code, could not read it") from error
    if len(found) != 1:
        raise InvalidInput(f"expected one QR code in the picture, found {len(found)}; cut the picture or scan it again")
    return Code.read(found[0].text)


def fetch(code: Code, *, proxy: str = "") -> bytes:
    """Fetch the invitation that a code names.

    Its authority's certificate comes with it, so nothing can vouch for the server yet. The hash vouches for what it
    sends.

    Raises:
        TesseraError: the orchestrator does not answer, or has no such invitation any more.
        Tampered: it sent something else.
    """
    blind = ssl._create_unverified_context()  # noqa: S323 - the hash is what is checked
    try:
        with (
            httpx.Client(
                verify=blind, trust_env=False, timeout=_ANSWER_SECONDS, proxy=checked_proxy(proxy) if proxy else None
            ) as client,
            client.stream("GET", code.address, headers=PLAIN) as answer,
        ):
            data, status = read_plain(answer, MOST_BYTES), answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TesseraError(
            f"{urlsplit(code.address).hostname} did not give the invitation ({type(error).__name__}); is the "
            "orchestrator running, and can this machine reach it?"
        ) from error
    if status != httpx.codes.OK:
        raise TesseraError(f"the orchestrator has no such invitation (status {status}); ask its operator for another")
    if not hmac.compare_digest(sha256_hex(data), code.sha256):
        raise Tampered("the orchestrator sent another invitation than the code names; ask its operator for another")
    return data


def read_any(text: str, *, proxy: str = "") -> bytes:
    """Return an invitation from what a person gives: a file, a picture of a code, or the text of one.

    Raises:
        InvalidInput, Tampered, TesseraError: none of these; or as :func:`fetch`.
    """
    if text.startswith(("https://", "http://")):
        return fetch(Code.read(text), proxy=proxy)
    path = Path(text)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"expected an invitation's file, a picture of its QR code or the code's text, got {text[:80]!r}"
        ) from error
    return fetch(read_picture(data), proxy=proxy) if is_picture(data) else data
