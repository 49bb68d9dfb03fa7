"""Pages from templates: one environment, escaped by default, with the words and pictures pages share."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from datasites.portal.access import context_of, credential_of
from datasites.portal.assets import new_environment
from datasites.portal.language import listed, modality, state, when
from datasites.portal.pictures import number
from privacy.identity import fingerprint

MENU = (
    ("/inbox", "Inbox"),
    ("/studies", "Studies"),
    ("/budget", "Budget"),
    ("/journal", "Journal"),
    ("/reports", "Reports"),
    ("/fingerprints", "Fingerprints"),
    ("/policy", "Policy"),
    ("/people", "People"),
)
SAID = {
    "signed": "Signed with your key. Once all have signed everywhere, the rounds are under Studies.",
    "denied": "Denied. The scientist will read your reason.",
    "asked": "Asked. The scientist will read your question.",
    "revoked": "Revoked. The study stops here before its next round.",
    "confirmed": "Confirmed and written into the journal.",
    "closed": "Closed: their password, key, sessions, tokens and links are gone. What they signed stays signed.",
    "linked": "Linked. From now on your hospital account opens a session here.",
    "unlinked": "The link is gone. Sign in with your password.",
    "written": "The reports are those of this moment.",
    "welcome": "Your account is made. Keep your password: nobody can restore it.",
}
_TONES = {"approved": "good", "pending": "warn", "changes-requested": "warn", "denied": "bad", "revoked": "bad"}
_ROLES = {"steward": "data steward", "privacy-officer": "privacy officer", "auditor": "auditor"}

_environment = new_environment(mount="/static")
_environment.globals.update(
    fingerprint=fingerprint,
    listed=listed,
    modality=modality,
    number=number,
    role=lambda name: _ROLES.get(name, name),
    state=state,
    tone=lambda name: _TONES.get(name, ""),
    when=when,
)


def compile_templates() -> None:
    """Compile all templates now, so that nobody's first look at a page has to wait for it."""
    for name in _environment.list_templates(extensions=["html"]):
        _environment.get_template(name)


def page(request: Request, template: str, *, status: int = 200, problem: str = "", **values: Any) -> HTMLResponse:
    """Return one page for whoever is signed in; ``problem`` is shown on top as an alert."""
    context = context_of(request)
    credential = credential_of(request)
    path = request.url.path
    shared = {
        "institution": context.institution,
        "site": context.site,
        "own_fingerprint": fingerprint(context.public_key),
        "caller": credential.account if credential else None,
        "can_decide": credential is not None and "review" in credential.scopes,
        "hospital_login": context.hospital_login.settings.name if context.hospital_login else "",
        "csrf": credential.csrf if credential else "",
        "menu": MENU,
        "active": "/inbox" if path.startswith("/requests/") else path,
        "said": SAID.get(request.query_params.get("said", ""), ""),
        "problem": problem,
        "trouble": context.trouble() if credential else "",
    }
    return HTMLResponse(_environment.get_template(template).render({**shared, **values}), status)
