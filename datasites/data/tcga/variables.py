"""The clinical variables, their exact vocabularies and their fixed public encodings.

Nothing here is computed from anybody's records: vocabularies are the published codes of TCGA, GDC and cBioPortal,
centres and scales are round clinical numbers. All cohorts share one vector; a variable that a cohort's table lacks is
zero throughout, a missing entry of a variable that the table has sets its ``missing`` indicator.

Words are compared whole (:func:`datasites.study.schema.variables.plain`): ``Class A`` is a Child-Pugh A because it is
listed, not because of its first letter. What is not listed is refused and counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from datasites.study.schema.variables import Category, Level, Number

DAYS_PER_YEAR = 365.25
_NO, _YES = ("false",), ("true",)


def _words(column: str, missing: tuple[str, ...] = (), separator: str = "", /, **levels: tuple[str, ...]) -> Category:
    named = tuple(Level(name=name.replace("_", "-"), spellings=words) for name, words in levels.items())
    return Category(name=column, levels=named, missing=missing, separator=separator)


def _number(
    column: str, centre: float, scale: float, low: float, high: float, unit: str = "", **units: float
) -> Number:
    named = {_UNITS[name]: factor for name, factor in units.items()}
    return Number(name=column, unit=unit, low=low, high=high, centre=centre, scale=scale, units=named)


def _log(column: str, centre: float, scale: float, low: float, high: float, unit: str = "", **units: float) -> Number:
    named = {_UNITS[name]: factor for name, factor in units.items()}
    return Number(
        name=column, unit=unit, low=low, high=high, centre=centre, scale=scale, units=named, transform="log1p"
    )


_UNITS = {
    "days": "days",
    "months": "months",
    "g_l": "g/L",
    "umol_l": "umol/L",
    "ug_l": "ug/L",
    "per_ul": "/uL",
    "thousand_per_ul": "10^3/uL",
    "metres": "m",
    "inches": "in",
    "pounds": "lb",
}
_LUNG_LONG = ("current reformed smoker for > 15 years", "current reformed smoker for > 15 yrs")
_LUNG_SHORT = ("current reformed smoker for < or = 15 years", "current reformed smoker for < or = 15 yrs")

VARIABLES: tuple[Number | Category, ...] = (
    _number("age", 60.0, 12.0, 10.0, 100.0, "years", days=1 / DAYS_PER_YEAR, months=1 / 12),
    _words("sex", female=("f", "woman"), male=("m", "man")),
    _words(
        "race",
        ("other", "not allowed to collect", "more than one race"),
        white=("white or caucasian", "caucasian"),
        black=("black or african american", "black/african american", "african american"),
        asian=(),
        american=("american indian or alaska native",),
        native=("native hawaiian or other pacific islander",),
    ),
    _words(
        "ethnicity",
        ("not allowed to collect",),
        **{"not": ("not hispanic or latino", "not hispanic", "non-hispanic", "non hispanic")},
        hispanic=("hispanic or latino", "latino"),
    ),
    _number("year_dx", 2008.0, 4.0, 1980.0, 2030.0),
    _words(
        "prior_malignancy",
        ("not allowed to collect",),
        no=_NO,
        yes=(
            *_YES,
            "yes, history of prior malignancy",
            "yes, history of synchronous/bilateral malignancy",
            "yes, history of synchronous and or bilateral malignancy",
        ),
    ),
    _words(
        "neoadjuvant",
        ("not allowed to collect",),
        no=_NO,
        yes=(
            *_YES,
            "yes, pharmaceutical treatment prior to resection",
            "yes, radiation prior to resection",
            "yes, pharmaceutical and radiation treatment prior to resection",
        ),
    ),
    _words(
        "ajcc_edition",
        ("1st", "2nd", "9th"),
        **{f"{n}{end}": (f"{n}{end} edition", str(n)) for n, end in zip(range(3, 9), ("rd", *["th"] * 5), strict=True)},
    ),
    _words(
        "histology",
        ductal=("infiltrating ductal carcinoma", "infiltrating duct carcinoma, nos", "infiltrating duct carcinoma"),
        lobular=("infiltrating lobular carcinoma", "lobular carcinoma, nos", "lobular carcinoma"),
        mixed=(
            "mixed histology",
            "mixed histology (please specify)",
            "infiltrating duct and lobular carcinoma",
            "infiltrating duct mixed with other types of carcinoma",
            "hepatocholangiocarcinoma",
            "hepatocholangiocarcinoma (mixed)",
            "combined hepatocellular carcinoma and cholangiocarcinoma",
        ),
        mucinous=("mucinous carcinoma", "mucinous adenocarcinoma"),
        metaplastic=("metaplastic carcinoma", "metaplastic carcinoma, nos"),
        medullary=("medullary carcinoma", "medullary carcinoma, nos"),
        fibrolamellar=("fibrolamellar carcinoma", "hepatocellular carcinoma, fibrolamellar"),
        other=("other, specify", "infiltrating carcinoma nos"),
    ),
    _words("x_er", positive=("+", "pos"), negative=("neg",), indeterminate=()),
    _words("x_pr", positive=("+", "pos"), negative=("neg",), indeterminate=()),
    _words(
        "x_her2_ihc",
        positive=("3+", "3", "pos"),
        negative=("0", "1+", "1", "0+", "neg"),
        equivocal=("2+", "2"),
        indeterminate=(),
    ),
    _words(
        "x_menopause",
        pre=(
            "premenopausal",
            "pre (<6 months since lmp and no prior bilateral ovariectomy and not on estrogen replacement)",
        ),
        peri=("perimenopausal", "peri (6-12 months since last menstrual period)"),
        post=(
            "postmenopausal",
            "post (prior bilateral ovariectomy or >12 mo since lmp with no prior hysterectomy)",
        ),
        indeterminate=("indeterminate (neither pre or postmenopausal)",),
    ),
    _words(
        "x_subdivision",
        ("other (please specify)", "other"),
        "|",
        left=(),
        right=(),
        upper=(),
        lower=(),
        middle=(),
        outer=(),
        inner=(),
        bronchial=(),
    ),
    _words(
        "x_tobacco_history",
        ("7", "smoking history not documented"),
        never=(
            "1",
            "lifelong non-smoker",
            "lifelong non-smoker (less than 100 cigarettes smoked in lifetime)",
        ),
        current=(
            "2",
            "6",
            "current smoker",
            "smoker at diagnosis",
            "current smoker (includes daily smokers and non-daily smokers or occasional smokers)",
        ),
        reformed_long=("3", *_LUNG_LONG, "current reformed smoker for > 15 years (greater than 15 years)"),
        reformed=("4", *_LUNG_SHORT, "current reformed smoker for < or = 15 years (less than or equal to 15 years)"),
        unknown=("5", "current reformed smoker, duration not specified"),
    ),
    _number("x_pack_years", 50.0, 30.0, 0.0, 300.0),
    _words("x_central_peripheral", central=("central lung",), peripheral=("peripheral lung",)),
    _number("x_fev1_pct", 70.0, 25.0, 1.0, 200.0, "%"),
    _number("x_ecog", 1.0, 1.0, 0.0, 5.0),
    _words("x_grade", ("gx", "gb"), **{f"g{n}": (str(n), f"grade {n}", f"g {n}") for n in range(1, 5)}),
    _log("x_afp", 3.5, 2.5, 0.0, 1e7, "ng/mL", ug_l=1.0),
    _number("x_albumin", 4.0, 0.7, 1.0, 7.0, "g/dL", g_l=0.1),
    _log("x_bilirubin", 0.6, 0.4, 0.0, 50.0, "mg/dL", umol_l=1 / 17.1),
    _log("x_creatinine", 0.7, 0.3, 0.0, 25.0, "mg/dL", umol_l=1 / 88.4),
    _number("x_platelets", 200.0, 90.0, 1.0, 2000.0, "10^9/L", per_ul=0.001, thousand_per_ul=1.0),
    _words(
        "x_child_pugh",
        **{
            letter: (
                *(f"{start}{letter}" for start in ("class ", "child-pugh ", "child pugh ", "grade ")),
                *(f"{start}{letter}" for start in ("child-pugh class ", "child pugh class ", "child-pugh grade ")),
                *(f"{letter}{points}" for points in scores),
            )
            for letter, scores in (("a", (5, 6)), ("b", (7, 8, 9)), ("c", range(10, 16)))
        },
    ),
    _words(
        "x_fibrosis_ishak",
        none=("0", "0 - no fibrosis", "no fibrosis"),
        portal=("1", "2", "1,2", "1,2 - portal fibrosis", "portal fibrosis"),
        septa=("3", "4", "3,4", "3,4 - fibrous speta", "3,4 - fibrous septa", "fibrous septa"),
        nodular=("5", "5 - nodular formation and incomplete cirrhosis"),
        cirrhosis=("6", "6 - established cirrhosis", "established cirrhosis"),
    ),
    _words("x_adjacent_inflammation", none=(), mild=(), severe=()),
    _words(
        "x_risk_factor",
        (),
        ";",
        none=("no history of primary risk factors",),
        alcohol=("alcohol consumption",),
        hepatitis_b=("hepatitis b",),
        hepatitis_c=("hepatitis c",),
        fatty_liver=("non-alcoholic fatty liver disease",),
        other=("hemochromatosis", "alpha-1 antitrypsin deficiency"),
    ),
    _words("x_family_cancer_history", no=_NO, yes=_YES),
    _number("x_height_cm", 168.0, 10.0, 120.0, 220.0, "cm", metres=100.0, inches=2.54),
    _number("x_weight_kg", 75.0, 18.0, 30.0, 250.0, "kg", pounds=0.45359237),
    _number("x_bmi", 26.0, 5.0, 10.0, 80.0),
    _number("x_inr", 1.1, 0.3, 0.5, 5.0),
    _number("x_pt_seconds", 11.0, 3.0, 5.0, 60.0, "s"),
    _log("x_cea", 1.2, 1.0, 0.0, 1e6, "ng/mL", ug_l=1.0),
)
"""In the order of the clinical vector."""

WHERE_MEASURED = frozenset({"x_cea"})
"""Variables that are inputs only where a cohort's table has their column: vectors of others stay as they were."""

OPEN = frozenset({"histology"})
"""Variables of which our levels are some of very many words: others are counted as none of these, not refused."""

_SIDES, _HEIGHTS, _DEPTHS = ("left", "right"), ("upper", "lower"), ("outer", "inner")
COMPOUND: Mapping[str, Mapping[str, str]] = {
    "x_subdivision": {
        f"{side} {height} {depth} quadrant": f"{side}|{height}|{depth}"
        for side, height, depth in itertools.product(_SIDES, _HEIGHTS, _DEPTHS)
    }
    | {
        f"{side[0]}-{place}": f"{side}|{place}"
        for side, place in itertools.product(_SIDES, (*_HEIGHTS, "middle", "outer", "inner"))
    }
}
"""Whole words that stand for several levels at once, written out."""
