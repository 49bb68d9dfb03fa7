"""From cohort tables to one dataset per hospital, with the test patients held out.

For consortia over public or synthetic tables, where every machine can read all of them: the same public seed gives
every machine the same split, so each works out its own part. A hospital with patients of its own puts a ready dataset
folder (``schema.json``, ``private/``, ``mock/``; see docs/data.md) in place instead.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.dataset import Part, Schema, read_schema, write_dataset
from datasites.data.federations import Federation, Site, build
from datasites.data.guard.association import flat_share, said, telling
from datasites.data.reading.mapping import LocalMapping
from datasites.data.synthetic import generate
from datasites.data.tcga.preprocessing import (
    clinical_features,
    clinical_inputs,
    image_inputs,
    mrna_inputs,
    unscaled,
)
from datasites.data.tcga.tables import MAP_FEATURE, Cohort, Images, Tables, class_count, labels, read_tables
from datasites.data.tcga.variables import VARIABLES, WHERE_MEASURED
from datasites.node.consortium import Consortium
from models.config import in_order
from privacy.canonical import canonical_json
from privacy.errors import InvalidInput

_log = logging.getLogger(__name__)
READING = "reading.json"
Progress = Callable[[str, int, int], None]
CLINICAL_VARIABLES = tuple(v.name for v in VARIABLES if v.name not in WHERE_MEASURED)
PREPROCESSING: Mapping[str, str] = {
    "mrna": "arcsinh of the z-score",
    "image": "signed log1p, centre and scale by kind of feature (datasites.data.tcga.preprocessing), clipped to 5",
    "clinical": "fixed encodings (datasites.data.tcga.variables)",
}
_Inputs = dict[str, tuple[tuple[str, ...], NDArray[np.float32]]]


def ingest(
    source: Path | Tables,
    out: Path,
    *,
    federation: str,
    task: str,
    seed: int,
    sites: int | None = None,
    minimum_cases: int = 40,
    test_fraction: float = 0.25,
    clinical_variables: Sequence[str] | None = None,
    images: Images = "features",
    mapping: LocalMapping | None = None,
    progress: Progress | None = None,
) -> Federation:
    """Write one dataset per institution of ``federation``; ``out`` appears complete or not at all.

    Args:
        source: a folder of cohort tables, or tables that are already read (synthetic ones, say).
        out: a new folder.
        federation: see :data:`datasites.data.federations.FEDERATIONS`.
        task: ``I-II``, ``early-late``, ``ordinal`` (I, II, III+) or ``I-IV``.
        seed: of the split; public.
        sites: how many institutions (default: all of the preset).
        minimum_cases: see :func:`datasites.data.federations.build`.
        test_fraction: share of the cases that is held out, 0 to 0.9.
        clinical_variables: which clinical columns become inputs; those of :func:`variables_of` by default.
        images: computed slide features, or tissue maps; only where ``source`` is a folder.
        mapping: the owner's words and units of clinical columns, likewise.
        progress: called with what was done, how much of it, out of how much.

    Raises:
        InvalidInput: bad tables, names or numbers; nothing was written.
    """
    if out.exists():
        raise InvalidInput(f"expected a new output folder, {out} exists; choose another one or remove it")
    tables = source if isinstance(source, Tables) else read_tables(source, images=images, mapping=mapping)
    plan = build(
        federation,
        tables,
        task=task,
        seed=seed,
        sites=sites,
        minimum_cases=minimum_cases,
        test_fraction=test_fraction,
    )
    chosen = variables_of(tables) if clinical_variables is None else clinical_variables
    features = study_features(plan, tables, chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _write_all(staging, plan, tables, features, progress)
        _write_reading(staging, plan, tables, features)
        staging.replace(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return plan


def variables_of(tables: Tables) -> tuple[str, ...]:
    """Return the clinical variables of a study over ``tables``: the usual ones, and others that a cohort has."""
    columns = {str(column) for cohort in tables.cohorts.values() for column in cohort.clinical.columns}
    return (*CLINICAL_VARIABLES, *sorted(WHERE_MEASURED & columns))


def study_features(plan: Federation, tables: Tables, clinical_variables: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the feature names of every modality that some site of ``plan`` holds."""
    every = {
        "mrna": tables.genes,
        "image": tables.image_features,
        "clinical": tuple(clinical_features(clinical_variables)),
    }
    held = {m for site in plan.sites for m in site.modalities}
    return {m: every[m] for m in in_order(held)}


