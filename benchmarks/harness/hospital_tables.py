"""Made-up hospital tables, each written in another way, and what every one of their cells means.

Each seed makes a schema, patients and tables that spell everything as hospitals do: encodings, separators, decimal
commas, units, words, missing words, dates, blanks, ids in other spellings, rows twice, broken files. What each cell
means is known, so the result of reading is compared with it, cell by cell. A *silent loss* is a value, label or patient
that is not in the dataset, or another one than was written, although the reader neither refused the tables nor counted
it in the reading report. A *traceback* is any other error than the one clear refusal.
"""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import gzip
import io
import math
import random
import shutil
import tempfile
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd

from datasites.data.reading.hospital import read_hospital
from datasites.data.reading.mapping import ColumnRule, LocalMapping
from datasites.study.schema.document import Criterion, Modality, PatientId, StudySchema
from datasites.study.schema.outcomes import Classes
from datasites.study.schema.variables import Category, Level, Number
from privacy.errors import InvalidInput

MISSING = ("", "NA", "n/a", "Not Reported", "unknown", "[Not Available]", "-", "NULL")
STRANGE = ("see letter", "###", "1;2;3", "<5", "pos.", "12 apples", "0x1F", "1e", "--5", "¿?", "A6", "2 of 3")
WORDS = ("NA", "none", "no", "not", "yes", "Class A", "Class B", "I", "II", "A", "left", "Größe", "0", "1", "None")


CONSENT = Criterion(column="consent", label="consents", one_of=("yes",))
AGE = Number(name="age", unit="years", low=0, high=120)
DATES = ("born", "seen")
FULL_WIDTH = str.maketrans("0123456789", "".join(chr(0xFF10 + digit) for digit in range(10)))
REMARKS = (
    "",
    "ok",
    "a{s}b",
    'he said "no"',
    "line\nbreak",
    "a{s}b{s}c\nand {s} more{s}",
    '"open',
    'it is 5" long',
    "caf\u00e9",
)


@dataclass
class Cell:
    """What a written cell means: a value, nothing, or something that must be refused; ``text`` is what is written."""

    text: Any
    value: float | str | None = None
    strange: bool = False


@dataclass
class Made:
    """One hospital's tables and what they mean: ``truth[variable][patient]`` is a cell.

    ``present[variable]`` are the patients who have a row in the table of that variable.
    """

    schema: StudySchema
    mapping: LocalMapping
    paths: list[Path]
    truth: dict[str, dict[str, Cell]]
    patients: list[str]
    present: dict[str, set[str]] = field(default_factory=dict)


def number(draw: random.Random, name: str) -> Number:
    low, high = draw.choice([(0, 1), (0, 300), (-50, 50), (1, 2000), (0, 100_000), (18, 110)])
    units = draw.choice([{}, {"mg/L": 0.001}, {"G/l": 1.0, "/uL": 0.001}])
    return Number(name=name, unit=draw.choice(["", "g/L", "mmol/L"]), low=low, high=high, units=units)


def category(draw: random.Random, name: str) -> Category:
    words = draw.sample(WORDS, draw.randint(2, 5))
    levels, used = [], {word.casefold() for word in words}
    for word in {w.casefold(): w for w in words}.values():
        other = f"{word} ({len(levels)})"
        levels.append(Level(name=word, spellings=(other,) if other.casefold() not in used else ()))
    if len(levels) < 2:
        levels.append(Level(name="other level"))
    return Category(name=name, levels=tuple(levels))


def schema_of(draw: random.Random) -> StudySchema:
    modalities = []
    for m in range(draw.randint(1, 3)):
        names = [f"v{m}{i}" for i in range(draw.randint(1, 4))]
        if draw.random() < 0.2:
            measure = Number(name="x", low=-1e6, high=1e6)
            columns = tuple(f"g{m}-{i}" for i in range(draw.randint(2, 12)))
            modalities.append(
                Modality(name=f"m{m}", kind="sequence-counts", label="m", columns=columns, measure=measure)
            )
            continue
        kinds: list[Number | Category] = [draw.choice([number, category])(draw, name) for name in names]
        kinds += [AGE] if m == 0 and draw.random() < 0.3 else []
        modalities.append(Modality(name=f"m{m}", kind="tabular", label="m", variables=tuple(kinds)))
    levels = (Level(name="good", spellings=("0",)), Level(name="bad", spellings=("1", "NA")))
    outcome = Classes(name="o", kind="binary", label="outcome", column="outcome", levels=levels)
    return StudySchema(
        name="s",
        version=1,
        title="s",
        cohorts=(Level(name="all"),),
        patient=PatientId(column="pid"),
        modalities=tuple(modalities),
        outcomes=(outcome,),
        inclusion=(CONSENT,) if draw.random() < 0.25 else (),
    )


