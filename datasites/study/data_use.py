"""Data-use terms of datasets, compared with what a study asks for: codes of the GA4GH Data Use Ontology (DUO).

A dataset carries one permission and any number of modifiers; a study states under which permission it asks and which
modifiers it undertakes to keep. A term with a value writes it behind the code: ``DUO:0000007 MONDO:0004992`` (disease,
or several), ``DUO:0000022 DE,AT`` (countries), ``DUO:0000025 60`` (months). Diseases are compared as written: whether
one is a kind of another is not known here, so that study and data have to name the same.

>>> [c.sentence for c in compare(("DUO:0000006",), ("DUO:0000011",), ethics_vote=True, countries=(), months=12)]
['the data may be used for health, medical or biomedical research; the study asks for ancestry research']

Source: https://github.com/EBISPOT/DUO, release of 2021-02-23.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from privacy.errors import InvalidInput
from privacy.sentences import say, say_plural

PERMISSIONS = {
    "DUO:0000004": say("anything (no restriction)"),
    "DUO:0000042": say("general research"),
    "DUO:0000006": say("health, medical or biomedical research"),
    "DUO:0000007": say("research on one disease"),
    "DUO:0000011": say("ancestry research"),
}
MODIFIERS = {
    "DUO:0000012": say("research-specific restrictions"),
    "DUO:0000015": say("no general methods research"),
    "DUO:0000016": say("genetic studies only"),
    "DUO:0000018": say("not-for-profit organisations and non-commercial use only"),
    "DUO:0000019": say("publication required"),
    "DUO:0000020": say("collaboration required"),
    "DUO:0000021": say("ethics approval required"),
    "DUO:0000022": say("geographical restriction"),
    "DUO:0000024": say("publication moratorium"),
    "DUO:0000025": say("time limit on use"),
    "DUO:0000026": say("user-specific restriction"),
    "DUO:0000027": say("project-specific restriction"),
    "DUO:0000028": say("institution-specific restriction"),
    "DUO:0000029": say("return to database or resource"),
    "DUO:0000043": say("clinical care use"),
    "DUO:0000044": say("population origins or ancestry research prohibited"),
    "DUO:0000045": say("not-for-profit organisations only"),
    "DUO:0000046": say("non-commercial use only"),
}
_ALLOWED = {
    "DUO:0000004": frozenset(PERMISSIONS),
    "DUO:0000042": frozenset(PERMISSIONS) - {"DUO:0000004"},
    "DUO:0000006": frozenset({"DUO:0000006", "DUO:0000007"}),
    "DUO:0000007": frozenset({"DUO:0000007"}),
    "DUO:0000011": frozenset({"DUO:0000011"}),
}
_ETHICS, _PLACE, _TIME, _NO_ANCESTRY, _CARE = "DUO:0000021", "DUO:0000022", "DUO:0000025", "DUO:0000044", "DUO:0000043"
_ANYTHING, _GENERAL, _DISEASE, _ANCESTRY = "DUO:0000004", "DUO:0000042", "DUO:0000007", "DUO:0000011"
_NO_PROFIT_NO_SALE, _NO_PROFIT, _NO_SALE = "DUO:0000018", "DUO:0000045", "DUO:0000046"
_KEPT_BY = {
    _NO_PROFIT: ({_NO_PROFIT}, {_NO_PROFIT_NO_SALE}),
    _NO_SALE: ({_NO_SALE}, {_NO_PROFIT_NO_SALE}),
    _NO_PROFIT_NO_SALE: ({_NO_PROFIT_NO_SALE}, {_NO_PROFIT, _NO_SALE}),
}
"""By term, the sets of terms that a study keeps it by; each of the others is kept by itself alone."""
_LONGEST_NUMBER = 10


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One thing found: a conflict, or a term that people have to judge (``conflict`` False)."""

    conflict: bool
    sentence: str


def check_codes(codes: Sequence[str]) -> None:
    """Check that codes are known and that exactly one of them is a permission.

    Raises:
        InvalidInput: an unknown code, none or two permissions, or a value missing where a code needs one.
    """
    for code in codes:
        name, _, value = code.partition(" ")
        if name not in PERMISSIONS and name not in MODIFIERS:
            raise InvalidInput(
                say("expected codes of the GA4GH Data Use Ontology such as DUO:0000006, got {code!r}", code=code[:40])
            )
        if name in (_DISEASE, _PLACE, _TIME) and not value.strip():
            raise InvalidInput(
                say(
                    "expected a value behind {name} ({words}), such as 'DUO:0000007 MONDO:0004992'",
                    name=name,
                    words=words(name),
                )
            )
        if name == _TIME and not (value.strip().isdecimal() and len(value) < _LONGEST_NUMBER):
            raise InvalidInput(
                say("expected a number of months behind {code}, got {value!r}", code=_TIME, value=value[:20])
            )
    permissions = [code for code in codes if code.partition(" ")[0] in PERMISSIONS]
    if len(permissions) != 1:
        known = ", ".join(f"{code} ({text})" for code, text in PERMISSIONS.items())
        raise InvalidInput(
            say(
                "expected exactly one data-use permission, got {count}; one out of {known}",
                count=len(permissions),
                known=known,
            )
        )


