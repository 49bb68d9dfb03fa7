"""Sends what is in the outbox: mail by SMTP, webhooks by HTTP; what fails is journaled once it is given up."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import logging
import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx

from datasites.node.notices.outbox import Outbox, Queued
from datasites.node.notices.settings import NoticeSettings, Smtp
from privacy.canonical import plain_json
from privacy.errors import InvalidInput

_log = logging.getLogger(__name__)
_SECONDS = 15.0
SIGNATURE = "X-Tessera-Signature"


class Delivery:
    """Sends the notices of one role.

    Args:
        settings: the role's.
        outbox: what is to be sent.
        record: the journal's ``append``.
    """

    def __init__(
        self, settings: NoticeSettings, outbox: Outbox, record: Callable[[str, dict[str, Any]], object]
    ) -> None:
        self._settings, self._outbox, self._record = settings, outbox, record

    def step(self, now: dt.datetime) -> int:
        """Try everything that is due at ``now``; return how many went out."""
        return sum(self._tried(queued, now) for queued in self._outbox.due(now))

    def _tried(self, queued: Queued, now: dt.datetime) -> bool:
        way, _, place = queued.receiver.partition(":")
        try:
            if way == "mail":
                self._mail(place, queued)
            else:
                self._hook(place, queued)
        except (OSError, smtplib.SMTPException, httpx.HTTPError, InvalidInput) as error:
            reason = type(error).__name__  # a server's answer may name people
            _log.warning("notice %s to %s did not go out: %s", queued.notice.kind, way, reason)
            if self._outbox.failed(queued, now):
                body = {"kind": queued.notice.kind, "key": queued.notice.key, "way": way, "reason": reason}
                self._record("notice-given-up", body)
            return False
        self._outbox.sent(queued)
        return True

    def _mail(self, address: str, queued: Queued) -> None:
        smtp = self._settings.smtp
        if smtp is None:
            raise InvalidInput("there is no mail server any more")
        message = EmailMessage()
        message["From"], message["To"] = smtp.sender, address
        message["Subject"] = " ".join(queued.notice.subject.split())
        message["Message-ID"] = f"<{hashlib.sha256(queued.notice.key.encode()).hexdigest()[:32]}@tessera>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(queued.notice.body)
        with _connected(smtp) as server:
            if smtp.user:
                server.login(smtp.user, _secret(smtp.password_file))
            server.send_message(message)

    def _hook(self, url: str, queued: Queued) -> None:
        found = next((hook for hook in self._settings.webhooks if hook.url == url), None)
        if found is None:
            raise InvalidInput("there is no such webhook any more")
        notice = queued.notice
        body = plain_json(
            {
                "key": notice.key,
                "kind": notice.kind,
                "subject": notice.subject,
                "text": notice.body,
                "made": queued.made,
            }
        )
        headers = {"Content-Type": "application/json"}
        if found.secret_file:
            headers[SIGNATURE] = hmac.new(_secret(found.secret_file).encode(), body, hashlib.sha256).hexdigest()
        with httpx.Client(timeout=_SECONDS, trust_env=False, follow_redirects=False) as client:
            client.post(url, content=body, headers=headers).raise_for_status()


def _connected(smtp: Smtp) -> smtplib.SMTP:
    trust = ssl.create_default_context(cafile=smtp.ca or None)
    if smtp.security == "tls":
        return smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=_SECONDS, context=trust)
    server = smtplib.SMTP(smtp.host, smtp.port, timeout=_SECONDS)
    if smtp.security == "starttls":
        try:
            server.starttls(context=trust)
        except BaseException:
            server.close()
            raise
    return server


def _secret(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("expected a readable secret file for notices; check its path and owner") from error