def ids(draw: random.Random, count: int) -> list[str]:
    start = draw.randint(1, 5000)
    style: Callable[[int], str] = draw.choice(
        [
            lambda i: f"P-{start + i:05d}",
            lambda i: str(start + i),
            lambda i: f"{start + i:07d}",
            lambda i: f"TCGA-AA-{i:04d}",
            lambda i: str(9007199254740000 + start + i),
            lambda i: f"Müller{i:03d}",
            lambda i: f"{start + i}/{i % 7}x",
        ]
    )
    return [style(i) for i in range(count)]


def written_number(draw: random.Random, variable: Number, how: dict[str, Any]) -> Cell:
    value = draw.uniform(variable.low, variable.high)
    value = float(f"{value:.{draw.choice([0, 1, 2, 3])}f}")
    value = min(max(value, variable.low), variable.high)
    factor, unit = how["factor"], ""
    shown = value / factor
    if how["units"] and variable.units and draw.random() < 0.3:
        unit, factor = draw.choice(sorted(variable.units.items()))
        shown = value / factor
    text = repr(float(f"{shown:.9g}"))
    if "e" in text or "E" in text:
        text = f"{shown:.9f}"
    value = float(text) * factor
    if not variable.low <= value <= variable.high:
        return Cell(text.replace(".", how["decimal"]), strange=True)
    text = text.replace(".", how["decimal"])
    if draw.random() < how["odd"]:
        return odd_number(draw, variable, text, how["decimal"], factor)
    if draw.random() < 0.05:
        whole = round(value)
        if variable.low <= whole <= variable.high and factor == 1.0 and abs(whole) >= 1000:
            grouped = f"{whole:,}".replace(",", "." if how["decimal"] == "," else ",")
            return Cell(grouped + f"{how['decimal']}0", value=float(whole))
    if draw.random() < 0.1 and not text.startswith("-"):
        text = f"+{text}" if draw.random() < 0.3 else text
    return Cell(f"{text} {unit}".strip(), value=value)


def odd_number(draw: random.Random, variable: Number, text: str, decimal: str, factor: float) -> Cell:
    """Return the same number as people write it who think of readers, not of programs."""
    plain = float(text.replace(",", "."))
    grouped = f"{plain:,.3f}"
    between = draw.choice(["'", "\u00a0", "\u202f", " ", "." if decimal == "," else ","])
    odd = draw.choice(
        [
            text.translate(FULL_WIDTH),
            f"\u00a0{text}\u00a0",
            grouped.translate({ord(","): between, ord("."): decimal}),
            text.replace("-", "\u2212"),
            f"{plain:.6e}".replace(".", decimal),
            f"{text}\u200b",
            f"{text}*",
        ]
    )
    value = plain
    if "e" in odd:
        value = float(odd.replace(",", "."))
    elif odd.startswith(grouped[:1]) and len(grouped) > 7 and between in odd:
        value = float(grouped.replace(",", ""))
    value = value * factor
    return Cell(odd, value=value if variable.low <= value <= variable.high else None)


def written_word(draw: random.Random, levels: tuple[Level, ...]) -> Cell:
    level = draw.choice(levels)
    text = draw.choice([level.name, *level.spellings])
    text = draw.choice([text, text.upper(), text.capitalize(), f"  {text} ", text.replace(" ", "\u00a0")])
    if text.isdigit() and draw.random() < 0.2:
        text = f"{text}.0"
    return Cell(text, value=level.name)


def written_dates(draw: random.Random, strange: float) -> Cell:
    """Return the two dates of an age, and the years between them."""
    born = dt.date(1900, 1, 1) + dt.timedelta(days=draw.randint(0, 40_000))
    seen = born + dt.timedelta(days=draw.randint(0, 43_000))
    texts = [born.isoformat(), seen.isoformat()]
    place, luck = draw.randint(0, 1), draw.random()
    if luck < 0.08:
        texts[place] = draw.choice(MISSING)
        return Cell(tuple(texts))
    if luck < 0.08 + strange:
        texts[place] = draw.choice([born.strftime("%d.%m.%Y"), "1950", "195002", "2020-13-01", "soon", "05/06/1950"])
        return Cell(tuple(texts), strange=True)
    return Cell(tuple(texts), value=(seen - born).days / 365.25)


