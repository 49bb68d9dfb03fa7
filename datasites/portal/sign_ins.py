"""Sign-ins with the hospital's own accounts that are under way in one portal."""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasites.accounts import Account
from privacy.errors import Refused

if TYPE_CHECKING:
    from datasites.oidc import Begun

SIGN_IN_SECONDS = 600
_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A sign-in under way: its secrets, where the person wanted to go, and whose account is to be linked, if any."""

    begun: Begun
    browser: str
    to: str
    account: Account | None
    until: dt.datetime


class SignIns:
    """The sign-ins under way in one portal; forgotten after ten minutes, and when the portal restarts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, Pending] = {}

    def add(self, begun: Begun, *, to: str, account: Account | None, now: dt.datetime) -> str:
        """Remember one and return the secret that its browser keeps in a cookie."""
        browser = secrets.token_urlsafe(32)
        until = now + dt.timedelta(seconds=SIGN_IN_SECONDS)
        with self._lock:
            while len(self._pending) >= _MOST:
                del self._pending[next(iter(self._pending))]
            self._pending[begun.state] = Pending(begun=begun, browser=browser, to=to, account=account, until=until)
        return browser

    def take(self, state: str, browser: str, *, now: dt.datetime) -> Pending:
        """Return the sign-in of ``state`` once, to the browser that began it.

        Raises:
            Refused: unknown, finished, too late, or another browser's.
        """
        with self._lock:
            found = self._pending.get(state)
            if found is not None and hmac.compare_digest(found.browser.encode(), browser.encode()):
                del self._pending[state]
                if now < found.until:
                    return found
        raise Refused("this sign-in was not begun in this browser, is finished or took too long; begin again")
