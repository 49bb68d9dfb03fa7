"""Who gets which notice, and how: ``notices.toml`` in a role's folder; without the file nobody gets any.

::

    reminder_days = 3                        # a request that waits is told again after so many days; 0: never
    budget_marks = [0.5, 0.8, 0.95]          # shares of the cap

    [smtp]
    host = "mail.hospital.example"
    port = 587
    security = "starttls"                    # or "tls", or "none" inside a trusted network
    sender = "tessera@hospital.example"
    user = "tessera"
    password_file = "/etc/tessera/smtp"
    ca = "/etc/tessera/mail-ca.pem"          # without: whom this machine trusts

    [[people]]
    name = "anna"                            # her account's name
    email = "anna@hospital.example"
    kinds = ["new-request", "signature-wanted", "decision"]     # without: every kind
    away_until = "2026-08-21"                # holidays: until then her notices go to her delegate as well; she can
                                             # say so herself on the portal's page /away
    delegate = "bela"

    [[webhooks]]
    url = "https://chat.hospital.example/hooks/1"
    secret_file = "/etc/tessera/hook"        # HMAC-SHA256 of the body, in the header X-Tessera-Signature
"""

from __future__ import annotations

import datetime as dt
import tomllib
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from datasites.language.shapes import expected
from privacy.errors import InvalidInput
from privacy.sentences import say

FILE = "notices.toml"
Kind = Literal[
    "new-request", "signature-wanted", "decision", "refused-round", "budget-mark", "stopped-worker", "reminder"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
_Address = Annotated[str, Field(pattern=r"^[^@\s<>,;:\"]{1,64}@[^@\s<>,;:\"]{1,190}$")]
_Share = Annotated[float, Field(gt=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Smtp(_Section):
    """The mail server; ``ca`` is a PEM file of who vouches for its certificate, empty for whom this machine trusts."""

    host: str
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: _Address
    user: str = ""
    password_file: str = ""
    ca: str = ""

    @model_validator(mode="after")
    def _password_needs_tls(self) -> Smtp:
        if self.user and self.security == "none":
            raise ValueError(say("a password is never sent without TLS: set security to starttls or tls"))
        return self


class Person(_Section):
    """One person who gets mail; ``delegate`` is another person's name."""

    name: str
    email: _Address
    kinds: tuple[Kind, ...] = KINDS
    away_until: dt.date | None = None
    delegate: str = ""

    def is_away(self, day: dt.date) -> bool:
        """Return whether somebody stands in for this person on ``day``."""
        return bool(self.delegate) and self.away_until is not None and day <= self.away_until


class Webhook(_Section):
    """An address that gets every notice as JSON."""

    url: str = Field(pattern="^https?://[^\\s]{1,500}$")
    secret_file: str = ""
    kinds: tuple[Kind, ...] = KINDS


class NoticeSettings(_Section):
    """Everything in the file."""

    reminder_days: int = Field(default=3, ge=0, le=365)
    budget_marks: tuple[_Share, ...] = (0.5, 0.8, 0.95)
    smtp: Smtp | None = None
    people: tuple[Person, ...] = ()
    webhooks: tuple[Webhook, ...] = ()

    @model_validator(mode="after")
    def _known_delegates(self) -> NoticeSettings:
        names = {person.name for person in self.people}
        for person in self.people:
            if person.delegate and (person.delegate not in names or person.delegate == person.name):
                raise ValueError(say("the delegate of {name!r} has to be another of the people", name=person.name))
        if self.people and self.smtp is None:
            raise ValueError(say("people get mail: set [smtp]"))
        return self

    @classmethod
    def load(cls, folder: Path) -> NoticeSettings:
        """Read the file in a role's folder; without it nobody gets a notice.

        Raises:
            InvalidInput: not TOML, an unknown key, or a value out of range.
        """
        path = folder / FILE
        if not path.exists():
            return cls()
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidInput(
                say("expected notices in TOML at {name}, could not read them: {error}", name=FILE, error=error)
            ) from error
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or say("the whole file")
            raise InvalidInput(say("{name} is not valid: {why}", name=FILE, why=expected(first, where))) from error
