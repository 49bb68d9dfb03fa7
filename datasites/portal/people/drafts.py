"""What a person typed into a form that was not done: their session had ended, or the portal said no.

A browser sends the words along with the form. The page to sign in takes them over as hidden fields, so nothing of a
stranger is stored; once somebody is signed in, they are kept in memory for their session alone, for a quarter of an
hour or until they send a form again. Only fields that :data:`TYPED` names are kept: no password, key or token.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import FormData

TYPED = frozenset(
    {"conditions", "delegate", "delta", "epsilon", "full_name", "function", "label", "name", "reason", "role", "until"}
)
"""Names of the fields that people fill in, and whose words are kept."""
_TARGET = "target"
KEPT_ACTION, _KEPT = "kept-action", "kept."
_LONGEST, _MOST = 4000, 500
_WAITS = dt.timedelta(minutes=15)
_PAGES = {"/budget/continue": "/studies", "/logout": "/inbox", "/roster": "/fingerprints"}


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The words of one form: where it is sent, and its fields by name; ``target`` tells forms of one path apart."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """The page that the form stands on."""
        return page_of(self.action)

    @property
    def typed(self) -> bool:
        """Whether there are words to keep."""
        return any(name != _TARGET and value.strip() for name, value in self.fields.items())

    @property
    def hidden(self) -> tuple[tuple[str, str], ...]:
        """Hidden fields by which the page to sign in takes the words over; none where there are no words."""
        kept = ((f"{_KEPT}{name}", value) for name, value in self.fields.items())
        return ((KEPT_ACTION, self.action), *kept) if self.typed else ()

    def form(self, action: str, target: str = "") -> Typed:
        """Return the words for one form of a page: these, or none where they belong to another form."""
        own = self.action == action and self.fields.get(_TARGET, "") == target
        return Typed({name: value for name, value in self.fields.items() if name != _TARGET} if own else {})


@dataclass(frozen=True)
class Typed:
    """What is put into the fields of one form as its page is drawn."""

    fields: dict[str, str]

    @property
    def open(self) -> str:
        """The attribute that opens the part of a page in which the form is hidden."""
        return " open" if any(self.fields.values()) else ""

    def of(self, name: str, otherwise: str = "") -> str:
        """Return what stands in a field."""
        return self.fields.get(name, otherwise)

    def chosen(self, name: str, value: str) -> str:
        """Return the attribute of the option of a list that was chosen."""
        return " selected" if self.fields.get(name) == value else ""


NOTHING = Draft()


def page_of(action: str) -> str:
    """Return the page that a form was on, whose own address only takes forms.

    >>> page_of("/requests/0ab1/deny"), page_of("/acts/0ab1/confirm"), page_of("/people/close")
    ('/requests/0ab1', '/inbox', '/people')
    """
    parts = action.split("/")
    if action in _PAGES or parts[1:2] == ["acts"]:
        return _PAGES.get(action, "/inbox")
    return "/".join(parts[: 3 if parts[1:2] == ["requests"] else 2])


async def note_form(request: Request) -> None:
    """Keep at hand what a form brings, for the page that may have to show it again (a dependency of every route)."""
    request.state.typed = request.state.taken_over = NOTHING
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method != "POST" or kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return
    form = await request.form()
    request.state.typed = Draft(action=request.url.path, fields=_fields(form, ""))
    action = form.get(KEPT_ACTION)
    if isinstance(action, str) and action.startswith("/") and len(action) < 256 and _from_here(request):
        request.state.taken_over = Draft(action=action, fields=_fields(form, _KEPT))


def taken_over(request: Request) -> Draft:
    """Return the words that the page to sign in took along."""
    return _of(request, "taken_over")


def typed_here(request: Request) -> Draft:
    """Return what the form brings, where a page of this portal sent it; nothing where another site did."""
    return _of(request, "typed") if _from_here(request) else NOTHING


def _of(request: Request, name: str) -> Draft:
    found: Draft = getattr(request.state, name, NOTHING)  # nothing was noted where no route was found
    return found


def _fields(form: FormData, start: str) -> dict[str, str]:
    names = ((name, form.get(f"{start}{name}")) for name in sorted(TYPED | {_TARGET}))
    return {name: value[:_LONGEST] for name, value in names if isinstance(value, str)}


def _from_here(request: Request) -> bool:
    """Return whether the browser says that a page of this portal sent the form: others put no words into ours."""
    said = request.headers.get("sec-fetch-site", "")
    return said == "same-origin" if said else urlsplit(request.headers.get("origin", "")).netloc == request.url.netloc


class Drafts:
    """The words that wait for people who are signed in, one form for each session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Draft, dt.datetime]] = {}

    def keep(self, session: str, draft: Draft, *, now: dt.datetime) -> None:
        """Keep the words of a form for a session, in the place of earlier ones."""
        if not draft.typed:
            return
        with self._lock:
            self._kept.pop(session, None)
            while len(self._kept) >= _MOST:
                del self._kept[next(iter(self._kept))]
            self._kept[session] = (draft, now + _WAITS)

    def forget(self, session: str) -> None:
        """Forget the words of a session, because it sends a form."""
        with self._lock:
            self._kept.pop(session, None)

    def on(self, session: str, path: str, *, now: dt.datetime) -> Draft:
        """Return the words for a page of a session."""
        with self._lock:
            draft, until = self._kept.get(session, (NOTHING, now))
        return draft if now < until and draft.page == path else NOTHING
