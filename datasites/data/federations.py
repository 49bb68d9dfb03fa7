"""Who holds what: the paper's federations, the institutions that really exist, and a Dirichlet class split.

A quarter of the labelled cases of every cohort is held out first, stratified by stage; then the rest is dealt to
the institutions, again stratified. Splits of public data may be stratified; a hospital's own train/validation
split never is (see :func:`datasites.data.dataset.membership`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from datasites.data.tcga.tables import Cohort, Tables, labels
from datasites.study.text import folded, unseen, visible
from privacy.errors import InvalidInput

FEDERATIONS = ("tri-modal", "bi-modal", "one-modality", "upper-bound", "tissue-source-sites", "dirichlet")
SPLITS = ("stratified", "site-held-out")
MINIMUM_SITES = 3
_PRESETS = ("tri-modal", "bi-modal")
_DIRICHLET_TRIES = 50
_LONGEST_NAME = 100

MRNA, IMAGE, CLINICAL = "mrna", "image", "clinical"
Pattern = tuple[str, ...]
_TRI: Mapping[str, tuple[Pattern, ...]] = {
    "BRCA": ((MRNA, IMAGE, CLINICAL), (MRNA, IMAGE), (MRNA,)),
    "LUSC": ((MRNA, IMAGE, CLINICAL), (IMAGE, CLINICAL), (IMAGE,)),
    "LIHC": ((MRNA, IMAGE, CLINICAL), (MRNA, CLINICAL), (CLINICAL,)),
}
_BI: tuple[Pattern, ...] = ((MRNA, IMAGE), (MRNA,), (IMAGE,))
_ONE: tuple[Pattern, ...] = ((MRNA,), (IMAGE,), (CLINICAL,))
_UPPER: tuple[Pattern, ...] = ((MRNA, IMAGE, CLINICAL),) * 3


@dataclass(frozen=True, kw_only=True)
class Site:
    """One institution of a federation and the cases it will train on; its name becomes the name of a folder."""

    name: str
    institution: str
    cohort: str
    modalities: Pattern
    cases: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _is_one_name(self.name):
            raise InvalidInput(
                "expected a site's name that can be the name of a folder: at most 100 characters, no slash, nothing "
                f"unseen; got {visible(self.name)[:60]!r}, made of the cohort's folder and the source site (tss)"
            )


def _is_one_name(name: str) -> bool:
    """Return whether a text is one visible name of a folder, in any script, and never a path."""
    return (
        0 < len(name) <= _LONGEST_NAME
        and not name.startswith(".")
        and not (set("/\\:") & set(name) or any(True for _ in unseen(name)))
    )


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Sites and the held-out test cases, all by case id; no case is in two places.

    ``lost`` says what was left out when the tables were read.
    """

    name: str
    task: str
    cohorts: tuple[str, ...]
    sites: tuple[Site, ...]
    test: tuple[str, ...]
    lost: tuple[str, ...] = ()

    def holders(self, modality: str) -> int:
        """Return how many sites hold ``modality``; below ``min_sites`` its block stays local."""
        return sum(modality in site.modalities for site in self.sites)


def build(
    name: str,
    tables: Tables,
    *,
    task: str,
    seed: int,
    test_fraction: float = 0.25,
    sites: int | None = None,
    minimum_cases: int = 40,
    alpha: float = 0.5,
    split: str = "stratified",
) -> Federation:
    """Return the federation called ``name`` over ``tables``.

    Args:
        name: one of :data:`FEDERATIONS`.
        task: one of :data:`datasites.data.tcga.tables.TASKS`.
        seed: the split; the same seed gives the same federation, and every federation the same test cases.
        test_fraction: the share held out per cohort and stage, 0 to 0.9.
        sites: how many institutions, at least 3 (the presets have nine: three per cohort). Fewer than nine keep
            the first institutions of each cohort, which hold the most modalities, and share all its cases.
        minimum_cases: labelled training and test cases that a tissue source site needs to take part.
        alpha: concentration of the Dirichlet split; smaller is more uneven.
        split: ``stratified`` by stage, or ``site-held-out``: the test cases are all those of tissue source sites
            drawn at random, so that no institution is on both sides.

    Raises:
        InvalidInput: an unknown federation or task, too few or too many sites, or a site left without cases.
    """
    _check_wishes(name, test_fraction, split, sites)
    if not 0 < alpha < math.inf:
        raise InvalidInput(f"expected alpha above 0, got {alpha:g}: smaller is more uneven")
    made: list[Site] = []
    test: list[str] = []
    names = tuple(sorted(tables.cohorts, key=lambda c: (c not in _TRI, list(_TRI).index(c) if c in _TRI else 0, c)))
    shares = _sites_per_cohort(name, names, sites)
    for index, cohort_name in enumerate(names):
        cohort = tables.cohorts[cohort_name]
        label = labels(cohort.clinical, task)
        held_out, rest = _apart(cohort_name, cohort, label, split, test_fraction, np.random.default_rng([seed, index]))
        test += held_out
        if name == "tissue-source-sites":
            made += _real_sites(cohort, label, rest, minimum_cases)
        else:
            count = shares[cohort_name]
            hands = [rest[i::count] for i in range(count)]  # `rest` comes sorted by stage: this stratifies
            if name == "dirichlet":
                hands = _dirichlet_hands(label, rest, count, alpha, np.random.default_rng([seed, index, 1]))
            made += _dealt_sites(name, cohort, hands)
    if name in _PRESETS:
        made = [_with_rare(site, tables, made) for site in made]
    if name == "tissue-source-sites" and sites is not None:
        made = sorted(made, key=lambda s: -len(s.cases))[:sites]
    _check(name, made, sites)
    return Federation(
        name=name, task=task, cohorts=names, sites=tuple(made), test=tuple(sorted(test)), lost=tables.notes
    )


