"""Clinical columns as GDC and cBioPortal call them, and what they are called in our tables.

Only what :data:`INPUTS` lists becomes a variable. What defines the stage or is known only after it
(:data:`LEAKING`) keeps its value under the prefix ``leak_``, which no reader accepts as an input; everything else
is left out. Names are compared in lower case and without a group: ``diagnoses.ajcc_pathologic_t`` is
``ajcc_pathologic_t``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from datasites.data.convert.barcodes import tissue_source_site
from privacy.errors import InvalidInput

DAYS_PER_YEAR = 365.25

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

STAGE = ("ajcc_pathologic_stage", "ajcc_pathologic_tumor_stage", "pathologic_stage", "tumor_stage")

LEAKING = frozenset(
    {
        *("ajcc_pathologic_t", "ajcc_pathologic_n", "ajcc_pathologic_m", "path_t_stage", "path_n_stage"),
        *("path_m_stage", "ajcc_tumor_pathologic_pt", "ajcc_nodes_pathologic_pn", "ajcc_metastasis_pathologic_pm"),
        *("ajcc_clinical_t", "ajcc_clinical_n", "ajcc_clinical_m", "ajcc_clinical_stage", "figo_stage"),
        *("metastasis_at_diagnosis", "lymph_nodes_positive", "lymph_nodes_tested", "lymph_node_examined_number"),
        *("residual_disease", "margin_status", "lymphatic_invasion_present", "vascular_invasion_present"),
        *("perineural_invasion_present", "tumor_status", "vital_status", "days_to_death", "days_to_last_follow_up"),
        *("last_known_disease_status", "days_to_recurrence", "progression_or_recurrence", "os_status", "os_months"),
        *("dfs_status", "dfs_months", "dss_status", "dss_months", "pfs_status", "pfs_months"),
        *("new_tumor_event_after_initial_treatment", "largest_extrapelvic_peritoneal_focus", "synchronous_malignancy"),
    }
)
"""T, N, M, what else the resection report says of spread, and what becomes known only later."""

_MISSING = frozenset(
    {
        *("", "'--", "--", "na", "nan", "none", "null", "unknown", "not reported", "not allowed to collect"),
        *("[not available]", "[not applicable]", "[not evaluated]", "[unknown]", "[discrepancy]", "[completed]"),
    }
)
_STAGE = re.compile(r"stage\s+(iv|iii|ii|i)[abcd]?\d?", re.IGNORECASE)
_TOBACCO = (
    ("lifelong non", "1"),
    ("current smoker", "2"),
    ("current reformed smoker for > 15", "3"),
    ("current reformed smoker for < or = 15", "4"),
    ("current reformed smoker, duration", "5"),
    ("smoker at diagnosis", "2"),
)
_HISTOLOGY = (
    ("infiltrating duct and lobular", "Mixed Histology"),
    ("infiltrating duct mixed", "Mixed Histology"),
    ("infiltrating duct carcinoma", "Infiltrating Ductal Carcinoma"),
    ("lobular carcinoma", "Infiltrating Lobular Carcinoma"),
    ("mucinous", "Mucinous Carcinoma"),
    ("metaplastic", "Metaplastic Carcinoma"),
    ("medullary", "Medullary Carcinoma"),
    ("combined hepatocellular", "Hepatocholangiocarcinoma"),
    ("hepatocellular carcinoma, fibrolamellar", "Fibrolamellar Carcinoma"),
)
_WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {"x_tobacco_history": _TOBACCO, "histology": _HISTOLOGY}


@dataclass(frozen=True, kw_only=True)
class Clinical:
    """One cohort's clinical table in our layout, and the source columns that were kept as leaks or left out."""

    table: pd.DataFrame
    leaking: tuple[str, ...]
    left_out: tuple[str, ...]


def clinical_table(rows: pd.DataFrame, cases: pd.Series, *, project: str, where: str) -> Clinical:
    """Return one row per case in the layout of ``clinical.csv``.

    Args:
        rows: texts, one row per case, under the source's column names.
        cases: the case id of each row.
        project: what becomes the column ``project``.
        where: what is being read, for messages.

    Raises:
        InvalidInput: a case stands there twice, or no column says the stage.
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
    if "age_at_diagnosis" in source:
        days = pd.to_numeric(source["age_at_diagnosis"], errors="coerce")
        made["age"] = made["age"].where(made["age"].notna(), (days / DAYS_PER_YEAR).round(1))
    for target, words in _WORDS.items():
        made[target] = made[target].map(lambda value, words=words: _word(value, words))
    made["stage_raw"] = _first(source, STAGE, rows.index)
    made["stage"] = made["stage_raw"].map(stage_of)
    leaking = sorted(LEAKING & set(source))
    made |= {f"leak_{name}": source[name] for name in leaking}
    known = {name for names in INPUTS.values() for name in names} | set(STAGE) | LEAKING | {"age_at_diagnosis"}
    return Clinical(
        table=pd.DataFrame(made).dropna(axis="columns", how="all").assign(stage=made["stage"]),
        leaking=tuple(leaking),
        left_out=tuple(sorted(set(source) - known)),
    )


def short_name(column: str) -> str:
    """Return a source column's name without its group, in lower case: ``demographic.gender`` gives ``gender``."""
    return column.rsplit(".", 1)[-1].strip().lower()


def stage_of(text: object) -> str | None:
    """Return I, II, III or IV of ``Stage IIA`` and the like, None for anything else (``Stage X``, ``Stage 0``)."""
    found = _STAGE.fullmatch(str(text).strip())
    return None if found is None else found.group(1).upper()


def _first(source: Mapping[str, pd.Series], names: tuple[str, ...], index: pd.Index) -> pd.Series:
    column = pd.Series([None] * len(index), index=index, dtype=object)
    for name in names:
        if name in source:
            column = column.where(column.notna(), source[name])
    return column


def _value(text: object) -> object:
    return None if text is None or str(text).strip().lower() in _MISSING else str(text).strip()


def _word(value: object, words: tuple[tuple[str, str], ...]) -> object:
    if not isinstance(value, str):
        return None
    return next((ours for theirs, ours in words if value.lower().startswith(theirs)), value)