def written(draw: random.Random, variable: Number | Category | Classes, how: dict[str, Any]) -> Cell:
    known = set() if isinstance(variable, Number) else {w for level in variable.levels for w in level.words()}
    luck = draw.random()
    if luck < 0.08:
        text = draw.choice([word for word in MISSING if word.casefold() not in known])
        return Cell(text)
    if luck < 0.08 + how["strange"]:
        text = draw.choice([word for word in STRANGE if word.casefold() not in known])
        return Cell(text, strange=True)
    if isinstance(variable, Number):
        return written_number(draw, variable, how)
    return written_word(draw, variable.levels)


def make(seed: int, folder: Path) -> Made:
    """Write one hospital's tables below a new folder."""
    draw = random.Random(seed)  # noqa: S311 - made-up patients
    schema = schema_of(draw)
    patients = ids(draw, draw.randint(25, 60))
    outcome = schema.outcomes[0]
    truth: dict[str, dict[str, Cell]] = {}
    rules: dict[str, ColumnRule] = {}
    groups: list[list[str]] = [["outcome"]]
    form = draw.choice(["csv", "csv", "csv", "tsv", "gz", "parquet", "feather", "csv", "csv", "tsv", "xlsx"])
    separator = "\t" if form == "tsv" else draw.choice([",", ";", "|", "\t"])
    decimal = draw.choice([".", ","] if separator != "," or draw.random() < 0.3 else ["."])
    strange = draw.choice([0, 0, 0, 0.01, 0.03, 0.2])
    for modality in schema.modalities:
        names = list(modality.names)
        variables = {v.name: v for v in modality.variables}
        for name in names:
            variable = variables.get(name) or modality.measure
            how = {"decimal": decimal, "factor": 1.0, "units": draw.random() < 0.3, "strange": strange}
            how["odd"] = draw.choice([0.0] * 6 + [0.02, 0.02, 0.3])
            if isinstance(variable, Number) and variable.units and draw.random() < 0.2:
                unit, how["factor"] = draw.choice(sorted(variable.units.items()))
                rules[name] = ColumnRule(unit=unit)
                how["units"] = False
            truth[name] = {patient: written(draw, variable, how) for patient in patients}
            if variable is AGE:
                truth[name] = {patient: written_dates(draw, strange) for patient in patients}
                rules[name] = ColumnRule(since="born", until="seen")
        groups.append(names)
    truth["outcome"] = {p: written(draw, outcome, {"strange": strange / 2}) for p in patients}
    if schema.inclusion:
        groups[0].append("consent")
        words = ("yes", "YES", " yes", "no", "later", "")
        answers = {p: draw.choice(words) for p in patients}
        truth["consent"] = {
            p: Cell(a, value="yes" if a.strip().casefold() == "yes" else None) for p, a in answers.items()
        }
    made = Made(schema=schema, mapping=LocalMapping(columns=rules), paths=[], truth=truth, patients=patients)
    if draw.random() < 0.4:
        groups = [[name for group in groups for name in group]]
    elif draw.random() < 0.5:
        groups = [groups[0] + groups[1], *groups[2:]]
    for place, names in enumerate(groups):
        made.paths.append(_write(draw, made, folder, place, names, form, separator))
    return made


def _write(
    draw: random.Random, made: Made, folder: Path, place: int, names: list[str], form: str, separator: str
) -> Path:
    names = draw.sample(names, len(names))
    rows: list[list[Any]] = []
    trouble = draw.choice([0.0] * 14 + [0.05, 1.0]) if place else 0.0
    chosen = [p for p in made.patients if place == 0 or draw.random() < 0.9]
    made.present |= {name: set(chosen) for name in names}
    for patient in draw.sample(chosen, len(chosen)):
        shown = patient
        if draw.random() < trouble:
            shown = draw.choice(other_spellings(patient))
        shown = f" {shown}" if draw.random() < 0.05 else shown
        cells = [made.truth[name][patient].text for name in names]
        rows.append([shown, *(text for cell in cells for text in (cell if isinstance(cell, tuple) else (cell,)))])
    if draw.random() < 0.1:
        rows.append(list(draw.choice(rows)))
    if draw.random() < 0.1:
        rows.append(["", *(draw.choice(rows)[1:])])
    header = [draw.choice(["pid", "PID", "pid "]) if draw.random() < 0.2 else "pid"]
    for name in names:
        header += (
            DATES
            if name == "age"
            else [draw.choice([name.upper(), name.swapcase(), f"{name}\u00a0"]) if draw.random() < 0.1 else name]
        )
    if draw.random() < 0.05:  # a second row of headings: units, or the columns' long names
        rows.insert(
            0,
            [
                draw.choice(["", "(number)", "Patient"]),
                *(draw.choice(["", "[g/L]", "unit", name]) for name in header[1:]),
            ],
        )
    if draw.random() < 0.25:
        where = draw.randint(1, len(header))
        header.insert(where, draw.choice(["remarks", "remarks\n(free text)", "Remarks"]))
        for row in rows:
            row.insert(where, draw.choice(REMARKS).format(s=separator))
    return _stored(draw, folder / f"t{place}", header, rows, form, separator)


