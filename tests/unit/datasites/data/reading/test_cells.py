"""Cells: every one is understood, missing or refused, and never another value than the one that stands there."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasites.data.reading.cells.counting import Reading
from datasites.data.reading.cells.dates import years_between
from datasites.data.reading.cells.numbers import NumberColumn, NumberRule
from datasites.data.reading.cells.words import CategoryColumn
from datasites.study.schema.variables import Category, Level, Number
from privacy.errors import InvalidInput

PLATELETS = Number(name="platelets", unit="10^9/L", low=1, high=2000, units={"/uL": 0.001, "G/l": 1.0})
CHILD_PUGH = Category(
    name="child_pugh",
    levels=(Level(name="A", spellings=("class a", "child-pugh a")), Level(name="B", spellings=("class b",))),
    separator="|",
)


def numbers(cells: list[str], variable: Number = PLATELETS, rule: NumberRule | None = None) -> tuple[list, Reading]:
    reading = Reading(column="c", variable=variable.name)
    column = NumberColumn(variable, reading, rule)
    values = list(column.feed(pd.Series(cells, dtype=object)))
    for row, value in column.finish():
        values[row] = value
    return values, reading


def same(found: list[float], wanted: list[float | None]) -> bool:
    return [None if math.isnan(v) else v for v in found] == wanted


@pytest.mark.parametrize(
    ("cells", "wanted", "refused"),
    [
        (["210", " 7.5 ", "1e2", "+3"], [210, 7.5, 100, 3], 0),
        (["3,9", "4,25"], [3.9, 4.25], 0),
        (["1,234", "1,5"], [1.234, 1.5], 0),  # decided by the second cell
        (["1,234", "2,345"], [None, None], 2),  # thousands or decimals: nobody knows
        (["1.5", "1,5"], [1.5, None], 1),
        (["1.234,5", "1.234", "2,5"], [1234.5, None, 2.5], 1),  # a cell with both signs says which is which
        (["1,234.5", "1,234", "2.5"], [1234.5, None, 2.5], 1),
        (["1,5", "1.500"], [1.5, None], 1),
        (["210000", "210000 /uL", "210 G/L", "5 apples"], [None, 210, 210, None], 2),
        (["", "n/a", "[Not Available]", "Unknown", "'--"], [None] * 5, 0),
        (["inf", "nan", "<3", "3+", "0x10", "1_000", "1e999", "ten", "1 2"], [None] * 9, 8),  # "nan" is missing
        (["٣", "0", "2001"], [3, None, None], 2),
    ],
)
def test_a_number_is_a_number_in_a_known_unit_or_it_is_refused(cells, wanted, refused) -> None:
    found, reading = numbers(cells)
    assert same(found, wanted)
    assert reading.refusals == refused
    assert reading.cells == len(cells)


def test_a_thousand_with_a_point_is_in_doubt_where_the_table_has_decimal_commas():
    rule = NumberRule(commas=True)
    assert same(numbers(["1.234", "2.000"], rule=rule)[0], [None, None])
    assert same(numbers(["1.234", "2.5"], rule=rule)[0], [1.234, 2.5])
    assert same(numbers(["1.234", "2,5"], rule=rule)[0], [None, 2.5])
    assert same(numbers(["1.234", "2.000"])[0], [1.234, 2.0])
    for decimal, wanted in ((".", 1.234), (",", None)):
        assert same(numbers(["1.234"], rule=NumberRule(commas=True, decimal=decimal))[0], [wanted])


def test_a_refusal_says_which_unit_would_fit() -> None:
    _, reading = numbers(["210000"])
    assert reading.strange()[0][1] == "outside 1 to 2000 10^9/L; as /uL it would fit"


def test_a_column_in_another_unit_is_converted_and_counted() -> None:
    found, reading = numbers(["210000", "x"], rule=NumberRule(unit="/uL"))
    assert same(found, [210, None])
    assert reading.mapped == {"converted from the unit of the column to 10^9/L": 1}
    typed = Reading(column="c", variable="platelets")
    values = NumberColumn(PLATELETS, typed, NumberRule(unit="/uL")).feed(pd.Series([210000.0, np.nan, 5e9]))
    assert same(list(values), [210, None, None])
    assert (typed.understood, typed.missing, typed.refusals) == (1, 1, 1)


@given(st.lists(st.floats(1, 2000, allow_nan=False).map(lambda v: round(v, 3)), min_size=1), st.sampled_from(".,"))
def test_what_was_written_is_what_is_read_whichever_sign_parts_decimals(values: list[float], sign: str) -> None:
    cells = [f"{value:.3f}".replace(".", sign) for value in values]
    found, reading = numbers(cells, rule=NumberRule(decimal=sign))
    assert found == values
    assert reading.understood == len(values)


@given(st.lists(st.text(max_size=12), min_size=1))
def test_no_cell_is_lost_and_none_becomes_a_value_outside_the_range(cells: list[str]) -> None:
    found, reading = numbers(cells)
    assert reading.cells == len(cells) == len(found)
    assert reading.understood == sum(not math.isnan(v) for v in found)
    assert all(math.isnan(v) or 1 <= v <= 2000 for v in found)
    codes, counted = levels(cells)
    assert counted.cells == len(cells) == len(codes)


SPELT = (
    "1,234",
    "1.234",
    "1.234 G/L",
    "1,234 g/l",
    "1,5",
    "2.5",
    "7,5 G/L",
    "7.5 G/L",
    "1.234,5",
    "1,234.5",
    "1,5,6",
    "3.4.5",
)
SPELT += (
    "7",
    "",
    "x",
    "12,345",
    "12.345",
    " 3 ",
    "+4",
    "1e2",
    "-9",
    "NA",
    "5 apples",
    "5,5 apples",
    "0.5",
    ".5",
    "99",
    "9999",
)


@given(st.lists(st.sampled_from(SPELT), max_size=30), st.integers(1, 30), st.booleans(), st.sampled_from(["", "/uL"]))
def test_pieces_of_a_table_read_as_the_whole_of_it(cells: list[str], size: int, commas: bool, unit: str) -> None:
    variable = Number(name="p", unit="10^9/L", low=0.001, high=2000, units=PLATELETS.units, missing=("-9", "99"))
    rule = NumberRule(commas=commas, unit=unit)
    whole, reading = numbers(cells, variable, rule)
    counted = Reading(column="c", variable="p")
    column = NumberColumn(variable, counted, rule)
    pieces = [pd.Series(cells[i : i + size], dtype=object) for i in range(0, len(cells), size)]
    found = [value for piece in pieces for value in column.feed(piece)]
    for row, value in column.finish():
        found[row] = value
    assert same(found, [None if math.isnan(v) else v for v in whole])
    assert (counted, reading.cells) == (reading, len(cells))
    assert reading.understood == sum(not math.isnan(v) for v in whole)


@given(st.lists(st.floats(-1e300, 1e300) | st.integers(-(10**12), 10**12) | st.sampled_from(["", "NA"]), min_size=1))
def test_a_plain_number_is_the_nearest_float_whatever_stands_beside_it(values: list) -> None:
    wide = Number(name="x", low=-1e300, high=1e300)
    cells = [repr(value) if not isinstance(value, str) else value for value in values]
    found, reading = numbers(cells, wide, NumberRule(decimal="."))
    assert same(found, [None if isinstance(value, str) else float(value) for value in values])
    assert reading.missing == sum(isinstance(value, str) for value in values)


def test_a_thousand_with_its_unit_is_in_doubt_as_it_is_without() -> None:
    assert same(numbers(["1.234 G/L", "2,5"])[0], [None, 2.5])
    assert same(numbers(["1.234 G/L", "2.5"])[0], [1.234, 2.5])
    found, reading = numbers(["1.234 G/L"], rule=NumberRule(commas=True))
    assert same(found, [None]) and reading.refusals == 1


@pytest.mark.parametrize("typed", [False, True])
def test_a_code_for_missing_is_no_value_in_any_spelling(typed: bool) -> None:
    coded = Number(name="x", low=0, high=2000, missing=("999", "-9"))
    cells = ["999", "999.0", " 999 ", "-9", "-9.00", "99", "9990"]
    wanted = [None] * 5 + [99, None]
    reading = Reading(column="c", variable="x")
    column = NumberColumn(coded, reading)
    series = pd.Series([float(cell) for cell in cells]) if typed else pd.Series(cells, dtype=object)
    assert same(list(column.feed(series)), wanted)
    list(column.finish())
    assert (reading.missing, reading.understood, reading.refusals) == (5, 1, 1)
    assert same(numbers(["7", "8,0", "k.A."], coded, NumberRule(missing=("7", "8", "k.A.")))[0], [None] * 3)


def test_of_many_strange_spellings_the_first_are_kept_and_all_are_counted() -> None:
    found, reading = numbers([f"no {i}" for i in range(7000)])
    assert reading.refusals == reading.cells == len(found) == 7000
    assert sum(len(words) for words in reading.refused.values()) == 5000


def levels(cells: list[str], words: dict[str, str] | None = None) -> tuple[list, Reading]:
    reading = Reading(column="c", variable="child_pugh")
    column = CategoryColumn(CHILD_PUGH, reading, words)
    codes = column.feed(pd.Series(cells, dtype=object))
    return [None if math.isnan(code) else column.combinations[int(code)] for code in codes], reading


def test_a_word_counts_whole_and_an_unknown_one_is_refused_with_its_spelling() -> None:
    found, reading = levels(["Class A", "a", "Child-Pugh A", "A6", "Class C", "b|a", "", "Not Reported"])
    assert found == [(0,), (0,), (0,), None, None, (0, 1), None, None]
    assert (reading.understood, reading.missing, reading.refusals) == (4, 2, 2)
    assert {spelling for spelling, _, _ in reading.strange()} == {"A6", "Class C"}


def test_a_hospitals_own_words_come_first_and_may_say_missing() -> None:
    found, reading = levels(["eins", "a", "keine Angabe"], {"eins": "B", "keine angabe": ""})
    assert found == [(1,), (0,), None]
    assert reading.refusals == 0
    with pytest.raises(InvalidInput, match="expected words for A, B"):
        levels([], {"x": "D"})


def test_a_code_that_a_program_stored_as_a_fraction_is_that_code():
    stage = Category(name="s", levels=(Level(name="I", spellings=("1",)), Level(name="II", spellings=("2", "2.0x"))))
    reading = Reading(column="c", variable="s")
    column = CategoryColumn(stage, reading)
    codes = column.feed(pd.Series(["1.0", "2.00", "1", "1.5", "10", "3.0"], dtype=object))
    assert [None if math.isnan(c) else column.combinations[int(c)] for c in codes] == [
        (0,),
        (1,),
        (0,),
        None,
        None,
        None,
    ]


@pytest.mark.parametrize("text", ["1950", "195001", "1950-1-1", "19500101", "01.02.1950", "1950-13-01", "1950-02-30"])
def test_what_is_no_whole_date_is_refused(text):
    reading = Reading(column="c", variable="age")
    assert years_between(pd.Series([text]), pd.Series(["2010-01-01"]), reading).isna().all()
    assert reading.refusals == 1


def test_a_level_may_be_spelled_like_a_word_that_says_missing() -> None:
    site = Category(name="tss", levels=(Level(name="NA"), Level(name="None")))
    reading = Reading(column="c", variable="tss")
    column = CategoryColumn(site, reading)
    assert [column.combinations[int(c)] for c in column.feed(pd.Series(["NA", "none"], dtype=object))] == [(0,), (1,)]


def test_years_between_two_dates_and_what_is_no_date() -> None:
    reading = Reading(column="c", variable="age")
    born = pd.Series(["1950-01-01", "1950-01-01", "", "05/06/1950"], dtype=object)
    seen = pd.Series(["2010-01-01", "soon", "2010-01-01", "2010-01-01"], dtype=object)
    found = years_between(born, seen, reading)
    assert reading.refusals == 2 == -reading.missing  # the reader of the years counts them among the missing
    assert found[0] == pytest.approx(60, abs=0.01)
    assert found[1:].isna().all()
    assert sorted(word for word, _, _ in reading.strange()) == ["05/06/1950", "soon"]
