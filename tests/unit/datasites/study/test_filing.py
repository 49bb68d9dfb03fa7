"""What a study is filed with: nothing missing, nothing false by default, and its purpose compared with the data's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.pilot_study import proposal

from datasites.study.data_use import MODIFIERS, check_codes, compare
from datasites.study.filing import Filing, Recipient
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, parse
from privacy.errors import InvalidInput

FILING = Filing(
    principal_investigator="Prof. Ada Weber",
    institution="University of Northtown",
    contact="weber@northtown.example",
    sponsor="Northtown Cancer Fund",
    controller="University of Northtown",
    ethics_vote="2026-114, ethics board of Northtown",
    no_ethics_vote="",
    consent_basis="broad consent, version 1.6",
    dpia="DPIA-2026-017",
    data_use=("DUO:0000007 MONDO:0005233", "DUO:0000018"),
    recipients=(Recipient(name="University of Northtown", country="DE"),),
)


def test_a_filing_is_part_of_what_is_signed_and_an_old_proposal_keeps_its_hash() -> None:
    plain, filed = proposal(), replace(proposal(), filing=FILING)
    assert "filing" not in dump(plain)
    assert "replaces" not in dump(plain)
    assert parse(Proposal, dump(filed)) == filed
    other = replace(filed, filing=replace(FILING, dpia="DPIA-2026-018"))
    assert len({plain.proposal_hash, filed.proposal_hash, other.proposal_hash}) == 3
    assert len({plain.plan_hash, filed.plan_hash, other.plan_hash}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sponsor": " "}, "Sponsor"),
        ({"contact": "weber"}, "e-mail"),
        ({"ethics_vote": ""}, "ethics vote"),
        ({"no_ethics_vote": "none needed"}, "exactly one"),
        ({"recipients": ()}, "recipient"),
        ({"recipients": (Recipient(name="A", country="Germany"),)}, "two capital letters"),
        ({"data_use": ()}, "exactly one"),
        ({"data_use": ("DUO:0000006", "DUO:0000042")}, "exactly one"),
        ({"data_use": ("research",)}, "DUO:0000006"),
        ({"controller": "x" * 2001}, "2000"),
        ({"dpia": "DPIA\u202e2026"}, "unseen"),
    ],
)
def test_a_filing_with_a_gap_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(FILING, **change)


def test_a_page_prints_what_is_given_and_nothing_else() -> None:
    lines = dict(FILING.lines())
    assert lines["Recipients of the model"] == "University of Northtown (DE)"
    assert lines["Ethics vote"].startswith("2026-114")
    assert "Why there is no ethics vote" not in lines


def found(dataset: tuple[str, ...], study: tuple[str, ...], **changes: Any) -> list[tuple[bool, str]]:
    given: dict[str, Any] = {"ethics_vote": True, "countries": ["DE"], "months": 12.0} | changes
    return [(c.conflict, c.sentence) for c in compare(dataset, study, **given)]


@pytest.mark.parametrize(
    ("dataset", "study", "fits"),
    [
        ("DUO:0000004", "DUO:0000011", True),
        ("DUO:0000042", "DUO:0000011", True),
        ("DUO:0000042", "DUO:0000004", False),
        ("DUO:0000006", "DUO:0000006", True),
        ("DUO:0000006", "DUO:0000007 MONDO:1", True),
        ("DUO:0000006", "DUO:0000042", False),
        ("DUO:0000007 MONDO:1", "DUO:0000007 MONDO:1", True),
        ("DUO:0000007 MONDO:1", "DUO:0000007 MONDO:2", False),
        ("DUO:0000007 MONDO:1", "DUO:0000006", False),
        ("DUO:0000011", "DUO:0000006", False),
        ("DUO:0000007 MONDO:0005233", "DUO:0000007 mondo_0005233", True),  # other spellings of one disease
        ("DUO:0000007 MONDO:1, MONDO:2", "DUO:0000007 MONDO:2", True),
        ("DUO:0000007 MONDO:1", "DUO:0000007 MONDO:1,MONDO:2", False),
        ("DUO:0000007 breast cancer", "DUO:0000007 cancer", False),
        ("DUO:0000007 breast cancer", "DUO:0000007 Breast  Cancer", True),
    ],
)
def test_a_permission_covers_what_it_says(dataset: str, study: str, fits: bool) -> None:
    assert (found((dataset,), (study,)) == []) == fits
    assert all(conflict for conflict, _ in found((dataset,), (study,)))


@pytest.mark.parametrize(
    ("term", "changes", "conflict"),
    [
        ("DUO:0000021", {"ethics_vote": False}, True),
        ("DUO:0000021", {}, None),
        ("DUO:0000022 DE,AT", {"countries": ["DE", "US"]}, True),
        ("DUO:0000022 DE,AT", {}, None),
        ("DUO:0000025 6", {}, True),
        ("DUO:0000025 60", {}, None),
        ("DUO:0000019", {}, False),
        ("DUO:0000045", {}, None),  # the study undertakes the stricter DUO:0000018
        ("DUO:0000012 lung", {}, False),
        ("DUO:0000043", {}, None),
    ],
)
def test_a_modifier_is_kept_broken_or_left_to_people(term: str, changes: dict[str, Any], conflict: bool | None) -> None:
    seen = [c for c, _ in found(("DUO:0000042", term), FILING.data_use, **changes)]
    assert seen == ([] if conflict is None else [conflict])


ORDER = ("DUO:0000004", "DUO:0000042", "DUO:0000006", "DUO:0000007", "DUO:0000011")
WIDER = {  # by what the data permit, what a study may ask for, as DUO defines the permissions
    "DUO:0000004": ORDER,
    "DUO:0000042": ORDER[1:],
    "DUO:0000006": ("DUO:0000006", "DUO:0000007"),
    "DUO:0000007": ("DUO:0000007",),
    "DUO:0000011": ("DUO:0000011",),
}


@pytest.mark.parametrize("asked", ORDER)
@pytest.mark.parametrize("given", ORDER)
def test_every_permission_against_every_purpose(given: str, asked: str) -> None:
    dataset, study = (f"{code} MONDO:1" if code.endswith("7") else code for code in (given, asked))
    assert [conflict for conflict, _ in found((dataset,), (study,))] == [True] * (asked not in WIDER[given])


@pytest.mark.parametrize("term", sorted(MODIFIERS))
def test_every_modifier_is_judged_unless_the_study_undertakes_or_fulfils_it(term: str) -> None:
    valued = {"DUO:0000022": f"{term} DE", "DUO:0000025": f"{term} 60"}.get(term, term)
    check_codes(("DUO:0000042", valued))
    fulfilled = term in (
        "DUO:0000021",
        "DUO:0000022",
        "DUO:0000025",
        "DUO:0000043",
    )  # a vote, DE, 12 months; a permission
    without = found(("DUO:0000042", valued), ("DUO:0000042",))
    assert [conflict for conflict, _ in without] == [False] * (not fulfilled)
    assert found(("DUO:0000042", valued), ("DUO:0000042", valued)) == []


@pytest.mark.parametrize(
    ("term", "undertaken", "kept"),
    [
        ("DUO:0000018", ("DUO:0000045", "DUO:0000046"), True),
        ("DUO:0000018", ("DUO:0000045",), False),
        ("DUO:0000018", ("DUO:0000046",), False),
        ("DUO:0000045", ("DUO:0000018",), True),
        ("DUO:0000045", ("DUO:0000046",), False),
        ("DUO:0000046", ("DUO:0000018",), True),
        ("DUO:0000046", ("DUO:0000045",), False),
    ],
)
def test_who_may_gain_from_the_data(term: str, undertaken: tuple[str, ...], kept: bool) -> None:
    assert (found(("DUO:0000042", term), ("DUO:0000042", *undertaken)) == []) == kept


@pytest.mark.parametrize(
    ("purpose", "conflict"),
    [("DUO:0000011", True), ("DUO:0000042", False), ("DUO:0000004", False), ("DUO:0000006", None)],
)
def test_ancestry_research_that_is_prohibited_is_found_in_a_general_purpose_too(
    purpose: str, conflict: bool | None
) -> None:
    seen = [c for c, _ in found(("DUO:0000004", "DUO:0000044"), (purpose,))]
    assert seen == ([] if conflict is None else [conflict])


@pytest.mark.parametrize(
    ("places", "countries", "conflict"),
    [
        ("de; at", ["DE"], None),
        ("DE,AT", ["FR"], True),
        ("Germany", ["DE"], False),  # no code: people judge
        ("EU", ["EU"], None),
        ("DE", [], None),
    ],
)
def test_a_place_is_compared_by_its_code_or_left_to_people(
    places: str, countries: list[str], conflict: bool | None
) -> None:
    seen = [c for c, _ in found(("DUO:0000042", f"DUO:0000022 {places}"), ("DUO:0000042",), countries=countries)]
    assert seen == ([] if conflict is None else [conflict])


def test_clinical_care_that_the_data_do_not_allow_is_left_to_people() -> None:
    study = ("DUO:0000006", "DUO:0000043")
    assert [conflict for conflict, _ in found(("DUO:0000042",), study)] == [False]
    assert found(("DUO:0000042", "DUO:0000043"), study) == []
    assert found(("DUO:0000004",), study) == []


def test_a_study_without_a_purpose_is_left_to_people_and_unknown_codes_are_refused() -> None:
    assert found(("DUO:0000006",), ()) == [(False, "the study states no data-use purpose; the data carry one")]
    assert found((), ("DUO:0000006",)) == []
    for codes in (
        ["DUO:0000025 soon", "DUO:0000042"],
        ["DUO:0000025 " + "9" * 5000, "DUO:0000042"],
        ["DUO:0000007"],
        ["DUO:9"],
    ):
        with pytest.raises(InvalidInput):
            check_codes(codes)
