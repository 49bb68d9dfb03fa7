"""Each hospital's own part of cohort tables, worked out by itself: the same public seed gives everybody the same deal.

This is for consortia over public or synthetic tables, where every machine can read all of them. A hospital with
patients of its own puts a ready dataset folder (``schema.json``, ``private/``, ``mock/``; see docs/data.md) in place.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from datasites.consortium import Consortium
from datasites.dataset import read_schema, write_dataset
from datasites.ingest import CLINICAL_VARIABLES, site_part, site_schema, study_features
from datasites.synthetic import generate
from datasites.tcga.federations import Federation, Site, build
from datasites.tcga.tables import Tables, read_tables
from models.config import MODALITIES
from privacy.errors import InvalidInput


def deal(consortium: Consortium, tables: Tables) -> Federation:
    """Return which cases each hospital of the consortium gets.

    Raises:
        InvalidInput: a cohort that is not in the tables, or more hospitals of one cohort than the others allow.
    """
    even = build("upper-bound", tables, task=consortium.task, seed=consortium.seed, sites=len(consortium.hospitals))
    hands: dict[str, list[Site]] = {}
    for site in even.sites:
        hands.setdefault(site.cohort, []).append(site)
    return replace(
        even, name="consortium", sites=tuple(_site(h.name, consortium, tables, hands) for h in consortium.hospitals)
    )


def _site(name: str, consortium: Consortium, tables: Tables, hands: dict[str, list[Site]]) -> Site:
    hospital = consortium.hospital(name)
    if not hands.get(hospital.cohort):
        raise InvalidInput(
            f"no cases of cohort {hospital.cohort!r} are left for {name}; spread the hospitals evenly over the cohorts"
        )
    hand = hands[hospital.cohort].pop(0)
    modalities = tuple(m for m in MODALITIES if m in hospital.modalities and m in hand.modalities)
    if not modalities:
        raise InvalidInput(f"cohort {hospital.cohort} has none of the modalities of {name}; name another cohort")
    cohort = tables.cohorts[hospital.cohort]
    cases = tuple(case for case in hand.cases if any(cohort.holds(case, m) for m in modalities))
    return Site(name=name, institution=hospital.institution, cohort=hospital.cohort, modalities=modalities, cases=cases)


def place_dataset(consortium: Consortium, name: str, source: Path | None, datasets: Path) -> Path:
    """Put a hospital's dataset into its home and return the folder.

    Args:
        consortium: who gets what.
        name: the hospital.
        source: a ready dataset folder, a folder of cohort tables to take a part of, or None for synthetic patients.
        datasets: the home's folder of datasets.

    Raises:
        InvalidInput: the source is neither, or holds nothing for this hospital.
    """
    if source is not None and (source / "schema.json").exists():
        schema = read_schema(source)
        target = datasets / schema.name / f"v{schema.version}"
        staging = target.with_name(f".{target.name}.new")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(source, staging)
        staging.replace(target)
        return target
    tables = generate(seed=consortium.seed) if source is None else read_tables(source)
    plan = deal(consortium, tables)
    site = next(site for site in plan.sites if site.name == name)
    features = study_features(plan, tables, CLINICAL_VARIABLES)
    schema = site_schema(plan, site, features)
    rows = site_part(site.cases, site.modalities, tables, plan.task, features)
    target = datasets / schema.name / f"v{schema.version}"
    write_dataset(target, schema, rows, mock_seed=1 + plan.sites.index(site))
    return target


def place_synthetic_test(consortium: Consortium, target: Path) -> None:
    """Write the synthetic patients that no hospital got, all modalities given, as a dataset folder."""
    tables = generate(seed=consortium.seed)
    plan = deal(consortium, tables)
    features = study_features(plan, tables, CLINICAL_VARIABLES)
    everything = Site(
        name="test", institution="held out", cohort=plan.cohorts[0], modalities=tuple(features), cases=plan.test
    )
    rows = site_part(plan.test, everything.modalities, tables, plan.task, features)
    write_dataset(target, site_schema(plan, everything, features), rows)
