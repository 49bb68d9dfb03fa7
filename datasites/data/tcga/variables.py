"""The clinical variables and their fixed public encodings.

Nothing here is computed from anybody's records: vocabularies are TCGA's published codes, centres and scales are
round clinical numbers. All cohorts share one vector; a variable that a cohort's table lacks is zero throughout,
a missing entry of a variable that the table has sets its ``missing`` indicator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Numeric:
    """A number: ``(transform(x) - centre) / scale``, clipped to -4..4, and a missing indicator.

    ``accepted`` is the plausible range in the table's unit; what lies outside counts as missing.
    """

    column: str
    centre: float
    scale: float
    accepted: tuple[float, float]
    logarithmic: bool = False


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """A code: one indicator per entry of ``levels`` and a missing indicator.

    A value belongs to the first level one of whose fragments it starts with (lower case); none: missing.
    ``anywhere`` looks for the fragment inside the value instead and lets several levels hold at once.
    """

    column: str
    levels: Mapping[str, tuple[str, ...]]
    anywhere: bool = False


def _codes(column: str, *values: str) -> Categorical:
    return Categorical(column=column, levels={v.split(" ")[0].strip(","): (v,) for v in values})


def _number(column: str, centre: float, scale: float, low: float, high: float) -> Numeric:
    return Numeric(column=column, centre=centre, scale=scale, accepted=(low, high))


def _log(column: str, centre: float, scale: float, low: float, high: float) -> Numeric:
    return Numeric(column=column, centre=centre, scale=scale, accepted=(low, high), logarithmic=True)


VARIABLES: tuple[Numeric | Categorical, ...] = (
    _number("age", 60.0, 12.0, 10.0, 100.0),
    _codes("sex", "female", "male"),
    _codes("race", "white", "black", "asian", "american", "native"),
    _codes("ethnicity", "not", "hispanic"),
    _number("year_dx", 2008.0, 4.0, 1980.0, 2030.0),
    _codes("prior_malignancy", "no", "yes"),
    _codes("neoadjuvant", "no", "yes"),
    _codes("ajcc_edition", "3rd", "4th", "5th", "6th", "7th", "8th"),
    Categorical(
        column="histology",
        levels={
            "ductal": ("infiltrating ductal",),
            "lobular": ("infiltrating lobular",),
            "mixed": ("mixed histology", "hepatocholangio"),
            "mucinous": ("mucinous",),
            "metaplastic": ("metaplastic",),
            "medullary": ("medullary",),
            "fibrolamellar": ("fibrolamellar",),
            "other": ("other", "infiltrating carcinoma"),
        },
    ),
    _codes("x_er", "positive", "negative", "indeterminate"),
    _codes("x_pr", "positive", "negative", "indeterminate"),
    _codes("x_her2_ihc", "positive", "negative", "equivocal", "indeterminate"),
    _codes("x_menopause", "pre", "peri", "post", "indeterminate"),
    Categorical(
        column="x_subdivision",
        levels={
            "left": ("left", "l-"),
            "right": ("right", "r-"),
            "upper": ("upper",),
            "lower": ("lower",),
            "middle": ("middle",),
            "outer": ("outer",),
            "inner": ("inner",),
            "bronchial": ("bronchial",),
        },
        anywhere=True,
    ),
    Categorical(
        column="x_tobacco_history",
        levels={"never": ("1",), "current": ("2",), "reformed-long": ("3",), "reformed": ("4",), "unknown": ("5",)},
    ),
    _number("x_pack_years", 50.0, 30.0, 0.0, 300.0),
    _codes("x_central_peripheral", "central", "peripheral"),
    _number("x_fev1_pct", 70.0, 25.0, 1.0, 200.0),
    _number("x_ecog", 1.0, 1.0, 0.0, 5.0),
    _codes("x_grade", "g1", "g2", "g3", "g4"),
    _log("x_afp", 3.5, 2.5, 0.0, 1e7),
    _number("x_albumin", 4.0, 0.7, 1.0, 7.0),
    _log("x_bilirubin", 0.6, 0.4, 0.0, 50.0),
    _log("x_creatinine", 0.7, 0.3, 0.0, 25.0),
    _number("x_platelets", 200.0, 90.0, 1.0, 2000.0),
    _codes("x_child_pugh", "a", "b", "c"),
    Categorical(
        column="x_fibrosis_ishak",
        levels={"none": ("0",), "portal": ("1",), "septa": ("3",), "nodular": ("5",), "cirrhosis": ("6",)},
    ),
    _codes("x_adjacent_inflammation", "none", "mild", "severe"),
    Categorical(
        column="x_risk_factor",
        levels={
            "none": ("no history",),
            "alcohol": ("alcohol",),
            "hepatitis-b": ("hepatitis b",),
            "hepatitis-c": ("hepatitis c",),
            "fatty-liver": ("fatty",),
            "other": ("other", "hemochromatosis", "antitrypsin"),
        },
        anywhere=True,
    ),
    _codes("x_family_cancer_history", "no", "yes"),
    _number("x_height_cm", 168.0, 10.0, 120.0, 220.0),
    _number("x_weight_kg", 75.0, 18.0, 30.0, 250.0),
    _number("x_bmi", 26.0, 5.0, 10.0, 80.0),
    _number("x_inr", 1.1, 0.3, 0.5, 5.0),
    _number("x_pt_seconds", 11.0, 3.0, 5.0, 60.0),
)
"""In the order of the clinical vector."""