def site_schema(plan: Federation, site: Site, features: Mapping[str, tuple[str, ...]]) -> Schema:
    """Return the public description of one site's dataset."""
    return Schema(
        name=f"{site.name}-staging",
        version=1,
        institution=site.institution,
        cohort=site.cohort,
        cohorts=plan.cohorts,
        task=plan.task,
        classes=class_count(plan.task),
        modalities=in_order(site.modalities),
        features=dict(features),
        preprocessing={m: _preprocessing(m, names) for m, names in features.items()},
        source=f"{plan.name} federation of cohort tables",
    )


def _preprocessing(modality: str, features: Sequence[str]) -> str:
    if modality == "image" and features[0].startswith(MAP_FEATURE):
        return "tissue map [row, column, channel], value over 255"
    if modality == "image" and unscaled(features):
        return f"{PREPROCESSING[modality]}; features of unknown kind: signed log1p twice, for a standardised study"
    return PREPROCESSING[modality]


def site_part(
    cases: Sequence[str], modalities: Sequence[str], tables: Tables, task: str, features: Mapping[str, tuple[str, ...]]
) -> Part:
    """Return the rows of ``cases`` with the modalities asked for, joined by case id across all cohorts."""
    wanted = set(cases)
    found: dict[str, list[tuple[tuple[str, ...], NDArray[np.float32]]]] = {m: [] for m in modalities}
    rows: list[tuple[str, str, int]] = []
    for cohort in tables.cohorts.values():
        own = labels(cohort.clinical, task)
        members = sorted(wanted & set(own))
        rows += [(case, cohort.name, own[case]) for case in members]
        for modality in modalities:
            found[modality].append(_inputs(cohort, modality, members, features[modality]))
    rows.sort()
    return Part(
        cases=tuple(r[0] for r in rows),
        cohorts=tuple(r[1] for r in rows),
        labels=tuple(r[2] for r in rows),
        inputs={m: _stacked(parts, len(features[m])) for m, parts in found.items()},
    )


