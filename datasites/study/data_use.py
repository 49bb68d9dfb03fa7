"""Data-use terms of datasets, compared with what a study asks for: codes of the GA4GH Data Use Ontology (DUO).

A dataset carries one permission and any number of modifiers; a study states under which permission it asks and which
modifiers it undertakes to keep. A term with a value writes it behind the code: ``DUO:0000007 MONDO:0004992`` (disease),
``DUO:0000022 DE,AT`` (countries), ``DUO:0000025 60`` (months).

>>> [c.sentence for c in compare(("DUO:0000006",), ("DUO:0000011",), ethics_vote=True, countries=(), months=12)]
['the data may be used for health, medical or biomedical research; the study asks for ancestry research']

Source: https://github.com/EBISPOT/DUO, release of 2021-02-23.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from privacy.errors import InvalidInput

PERMISSIONS = {
    "DUO:0000004": "anything (no restriction)",
    "DUO:0000042": "general research",
    "DUO:0000006": "health, medical or biomedical research",
    "DUO:0000007": "research on one disease",
    "DUO:0000011": "ancestry research",
}
MODIFIERS = {
    "DUO:0000012": "research-specific restrictions",
    "DUO:0000015": "no general methods research",
    "DUO:0000016": "genetic studies only",
    "DUO:0000018": "not-for-profit organisations and non-commercial use only",
    "DUO:0000019": "publication required",
    "DUO:0000020": "collaboration required",
    "DUO:0000021": "ethics approval required",
    "DUO:0000022": "geographical restriction",
    "DUO:0000024": "publication moratorium",
    "DUO:0000025": "time limit on use",
    "DUO:0000026": "user-specific restriction",
    "DUO:0000027": "project-specific restriction",
    "DUO:0000028": "institution-specific restriction",
    "DUO:0000029": "return to database or resource",
    "DUO:0000043": "clinical care use",
    "DUO:0000044": "population origins or ancestry research prohibited",
    "DUO:0000045": "not-for-profit organisations only",
    "DUO:0000046": "non-commercial use only",
}
_ALLOWED = {
    "DUO:0000004": frozenset(PERMISSIONS),
    "DUO:0000042": frozenset(PERMISSIONS) - {"DUO:0000004"},
    "DUO:0000006": frozenset({"DUO:0000006", "DUO:0000007"}),
    "DUO:0000007": frozenset({"DUO:0000007"}),
    "DUO:0000011": frozenset({"DUO:0000011"}),
}
_ETHICS, _PLACE, _TIME, _NO_ANCESTRY, _CARE = "DUO:0000021", "DUO:0000022", "DUO:0000025", "DUO:0000044", "DUO:0000043"
_DISEASE, _ANCESTRY = "DUO:0000007", "DUO:0000011"
_KEPT_BY = {"DUO:0000045": {"DUO:0000045", "DUO:0000018"}, "DUO:0000046": {"DUO:0000046", "DUO:0000018"}}


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
            raise InvalidInput(f"expected codes of the GA4GH Data Use Ontology such as DUO:0000006, got {code[:40]!r}")
        if name in (_DISEASE, _PLACE, _TIME) and not value.strip():
            raise InvalidInput(f"expected a value behind {name} ({words(name)}), such as 'DUO:0000007 MONDO:0004992'")
        if name == _TIME and not value.strip().isdecimal():
            raise InvalidInput(f"expected a number of months behind {_TIME}, got {value[:20]!r}")
    permissions = [code for code in codes if code.partition(" ")[0] in PERMISSIONS]
    if len(permissions) != 1:
        known = ", ".join(f"{code} ({text})" for code, text in PERMISSIONS.items())
        raise InvalidInput(f"expected exactly one data-use permission, got {len(permissions)}; one out of {known}")


def words(code: str) -> str:
    """Return a code in words, with its value if it has one."""
    name, _, value = code.partition(" ")
    text = PERMISSIONS.get(name) or MODIFIERS.get(name, name)
    return f"{text}: {value}" if value else text


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
                yield _conflict("the data require an ethics approval; the study names none")
        elif name == _PLACE:
            outside = sorted(set(countries) - {c.strip() for c in value.split(",")})
            if outside:
                yield _conflict(f"the data may be used in {value}; recipients are in {', '.join(outside)}")
        elif name == _TIME:
            if months > float(value):
                yield _conflict(f"the data may be used for {value} months; the model is kept for {months:.0f}")
        elif name == _NO_ANCESTRY:
            if asked.startswith(_ANCESTRY):
                yield _conflict("ancestry research is prohibited with these data")
        elif name != _CARE and not kept & _KEPT_BY.get(name, {name}):
            yield _judge(f"the data carry the term “{words(code)}”; the study does not undertake to keep it")
        elif name != _CARE and value:
            yield _judge(f"the data carry the term “{words(code)}”; people have to judge whether the study keeps it")


def _permitted(code: str, asked: str) -> Iterable[Comparison]:
    name, _, disease = code.partition(" ")
    asked_name, _, asked_disease = asked.partition(" ")
    if not asked_name:
        yield _judge("the study states no data-use purpose; the data carry one")
    elif asked_name not in _ALLOWED[name] or (name == _DISEASE and disease.strip() != asked_disease.strip()):
        yield _conflict(f"the data may be used for {words(code)}; the study asks for {words(asked)}")


def _permission(codes: Sequence[str]) -> str:
    return next((code for code in codes if code.partition(" ")[0] in PERMISSIONS), "")


def _conflict(sentence: str) -> Comparison:
    return Comparison(conflict=True, sentence=sentence)


def _judge(sentence: str) -> Comparison:
    return Comparison(conflict=False, sentence=sentence)
