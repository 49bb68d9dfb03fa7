"""The forms of a page, as a browser would fill them in and send them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_SECRETS = frozenset({"password", "new", "csrf"})


@dataclass
class Form:
    """One form: where it goes, what its hidden fields hold, and what people can type or choose."""

    action: str
    method: str
    hidden: dict[str, str] = field(default_factory=dict)
    typed: dict[str, str] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    days: set[str] = field(default_factory=set)

    @property
    def place(self) -> tuple[str, str]:
        """What tells the form from others of the same page."""
        return self.action, self.hidden.get("target", "")

    def filled(self) -> dict[str, str]:
        """Return words for every field that people fill in."""
        texts = {name: f"words «{number}» & <{name}>" for number, name in enumerate(sorted(self.typed))}
        days = dict.fromkeys(self.days, "2026-03-20")
        return texts | days | {name: values[-1] for name, values in self.choices.items()}


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Form] = []
        self._form: Form | None = None
        self._text = self._list = self._option = ""
        self._chosen: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = Form(named.get("action", ""), named.get("method", "get").lower())
            self.found.append(self._form)
        if self._form is None:
            return
        name = named.get("name", "")
        if tag == "input" and named.get("type") == "hidden":
            self._form.hidden[name] = named.get("value", "")
        elif tag == "input" and name not in _SECRETS:
            self._form.typed[name] = named.get("value", "")
            self._form.days |= {name} if named.get("type") == "date" else set()
        elif tag == "textarea":
            self._text = name
            self._form.typed[name] = ""
        elif tag == "select":
            self._list = name
            self._form.choices[name] = []
        elif tag == "option":
            self._option = named.get("value", "")
            if "value" in named:
                self._form.choices[self._list].append(self._option)
            if "selected" in named:
                self._form.typed[self._list] = self._option
            self._chosen = self._list if "selected" in named else ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        if tag == "textarea":
            self._text = ""
        if tag == "option":
            self._chosen = None

    def handle_data(self, data: str) -> None:
        if self._form is None:
            return
        if self._text:
            self._form.typed[self._text] += data
        if self._chosen is not None and not self._option:
            self._form.choices[self._list].append(data)
            if self._chosen:
                self._form.typed[self._chosen] = data


def forms_of(page: str) -> list[Form]:
    """Return the forms of a page of HTML, in its order."""
    reader = _Forms()
    reader.feed(page)
    return reader.found
