"""Clinical columns as GDC and cBioPortal call them, and what they are called in our tables.

Only what :data:`INPUTS` lists becomes a variable. What defines the stage or is known only after it
(:data:`LEAKING`) keeps its value under the prefix ``leak_``, which no reader accepts as an input; everything else
is left out. Names are compared in lower case and without a group: ``diagnoses.ajcc_pathologic_t`` is
``ajcc_pathologic_t``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from datasites.data.convert.barcodes import tissue_source_site
from datasites.data.tcga.leakage import LEAKING, STAGE_NAMES
from datasites.data.tcga.stages import read_stages
from datasites.data.tcga.variables import DAYS_PER_YEAR, VARIABLES
from datasites.study.schema.variables import Category, plain
from privacy.errors import InvalidInput

INPUTS: Mapping[str, tuple[str, ...]] = {
    "age": ("age_at_index", "age"),
    "sex": ("gender", "sex_at_birth", "sex"),
    "race": ("race",),
    "ethnicity": ("ethnicity",),
    "year_dx": ("year_of_diagnosis", "initial_pathologic_dx_year"),
    "prior_malignancy": ("prior_malignancy", "prior_dx"),
    "neoadjuvant": ("prior_treatment", "history_neoadjuvant_trtyn"),
    "ajcc_edition": ("ajcc_staging_system_edition", "ajcc_staging_edition"),
    "histology": ("primary_diagnosis", "histological_diagnosis", "histological_type"),
    "x_er": ("er_status_by_ihc",),
    "x_pr": ("pr_status_by_ihc",),
    "x_her2_ihc": ("ihc_her2", "her2_status_by_ihc"),
    "x_menopause": ("menopause_status",),
    "x_tobacco_history": ("tobacco_smoking_status", "tobacco_smoking_history_indicator", "tobacco_smoking_history"),
    "x_pack_years": ("pack_years_smoked", "smoking_pack_years"),
    "x_grade": ("tumor_grade", "grade", "neoplasm_histologic_grade"),
    "x_child_pugh": ("child_pugh_classification", "child_pugh_grade"),
    "x_fibrosis_ishak": ("ishak_fibrosis_score", "fibrosis_ishak_score"),
    "x_height_cm": ("height",),
    "x_weight_kg": ("weight",),
    "x_bmi": ("bmi",),
}
"""Our column, and the names of it in the sources, the first that has a value counting."""

STAGE = STAGE_NAMES
"""What a source may call the pathologic stage; the first that has a value counts."""

_MISSING = frozenset(
    {
        *("", "'--", "--", "na", "nan", "null", "unknown", "not reported", "not allowed to collect"),
        *("[not available]", "[not applicable]", "[not evaluated]", "[unknown]", "[discrepancy]", "[completed]"),
    }
)
_CANONICAL: Mapping[str, Mapping[str, str]] = {
    "x_tobacco_history": {"never": "1", "current": "2", "reformed-long": "3", "reformed": "4", "unknown": "5"},
    "histology": {
        "ductal": "Infiltrating Ductal Carcinoma",
        "lobular": "Infiltrating Lobular Carcinoma",
        "mixed": "Mixed Histology",
        "mucinous": "Mucinous Carcinoma",
        "metaplastic": "Metaplastic Carcinoma",
        "medullary": "Medullary Carcinoma",
        "fibrolamellar": "Fibrolamellar Carcinoma",
    },
}
"""What our tables call the levels of a vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Clinical:
    """One cohort's clinical table in our layout, and the source columns that were kept as leaks or left out.

    ``notes`` has a line for every value that was lost.
    """

    table: pd.DataFrame
    leaking: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def with_note(self, line: str) -> Clinical:
        """Return the same with another line."""
        return replace(self, notes=(*self.notes, line))


def clinical_table(
    rows: pd.DataFrame, cases: pd.Series, *, project: str, where: str, notes: Sequence[str] = ()
) -> Clinical:
    """Return one row per case in the layout of ``clinical.csv``.

    Args:
        rows: texts, one row per case, under the source's column names.
        cases: the case id of each row.
        project: what becomes the column ``project``.
        where: what is being read, for messages.
        notes: what is to be said already.

    Raises:
        InvalidInput: a case stands there twice, no column says the stage, or too many stages are not understood.
    """
    if cases.duplicated().any():
        raise InvalidInput(f"{where}: expected one row per case, {int(cases.duplicated().sum())} rows repeat a case")
    source = {short_name(str(c)): rows[c].map(_value) for c in reversed(rows.columns)}
    if not any(name in source for name in STAGE):
        raise InvalidInput(f"{where}: expected a column of the pathologic stage ({', '.join(STAGE)}), found none")
    made: dict[str, Any] = {
        "case_id": cases.astype(str),
        "project": project,
        "tss": cases.map(tissue_source_site),
    }
    made |= {target: _first(source, names, rows.index) for target, names in INPUTS.items()}
    told = list(notes)
    if "age_at_diagnosis" in source:
        days = pd.to_numeric(source["age_at_diagnosis"], errors="coerce")
        strange = int((days.isna() & source["age_at_diagnosis"].notna() & made["age"].isna()).sum())
        told += [f"{where}: {strange} ages in age_at_diagnosis are no numbers of days"] if strange else []
        made["age"] = made["age"].where(made["age"].notna(), (days / DAYS_PER_YEAR).round(1))
    for target, words in _CANONICAL.items():
        made[target] = made[target].map(_canonical(target, words))
    made["stage_raw"] = _first(source, STAGE, rows.index)
    made["stage"], unread = read_stages(made["stage_raw"], where=where)
    leaking = sorted(name for name in source if name in LEAKING)
    made |= {f"leak_{name}": source[name] for name in leaking}
    known = {name for names in INPUTS.values() for name in names} | set(STAGE) | LEAKING | {"age_at_diagnosis"}
    return Clinical(
        table=pd.DataFrame(made).dropna(axis="columns", how="all").assign(stage=made["stage"]),
        leaking=tuple(leaking),
        left_out=tuple(sorted(set(source) - known)),
        notes=(*told, *unread),
    )


def short_name(column: str) -> str:
    """Return a source column's name without its group, in lower case: ``demographic.gender`` gives ``gender``."""
    return column.rsplit(".", 1)[-1].strip().lower()


def _first(source: Mapping[str, pd.Series], names: tuple[str, ...], index: pd.Index) -> pd.Series:
    column = pd.Series([None] * len(index), index=index, dtype=object)
    for name in names:
        if name in source:
            column = column.where(column.notna(), source[name])
    return column


def _value(text: object) -> object:
    return None if text is None or str(text).strip().lower() in _MISSING else str(text).strip()


def _canonical(target: str, words: Mapping[str, str]) -> Callable[[object], object]:
    """Return what turns a whole word of a vocabulary into what our tables call it; other words stay as they are."""
    levels = next(v.levels for v in VARIABLES if v.name == target and isinstance(v, Category))
    known = {word: words[level.name] for level in levels if level.name in words for word in level.words()}
    return lambda value: known.get(plain(value), value) if isinstance(value, str) else None
