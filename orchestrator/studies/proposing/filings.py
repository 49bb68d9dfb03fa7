"""What a study is filed with, gathered from a file and from options: complete, or not proposed at all.

The file is TOML with the names of :class:`Filed`'s fields; an option given on the command line comes before it. Nothing
that a person has to answer for has a default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasites.study.filing import Filing
from datasites.study.signing import parse
from privacy.errors import InvalidInput

_TEXTS = (
    "purpose",
    "legal_basis",
    "principal_investigator",
    "institution",
    "contact",
    "sponsor",
    "controller",
    "consent_basis",
    "dpia",
    "licence",
)
_ETHICS = ("ethics_vote", "no_ethics_vote")
_OTHERS = ("data_use", "recipients", "retention_days")
_KNOWN = frozenset({*_TEXTS, *_ETHICS, *_OTHERS})
_OPTIONS = {"recipients": "--recipient"}
_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Filed:
    """Everything a study is filed with: the fields of a proposal that no code can know."""

    purpose: str
    legal_basis: str
    licence: str
    retention_days: int
    filing: Filing


def filed(path: Path | None, given: Mapping[str, Any]) -> Filed:
    """Return what a study is filed with.

    Args:
        path: a TOML file, if there is one.
        given: what the command line adds or replaces; empty values count as not given. ``recipients`` are texts
            ``name:country``.

    Raises:
        InvalidInput: something is missing (all of it is named), unknown or malformed.
    """
    values: dict[str, Any] = _read(path) if path is not None else {}
    values.update({name: value for name, value in given.items() if value})
    values["recipients"] = [_recipient(value) for value in values.get("recipients", ())]
    if given.get("ethics_vote") or given.get("no_ethics_vote"):  # one of the two replaces the file's
        values.update({name: given.get(name, "") for name in _ETHICS})
    _require(values)
    fields = {name: values[name] for name in _KNOWN - {"purpose", "legal_basis", "licence", "retention_days", *_ETHICS}}
    ethics = {name: str(values.get(name, "")) for name in _ETHICS}
    days = values["retention_days"]
    if type(days) is not int or not 1 <= days <= 36_500:
        raise InvalidInput(f"expected retention_days from 1 to 36500, got {str(days)[:20]!r}")
    filing = parse(Filing, {**fields, **ethics, "data_use": list(values["data_use"])})
    texts = {name: values[name] for name in ("purpose", "legal_basis", "licence")}
    return Filed(**texts, retention_days=days, filing=filing)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        if len(data) > _BYTES:
            raise InvalidInput(f"expected a filing of at most {_BYTES} bytes in {path.name}, got {len(data)}")
        values = tomllib.loads(data.decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"expected a filing in TOML at {path.name}, could not read it: {error}") from error
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise InvalidInput(
            f"{path.name} has the unknown field {unknown[0][:40]!r}; known are {', '.join(sorted(_KNOWN))}"
        )
    return values


def _require(values: Mapping[str, Any]) -> None:
    missing = [name for name in (*_TEXTS, *_OTHERS) if not values.get(name)]
    if not any(values.get(name) for name in _ETHICS):
        missing.append("ethics_vote")
    if missing:
        options = ", ".join(_OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in missing)
        options = options.replace("--ethics-vote", "--ethics-vote or --no-ethics-vote (why there is none)")
        raise InvalidInput(
            f"a study cannot be proposed without: {options}. Give them as options, or in the file of --filing "
            "(docs/deploy.md has an example)"
        )
    for name in _TEXTS:
        if not isinstance(values[name], str):
            raise InvalidInput(f"expected a text for {name}, got a {type(values[name]).__name__}")


def _recipient(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    name, colon, country = value.rpartition(":")
    if not colon:
        raise InvalidInput(f"expected a recipient as NAME:COUNTRY, such as 'Charite:DE', got {value[:60]!r}")
    return {"name": name.strip(), "country": country.strip()}