def words(code: str) -> str:
    """Return a code in words, with its value if it has one."""
    name, _, value = code.partition(" ")
    text: str = PERMISSIONS.get(name) or MODIFIERS.get(name) or name
    return say("{term}: {value}", term=text, value=value) if value else text


def compare(
    dataset: Sequence[str], study: Sequence[str], *, ethics_vote: bool, countries: Collection[str], months: float
) -> tuple[Comparison, ...]:
    """Return where a study's purpose does not fit a dataset's terms, and which terms people have to judge.

    Args:
        dataset: the dataset's codes; nothing is compared when there are none.
        study: the study's codes.
        ethics_vote: whether the study names an ethics vote.
        countries: where the recipients of the model are.
        months: how long the model is kept.
    """
    return tuple(_found(dataset, study, ethics_vote, countries, months))


def _found(
    dataset: Sequence[str], study: Sequence[str], ethics_vote: bool, countries: Collection[str], months: float
) -> Iterable[Comparison]:
    asked, kept = _permission(study), {code.partition(" ")[0] for code in study}
    for code in dataset:
        name, _, value = code.partition(" ")
        if name in PERMISSIONS:
            yield from _permitted(code, asked)
        elif name == _ETHICS:
            if not ethics_vote:
                yield _conflict(say("the data require an ethics approval; the study names none"))
        elif name == _PLACE:
            yield from _placed(value, countries)
        elif name == _TIME:
            if months > float(value):
                yield _conflict(
                    say_plural(
                        "the data may be used for {count} month; the model is kept for {months:.0f}",
                        "the data may be used for {count} months; the model is kept for {months:.0f}",
                        int(value),
                        months=months,
                    )
                )
        elif name == _NO_ANCESTRY and asked.startswith(_ANCESTRY):
            yield _conflict(say("ancestry research is prohibited with these data"))
        elif name == _NO_ANCESTRY and asked and not asked.startswith((_ANYTHING, _GENERAL)):
            continue  # what it asks for is no ancestry research
        elif name != _CARE:
            yield from _kept(code, kept)
    if dataset and _CARE in kept and not {_CARE, _ANYTHING} & {code.partition(" ")[0] for code in dataset}:
        yield _judge(say("the study also asks for clinical care; the data carry no term that allows it"))


def _placed(value: str, countries: Collection[str]) -> Iterable[Comparison]:
    """Compare a geographical restriction; one that is not written as country codes is left to people."""
    allowed = {place.upper() for place in _parted(value)}
    if not all(len(place) == 2 and place.isascii() and place.isalpha() for place in allowed):
        yield _judge(
            say("the data may be used in {places}; people have to judge where the recipients are", places=value)
        )
        return
    outside = sorted({country.upper() for country in countries} - allowed)
    if outside:
        others = ", ".join(outside)
        yield _conflict(
            say("the data may be used in {places}; recipients are in {others}", places=value, others=others)
        )


def _kept(code: str, kept: Collection[str]) -> Iterable[Comparison]:
    """Look whether a study undertakes to keep a term; whether it keeps one with a value, people have to judge."""
    name, _, value = code.partition(" ")
    if not any(terms <= set(kept) for terms in _KEPT_BY.get(name, ({name},))):
        yield _judge(say("the data carry the term “{term}”; the study does not undertake to keep it", term=words(code)))
    elif value.strip():
        yield _judge(
            say("the data carry the term “{term}”; people have to judge whether the study keeps it", term=words(code))
        )


def _permitted(code: str, asked: str) -> Iterable[Comparison]:
    name, _, diseases = code.partition(" ")
    asked_name, _, asked_diseases = asked.partition(" ")
    if not asked_name:
        yield _judge(say("the study states no data-use purpose; the data carry one"))
    elif asked_name not in _ALLOWED[name] or (name == _DISEASE and not _terms(asked_diseases) <= _terms(diseases)):
        yield _conflict(
            say("the data may be used for {terms}; the study asks for {asked}", terms=words(code), asked=words(asked))
        )


def _parted(value: str) -> list[str]:
    return [part for item in re.split("[,;]", value) if (part := " ".join(item.split()))]


def _terms(value: str) -> set[str]:
    """Return diseases as two spellings of one agree: ``mondo_0005233`` is ``MONDO:0005233``."""
    return {part.upper().replace("_", ":", 1) for part in _parted(value)}


def _permission(codes: Sequence[str]) -> str:
    return next((code for code in codes if code.partition(" ")[0] in PERMISSIONS), "")


def _conflict(sentence: str) -> Comparison:
    return Comparison(conflict=True, sentence=sentence)


def _judge(sentence: str) -> Comparison:
    return Comparison(conflict=False, sentence=sentence)