def other_spellings(patient: str) -> list[str]:
    return [
        *(f"{patient}-01", patient.lower(), patient.upper(), f"0{patient}", f"{patient}.0"),
        *(patient.replace("-", "_"), unicodedata.normalize("NFD", patient), f"{patient}\u200b"),
    ]


def _stored(
    draw: random.Random, stem: Path, header: list[str], rows: list[list[Any]], form: str, separator: str
) -> Path:
    if form in ("parquet", "feather"):
        table = pd.DataFrame(rows, columns=header, dtype=object)
        if draw.random() < 0.5 and all(_plain_integer(v) for v in table[header[0]]):
            table[header[0]] = table[header[0]].map(lambda v: int(str(v)))
        path = stem.with_suffix(f".{form}")
        table.columns = [c.strip() for c in table.columns]
        table.to_parquet(path, index=False) if form == "parquet" else table.to_feather(path)
        return path
    if form == "xlsx":
        path = stem.with_suffix(".xlsx")
        _write_excel(draw, path, header, rows)
        return path
    text = io.StringIO()
    ends = draw.choice(["\n", "\n", "\r\n", "\r\n", "\r"])
    if draw.random() < 0.06:  # a program that never heard of quotes
        lines = [separator.join(" ".join(str(cell).split("\n")) for cell in row) for row in (header, *rows)]
        text.write(ends.join(lines) + ends)
    else:
        quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=ends)
        writer.writerow(header)
        writer.writerows(rows)
    whole = text.getvalue()
    if draw.random() < 0.04:
        whole = draw.choice([f"sep={separator}{ends}", f"Export of a system{ends}", ends]) + whole
    if draw.random() < 0.03:
        whole = whole.replace(ends, separator + ends)
    encoding = draw.choice(
        ["utf-8"] * 8 + ["utf-8-sig", "cp1252", "latin-1", "utf-16"] * 3 + ["utf-16-be", "utf-16-be", "utf-16-le"]
    )
    data = whole.encode(encoding, errors="replace")
    if encoding == "utf-16-be":
        data = codecs.BOM_UTF16_BE + data
    path = stem.with_suffix({"tsv": ".tsv", "gz": ".csv.gz"}.get(form, ".csv"))
    if not encoding.startswith("utf-16") and draw.random() < 0.05:
        data += draw.choice([b"\n", b"\n\n\r\n", b"x,y\n", b'"'])
    data = gzip.compress(data) if form == "gz" else data
    path.write_bytes(data[:-9] if form == "gz" and draw.random() < 0.05 else data)
    return path


