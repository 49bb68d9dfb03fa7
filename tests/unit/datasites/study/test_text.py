"""What people read before they decide says what it seems to say."""

import pytest

from datasites.review.findings import find
from datasites.study.text import check_name, check_prose, check_study_name, shortened, spans, unseen, visible
from privacy.errors import InvalidInput

TRICKS = {
    "right to left": "a\u202eb",
    "isolate": "a\u2067b",
    "mark": "a\u200fb",
    "zero width": "a\u200bb",
    "soft hyphen": "a\u00adb",
    "tag": "a\U000e0041b",
    "line separator": "a\u2028b",
    "escape": "a\x1b[2Jb",
    "null": "a\0b",
    "half a pair": "a\ud800b",
    "private": "a\ue000b",
}


@pytest.mark.parametrize("text", TRICKS.values(), ids=TRICKS)
def test_what_is_not_seen_is_refused_in_names_and_prose(text) -> None:
    assert [place for place, _ in unseen(text)] == [1]
    for check in (check_name, check_prose):
        with pytest.raises(InvalidInput, match="U\\+"):
            check(text, "a name")


@pytest.mark.parametrize("text", ["Größe Ärzte", "医院 北京", "\u0645\u06cc\u200c\u062e", "Two\nlines"])
def test_every_language_may_be_written(text) -> None:
    assert check_prose(text, "a purpose") == text


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", "a?b", "a#b", "a%2fb", "é", "x" * 81, "a\nb", " a"]
)
def test_a_study_has_a_name_that_fits_everywhere(name) -> None:
    with pytest.raises(InvalidInput, match="name of 1 to 80"):
        check_study_name(name)


@pytest.mark.parametrize(
    "change",
    [{"study": "../x"}, {"purpose": "for\u202e good"}, {"legal_basis": "none\x1b[31m"}],
    ids=lambda c: next(iter(c)),
)
def test_a_proposal_that_does_not_read_as_it_is_cannot_be_made(new_proposal, change) -> None:
    with pytest.raises(InvalidInput):
        new_proposal(**change)


def test_a_reviewer_is_told_of_code_that_does_not_run_as_it_reads(tmp_path) -> None:
    code = 'admin = False\nif admin:  # \u202e } \u2066 if admin\u2069 \u2066 begin\n    print("x")\n'
    (tmp_path / "plan.py").write_text(code)
    (tmp_path / "plan.toml").write_text("name = 'a\u200bb'\n")
    found = {(f.file, f.line, f.severity) for f in find(tmp_path, ["plan.py", "plan.toml"]) if f.rule == "hidden-text"}
    assert found == {("plan.py", 2, "high"), ("plan.toml", 1, "high")}


def test_what_is_not_seen_is_written_out_for_terminals() -> None:
    assert visible("Größe\n\x1b]0;x\x07\u202e") == "Größe\n\\x1b]0;x\\x07\\u202e"
    assert not any("\x1b" in visible(text) or "\u2028" in visible(text) for text in TRICKS.values())


def test_long_lists_of_rounds_are_written_as_their_ends_and_what_is_cut_says_so():
    assert spans(range(2, 401)) == "2-400"
    assert spans([1, 2, 4, 5, 6, 9]) == "1, 2, 4-6, 9"
    assert spans([]) == ""
    assert shortened("ab", 2) == "ab"
    assert shortened("abc", 2) == "a…"