def _inputs(
    cohort: Cohort, modality: str, cases: Sequence[str], features: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    held = tuple(case for case in cases if cohort.holds(case, modality))
    if not held:
        return (), np.zeros((0, len(features)), dtype=np.float32)
    where = f"{cohort.name}/{modality}"
    if modality == "clinical":
        variables = list(dict.fromkeys(name.split(":")[0] for name in features))
        return held, clinical_inputs(cohort.clinical.loc[list(held)], variables)
    table: pd.DataFrame = cohort.modalities[modality].loc[list(held)]
    inputs = mrna_inputs if modality == "mrna" else image_inputs
    own = [name for name in features if name in table.columns]
    if len(own) == len(features):
        return held, inputs(table, features, where=where)
    return held, spread_out(inputs(table, own, where=where), own, features)


def spread_out(values: NDArray[np.float32], own: Sequence[str], features: Sequence[str]) -> NDArray[np.float32]:
    """Return the columns that a cohort has among all of a study's, the others zero.

    Models scale a modality by its number of features. A record that has a part of them is scaled up by the same rule,
    so that its inputs count as much as those of a record that has all.
    """
    places = {name: i for i, name in enumerate(features)}
    found = np.zeros((len(values), len(features)), dtype=np.float32)
    found[:, [places[name] for name in own]] = values * np.float32(np.sqrt(len(features) / max(1, len(own))))
    return found


def _stacked(
    parts: Sequence[tuple[tuple[str, ...], NDArray[np.float32]]], width: int
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    cases = tuple(case for held, _ in parts for case in held)
    values = np.concatenate([np.zeros((0, width), dtype=np.float32), *(v for _, v in parts)])
    return cases, values


def _write_all(
    folder: Path,
    plan: Federation,
    tables: Tables,
    features: Mapping[str, tuple[str, ...]],
    progress: Progress | None,
) -> None:
    parts = [(folder / "sites" / site.name, site) for site in plan.sites]
    for done, (path, site) in enumerate(parts, start=1):
        rows = site_part(site.cases, site.modalities, tables, plan.task, features)
        write_dataset(path, site_schema(plan, site, features), rows, mock_seed=done)
        if progress:
            progress(site.name, done, len(parts) + 1)
    everything = Site(
        name="test", institution="held out", cohort=plan.cohorts[0], modalities=tuple(features), cases=plan.test
    )
    rows = site_part(plan.test, everything.modalities, tables, plan.task, features)
    write_dataset(folder / "test", site_schema(plan, everything, features), rows)
    (folder / "federation.json").write_bytes(canonical_json(_public(plan)))
    if progress:
        progress("test", len(parts) + 1, len(parts) + 1)


def _write_reading(folder: Path, plan: Federation, tables: Tables, features: Mapping[str, tuple[str, ...]]) -> None:
    """Write ``reading.json``: a line for everything that was lost, and for inputs that look wrong."""
    warnings = [line for cohort in tables.cohorts.values() for line in _looked_at(cohort, plan.task, features)]
    lines = json.dumps({"lost": list(tables.notes), "warnings": warnings}, indent=2, ensure_ascii=False)
    (folder / READING).write_text(lines + "\n", encoding="utf-8")


def _looked_at(cohort: Cohort, task: str, features: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return a warning for every variable that nearly tells the stage, and for modalities that hardly vary."""
    label, lines = labels(cohort.clinical, task), []
    for modality, names in features.items():
        cases = [case for case in label if cohort.holds(case, modality)]
        if not cases:
            continue
        _, values = _inputs(cohort, modality, cases, names)
        table = pd.DataFrame(values, columns=list(names)) if modality == "clinical" else cohort.modalities[modality]
        rows = table if modality == "clinical" else table.loc[cases]
        columns = {str(name): rows[name].to_numpy(dtype=np.float64) for name in rows.columns}
        where, outcome = f"{cohort.name}/{modality}", np.array([float(label[case]) for case in cases])
        lines += said(telling(columns, outcome, classes=True), where, "the stage")
        flat = flat_share(values) if modality != "clinical" else 0.0
        if flat > 0.5:
            lines.append(f"{where}: {flat:.0%} of the inputs hardly differ between patients: check scale and unit")
    return lines


def _public(plan: Federation) -> dict[str, object]:
    sites = [{k: v for k, v in asdict(site).items() if k != "cases"} for site in plan.sites]
    return {"name": plan.name, "task": plan.task, "cohorts": plan.cohorts, "sites": sites}


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
    modalities = in_order(set(hospital.modalities) & set(hand.modalities))
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
    for line in plan.lost:
        _log.warning("%s", line)
    site = next(site for site in plan.sites if site.name == name)
    features = study_features(plan, tables, variables_of(tables))
    schema = site_schema(plan, site, features)
    rows = site_part(site.cases, site.modalities, tables, plan.task, features)
    target = datasets / schema.name / f"v{schema.version}"
    write_dataset(target, schema, rows, mock_seed=1 + plan.sites.index(site))
    return target


def place_synthetic_test(consortium: Consortium, target: Path) -> None:
    """Write the synthetic patients that no hospital got, all modalities given, as a dataset folder."""
    tables = generate(seed=consortium.seed)
    plan = deal(consortium, tables)
    features = study_features(plan, tables, variables_of(tables))
    everything = Site(
        name="test", institution="held out", cohort=plan.cohorts[0], modalities=tuple(features), cases=plan.test
    )
    rows = site_part(plan.test, everything.modalities, tables, plan.task, features)
    write_dataset(target, site_schema(plan, everything, features), rows)