def _apart(
    name: str, cohort: Cohort, label: Mapping[str, int], split: str, test_fraction: float, draw: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Return the test cases of one cohort, and the rest."""
    if split == "site-held-out":
        held_out, rest = _hold_out_sites(cohort, label, test_fraction, draw)
    else:
        held_out, rest = _hold_out(label, test_fraction, draw)
    if not held_out and test_fraction * len(label) >= 1:
        raise InvalidInput(
            f"cohort {name}: no case can be held out: every tissue source site has more than {test_fraction:.0%} of "
            f"its {len(label)} cases; split by stage, or hold out a larger share"
        )
    return held_out, rest


def _with_rare(site: Site, tables: Tables, made: Sequence[Site]) -> Site:
    """Give ``site`` the modalities of its cohort that too few sites would hold for their part to be exchanged at all.

    The patterns are made for three cohorts that have all modalities; with fewer of them some modalities would stay at
    their hospitals. What nobody of the preset holds is not dealt to anybody.
    """
    cohort = tables.cohorts[site.cohort]
    holders = {m: sum(m in other.modalities for other in made) for m in (MRNA, IMAGE, CLINICAL)}
    rare = {m for m, count in holders.items() if 0 < count < MINIMUM_SITES}
    held = tuple(m for m in (MRNA, IMAGE, CLINICAL) if m in site.modalities or m in rare)
    return _site(site.name, site.institution, cohort, held, site.cases)


def check_federation(name: str) -> None:
    """Refuse what is none of :data:`FEDERATIONS` (InvalidInput)."""
    if name not in FEDERATIONS:
        raise InvalidInput(f"unknown federation {name!r}: expected one of {', '.join(FEDERATIONS)}")


def _check_wishes(name: str, test_fraction: float, split: str, sites: int | None) -> None:
    check_federation(name)
    if not 0.0 <= test_fraction <= 0.9:
        raise InvalidInput(f"expected a test fraction between 0 and 0.9, got {test_fraction}")
    if split not in SPLITS:
        raise InvalidInput(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    if sites is not None and sites < MINIMUM_SITES:
        raise InvalidInput(f"expected at least {MINIMUM_SITES} sites, got {sites}: no sum of fewer is ever decrypted")


def _sites_per_cohort(name: str, cohorts: Sequence[str], sites: int | None) -> dict[str, int]:
    total = 3 * len(cohorts) if sites is None else sites
    if name in ("tri-modal", "bi-modal", "one-modality", "upper-bound") and total > 3 * len(cohorts):
        raise InvalidInput(
            f"federation {name} has at most {3 * len(cohorts)} sites, got {total}; use dirichlet for more"
        )
    return {cohort: len(range(i, total, len(cohorts))) for i, cohort in enumerate(cohorts)}


def _hold_out(label: Mapping[str, int], fraction: float, generator: np.random.Generator) -> tuple[list[str], list[str]]:
    test: list[str] = []
    rest: list[str] = []
    for wanted in sorted(set(label.values())):
        cases = [case for case, value in label.items() if value == wanted]
        order = [cases[i] for i in generator.permutation(len(cases))]
        count = round(fraction * len(order))
        test += order[:count]
        rest += order[count:]
    return test, rest


def _hold_out_sites(
    cohort: Cohort, label: Mapping[str, int], fraction: float, generator: np.random.Generator
) -> tuple[list[str], list[str]]:
    codes = {case: str(code) for case, code in _source_sites(cohort).loc[list(label)].items()}
    names = sorted(set(codes.values()))
    held: set[str] = set()
    for position in generator.permutation(len(names)):
        more = held | {names[position]}
        if sum(code in more for code in codes.values()) <= fraction * len(label) * 1.2:
            held = more
    test = [case for case in label if codes[case] in held]
    rest = [case for case in label if codes[case] not in held]
    rest = [rest[i] for i in generator.permutation(len(rest))]
    return test, sorted(rest, key=lambda case: label[case])


def _source_sites(cohort: Cohort) -> pd.Series:
    if "tss" not in cohort.clinical.columns:
        raise InvalidInput(f"{cohort.name}/clinical.csv: expected a column tss (tissue source site), found none")
    codes = cohort.clinical["tss"].astype(object).where(cohort.clinical["tss"].notna(), "").map(_code)
    empty = int((codes == "").sum())
    if empty:
        raise InvalidInput(
            f"{cohort.name}/clinical.csv: expected a tissue source site (tss) for every case, {empty} lack it"
        )
    return codes


def _code(cell: object) -> str:
    return str(cell).strip()


def _patterns(name: str, cohort: str) -> tuple[Pattern, ...]:
    if name == "tri-modal":
        return _TRI.get(cohort, _TRI["BRCA"])
    return {"bi-modal": _BI, "one-modality": _ONE}.get(name, _UPPER)


def _dealt_sites(name: str, cohort: Cohort, hands: Sequence[Sequence[str]]) -> list[Site]:
    patterns = _patterns(name, cohort.name)
    return [
        _site(
            f"{cohort.name.lower()}-{i + 1}",
            f"{cohort.name} hospital {i + 1}",
            cohort,
            patterns[i % len(patterns)],
            hand,
        )
        for i, hand in enumerate(hands)
    ]


def _dirichlet_hands(
    label: Mapping[str, int], cases: Sequence[str], count: int, alpha: float, generator: np.random.Generator
) -> list[list[str]]:
    """Deal every class by its own Dirichlet shares; a draw that leaves a site nearly empty is drawn again."""
    enough = min(5, len(cases) // (4 * count)) if count else 0
    hands: list[list[str]] = []
    for _ in range(_DIRICHLET_TRIES):
        shares = generator.dirichlet([alpha] * count, size=1 + max(label.values()))
        hands = [[] for _ in range(count)]
        for case in cases:
            hands[int(generator.choice(count, p=shares[label[case]]))].append(case)
        if min(len(hand) for hand in hands) >= max(1, enough):
            return hands
    return hands


def _real_sites(cohort: Cohort, label: Mapping[str, int], rest: Sequence[str], minimum: int) -> list[Site]:
    """Return one site per institution; source sites that share an institution's name are one."""
    codes = _source_sites(cohort)
    institutions = codes
    if "site_name" in cohort.clinical.columns:
        names = cohort.clinical["site_name"]
        institutions = names.astype(object).where(names.notna(), codes).map(_code)
        institutions = institutions.where(institutions != "", codes)
    keys = institutions.map(folded)
    sizes = Counter(keys.loc[list(label)].tolist())
    made = []
    for key in sorted((k for k, n in sizes.items() if n >= minimum), key=lambda k: min(codes[keys == k])):
        members = [case for case in rest if keys.loc[case] == key]
        if not members:  # held out as a whole
            continue
        name = f"{cohort.name}-{min(codes[keys == key])}".lower()
        made.append(_site(name, institutions[keys == key].iloc[0], cohort, (MRNA, IMAGE, CLINICAL), members))
    return made


def _site(name: str, institution: str, cohort: Cohort, pattern: Pattern, cases: Sequence[str]) -> Site:
    """Keep the modalities that the cohort has at all, and the cases with at least one of them.

    Where the cohort has nothing of the pattern (no images of LIHC), mRNA stands in, else clinical data.
    """
    modalities = tuple(m for m in pattern if m == CLINICAL or m in cohort.modalities)
    if not modalities:
        modalities = (MRNA,) if MRNA in cohort.modalities else (CLINICAL,)
    kept = tuple(sorted(case for case in cases if any(cohort.holds(case, m) for m in modalities)))
    return Site(name=name, institution=institution, cohort=cohort.name, modalities=modalities, cases=kept)


def _check(name: str, made: Sequence[Site], sites: int | None) -> None:
    wanted = MINIMUM_SITES if sites is None else sites
    if len(made) < wanted:
        raise InvalidInput(f"federation {name}: these tables give {len(made)} sites, expected at least {wanted}")
    if len({site.name for site in made}) < len(made):
        raise InvalidInput(
            f"federation {name}: two sites have one name (capitals do not count); rename a cohort or a tss"
        )
    institutions = {folded(site.institution) for site in made}
    if len(institutions) < MINIMUM_SITES:
        raise InvalidInput(
            f"federation {name}: the {len(made)} sites belong to {len(institutions)} institutions, expected at least "
            f"{MINIMUM_SITES}: no sum over fewer is ever decrypted, so nothing would be exchanged"
        )
    empty = [site.name for site in made if not site.cases]
    if empty:
        raise InvalidInput(f"federation {name}: no labelled cases for {', '.join(empty)}; use fewer sites or more data")
