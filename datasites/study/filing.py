"""Who answers for a study and under which law: what an ethics board files with the request.

Everything stands in the signed proposal, so that what a hospital's people read is what was asked. Nothing has a
default: a study whose people left something out cannot be proposed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from datasites.language import mark, tr
from datasites.study.data_use import check_codes
from datasites.study.signing import Message
from datasites.study.text import check_name, check_prose
from privacy.errors import InvalidInput
from privacy.sentences import say

LABELS = {
    "principal_investigator": mark("Principal investigator"),
    "institution": mark("Institution"),
    "contact": mark("Contact"),
    "sponsor": mark("Sponsor"),
    "controller": mark("Controller"),
    "ethics_vote": mark("Ethics vote"),
    "no_ethics_vote": mark("Why there is no ethics vote"),
    "consent_basis": mark("Consent"),
    "dpia": mark("Data protection impact assessment"),
    "data_use": mark("Purpose in data-use terms (GA4GH DUO)"),
    "recipients": mark("Recipients of the model"),
}
_LONGEST = 2000
_COUNTRY = re.compile("[A-Z]{2}")
_ADDRESS = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")


@dataclass(frozen=True, kw_only=True)
class Recipient(Message):
    """Who gets the model, and in which country (two capital letters of ISO 3166)."""

    name: str
    country: str


@dataclass(frozen=True, kw_only=True)
class Filing(Message):
    """Who answers for a study and under which law; purpose, legal basis, retention and licence are the proposal's own.

    Exactly one of ``ethics_vote`` (its number and board) and ``no_ethics_vote`` (why none is needed) is given.
    ``data_use`` are codes of the GA4GH Data Use Ontology that the study asks under and undertakes to keep.
    """

    principal_investigator: str
    institution: str
    contact: str
    sponsor: str
    controller: str
    ethics_vote: str
    no_ethics_vote: str
    consent_basis: str
    dpia: str
    data_use: tuple[str, ...]
    recipients: tuple[Recipient, ...]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and field.name not in ("ethics_vote", "no_ethics_vote"):
                _check(value, LABELS[field.name])
        if bool(self.ethics_vote.strip()) == bool(self.no_ethics_vote.strip()):
            raise InvalidInput(say("expected the ethics vote's number, or why there is none; exactly one of the two"))
        _check(self.ethics_vote or self.no_ethics_vote, LABELS["ethics_vote"])
        if not _ADDRESS.fullmatch(self.contact):
            raise InvalidInput(say("expected an e-mail address as contact, such as name@institution.example"))
        if not self.recipients:
            raise InvalidInput(say("expected at least one recipient of the model with its country"))
        for recipient in self.recipients:
            check_name(recipient.name, "a recipient")
            if not _COUNTRY.fullmatch(recipient.country):
                raise InvalidInput(
                    say(
                        "expected a country in two capital letters (DE), got {country!r}",
                        country=recipient.country[:20],
                    )
                )
        check_codes(self.data_use)

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return what a page or a report prints: label and text of everything that is given."""
        texts: dict[str, str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "recipients":
                value = "; ".join(f"{r.name} ({r.country})" for r in value)
            texts[field.name] = value if isinstance(value, str) else ", ".join(value)
        return tuple((tr(LABELS[name]), text) for name, text in texts.items() if text)


def _check(text: str, what: str) -> None:
    if len(text) > _LONGEST:
        raise InvalidInput(
            say(
                "expected at most {longest} characters for {what!r}, got {text}",
                longest=_LONGEST,
                what=what,
                text=len(text),
            )
        )
    if not text.strip():
        raise InvalidInput(say("expected a text for {what!r}, got nothing", what=what))
    check_prose(text, what)