def _write_excel(draw: random.Random, path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Write a workbook as people make them: typed cells, dates, a title, merged cells, formulas nobody computed."""
    book = openpyxl.Workbook()
    sheet = book.active
    typed, start = draw.random() < 0.5, 2
    if draw.random() < 0.04:
        sheet.append(["Export of a system"])
        start = 3
    sheet.append(header)
    for row in rows:
        cells = [_typed(cell) if typed and place else cell for place, cell in enumerate(row)]
        sheet.append([cell.replace("\0", "") if isinstance(cell, str) else cell for cell in cells])
    place, line = draw.randint(1, len(header)), start + draw.randint(0, len(rows) - 2)
    if draw.random() < 0.08:
        sheet.merge_cells(start_row=line, end_row=line + 1, start_column=place, end_column=place)
    if draw.random() < 0.06:
        sheet.cell(row=line, column=place).value = "=1+1"
    book.save(path)


def _typed(cell: Any) -> Any:
    try:
        return dt.date.fromisoformat(cell) if len(cell) == 10 else float(cell) if cell.isascii() else cell
    except ValueError:
        return cell


def _plain_integer(text: Any) -> bool:
    return str(text).strip().isdecimal() and str(int(str(text))) == str(text).strip()


def losses(made: Made) -> tuple[list[str], bool]:
    """Read one hospital's tables; return what was lost unseen, and whether the tables were accepted."""
    try:
        data, report = read_hospital(made.paths, made.schema, "o", mapping=made.mapping)
    except InvalidInput:
        return [], False
    found = []
    left = sum(step.patients for step in report.left_out)
    if report.seen - left != report.patients or report.patients != len(data.patients):
        found.append("patients do not add up")
    for column in report.columns:
        rows = next(t.rows for t in report.tables if t.table == column.table and t.group == column.group)
        if column.cells != rows:
            found.append(f"{column.variable}: {column.cells} cells of {rows} rows are counted")
    if report.problems:
        return found, False
    found += _patients(made, data, report)
    for modality in made.schema.modalities:
        if modality.name in data.modalities:
            found += _values(made, modality, data, report)
        elif any(_true(c) for name in modality.names for c in made.truth[name].values()):
            found.append(f"{modality.name} is not there")
    return found, True


def _patients(made: Made, data: Any, report: Any) -> list[str]:
    found = []
    strangers = set(data.patients) - set(made.patients)
    if strangers:
        found.append(f"{len(strangers)} patients were invented")
    consents = made.truth.get("consent", {})
    if any(p in consents and consents[p].value is None for p in data.patients):
        found.append("a patient who does not consent is in the dataset")
    labels = {p: data.outcome[i, 0] for i, p in enumerate(data.patients)}
    levels = [level.name for level in made.schema.outcomes[0].levels]
    refused = sum(c.refused for c in report.columns if c.variable == "outcome")
    told = sum(step.patients for step in report.left_out)
    lost = 0
    for patient, cell in made.truth["outcome"].items():
        if patient in labels and levels[int(labels[patient])] != cell.value:
            found.append("a label was changed or invented")
        if patient not in labels and cell.value is not None:
            lost += 1
    if lost > told + refused:
        found.append(f"{lost} labels are lost, {told + refused} told of")
    return found


def _values(made: Made, modality: Any, data: Any, report: Any) -> list[str]:
    found, measured, kept = [], data.modalities[modality.name], set(data.patients)
    values = measured.values[:]
    variables = {v.name: v for v in modality.variables}
    tables = [t for t in report.tables if t.group == modality.name]
    apart = sum(t.patients - t.joined for t in tables)
    row_of = {patient: row for row, patient in enumerate(measured.patients)}
    facts = {c.variable: c for c in report.columns if c.group == modality.name}
    for place, name in enumerate(modality.names):
        variable, lost = variables.get(name), 0
        for patient, cell in made.truth[name].items():
            row = row_of.get(patient)
            got = math.nan if row is None else float(values[row, place])
            if math.isnan(got):
                lost += _true(cell) and patient in kept and patient in made.present[name]
                continue
            if isinstance(variable, Category):
                places = measured.combinations[place][int(got)]
                same = [variable.levels[p].name for p in places] == [cell.value]
            else:
                same = cell.value is not None and math.isclose(got, cell.value, rel_tol=2e-6, abs_tol=1e-6)
            if not same:
                found.append(f"{name}: {cell.text!r} became {got}")
        told = facts[name].refused if name in facts else 0
        if lost > told + apart:
            found.append(f"{name}: {lost} values are lost, {told + apart} told of")
    return found


def _true(cell: Cell) -> bool:
    return cell.value is not None


def run(first: int, tables: int) -> dict[str, Any]:
    """Make and read tables; return the counts, and the first seeds of which something was lost."""
    counts: Counter[str] = Counter()
    examples: list[str] = []
    for seed in range(first, first + tables):
        folder = Path(tempfile.mkdtemp(prefix="tables-"))
        try:
            made = make(seed, folder)
            found, accepted = losses(made)
            counts["accepted"] += accepted
            counts["silent_losses"] += bool(found)
            examples += [f"seed {seed}: {line}" for line in found[:2]]
        except Exception:
            counts["tracebacks"] += 1
            examples.append(f"seed {seed}: {traceback.format_exc(limit=-2)}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "tables": tables,
        "accepted": counts["accepted"],
        "silent_losses": counts["silent_losses"],
        "tracebacks": counts["tracebacks"],
        "examples": examples[:20],
    }
