"""What a person gives to show that they are the one who acts: the password, and the answer of a security key.

The answer of a key counts for one act: for one address of this portal and exactly the content that is sent there. A
challenge is kept for two minutes, for the session that asked, and is gone with the first answer, right or wrong.
"""

from __future__ import annotations

import datetime as dt
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from datasites.review.people.security_keys import RelyingParty
from privacy.canonical import canonical_hash
from privacy.errors import Refused
from privacy.sentences import say

CHALLENGE_SECONDS = 120
SECRETS = frozenset({"csrf", "password", "new", "security_key", "token"})
"""Fields of forms that no act is named by."""
_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A password and a security key's answer as they were sent, and the act and the address they were sent for.

    ``act`` is :func:`act_of`; ``host`` is the address under which the person reached the portal, such as
    ``https://hospital.example``.
    """

    password: str = ""
    answer: str = ""
    act: str = ""
    host: str = ""


def act_of(path: str, fields: Iterable[tuple[str, str]]) -> str:
    """Return a hash of one act: where it is sent, and with which content, without passwords and tokens."""
    content = sorted([name, value.replace("\r\n", "\n")] for name, value in fields if name not in SECRETS)
    return canonical_hash({"path": path, "fields": content})


def relying_party(public_url: str, host: str, title: str) -> RelyingParty:
    """Return whom security keys are registered for.

    Args:
        public_url: where people reach the portal, as its settings say; may be empty.
        host: origin of the request. A caller chooses it; it counts only as this very machine (``localhost``).
        title: shown by the browser.

    Raises:
        Refused: an address that no security key can be registered for.
    """
    address = urlsplit(public_url or host)
    name = address.hostname or ""
    if _is_number(name) or (not public_url and name != "localhost"):
        raise Refused(
            say(
                "security keys belong to a name: set the portal's public_url to an address with a name, or open it as "
                "http://localhost"
            )
        )
    if address.scheme != "https" and name != "localhost":
        raise Refused(say("browsers use security keys over HTTPS only; serve the portal over HTTPS (docs/deploy.md)"))
    port = f":{address.port}" if address.port and address.port != {"https": 443, "http": 80}[address.scheme] else ""
    return RelyingParty(name=name, origin=f"{address.scheme}://{name}{port}", title=title)


class Challenges:
    """Challenges that wait for the answer of a security key; forgotten when the portal restarts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], tuple[bytes, dt.datetime]] = {}

    def new(self, session: str, act: str, *, now: dt.datetime) -> bytes:
        """Return a new challenge for one act of one session; an earlier one for the same is void."""
        challenge = secrets.token_bytes(32)
        with self._lock:
            self._waiting.pop((session, act), None)
            while len(self._waiting) >= _MOST:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[session, act] = (challenge, now + dt.timedelta(seconds=CHALLENGE_SECONDS))
        return challenge

    def take(self, session: str, act: str, *, now: dt.datetime) -> bytes:
        """Return the challenge of one act of one session, once.

        Raises:
            Refused: there is none, it was answered already, or it took too long.
        """
        with self._lock:
            challenge, until = self._waiting.pop((session, act), (b"", now))
        if not challenge or now >= until:
            raise Refused(say("the security key was asked for something else, or too long ago; send the form again"))
        return challenge


def _is_number(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
