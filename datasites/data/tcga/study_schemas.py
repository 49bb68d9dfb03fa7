"""The staging studies over TCGA as study schemas: the same inputs as :mod:`datasites.data.tcga.preprocessing` makes.

``python -m datasites.data.tcga.study_schemas TABLES OUT`` writes those that come with Tessera. Only names of genes and
features are taken from the tables; centres and scales are the public constants of this room.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasites.data.tcga.preprocessing import IMAGE_CLIP, constants_of
from datasites.data.tcga.tables import read_tables
from datasites.data.tcga.variables import VARIABLES, WHERE_MEASURED
from datasites.study.schema.document import Modality, PatientId, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Survival
from datasites.study.schema.variables import Level, Number
from datasites.study.signing import dump
from privacy.errors import InvalidInput

COPY_NUMBER, MUTATIONS = "copy-number", "mutations"
EXTRA: Mapping[str, tuple[str, str]] = {COPY_NUMBER: ("cna", "cna:"), MUTATIONS: ("mut", "mut:")}
"""File of each further modality below a cohort's folder, and how its columns begin in a study's tables."""
_FACTS = ("leak_t", "leak_n", "leak_m", "stage_raw", "stage_idx", "leak_os_event", "leak_os_days")
_STAGE = "stage"
USUAL = tuple(variable for variable in VARIABLES if variable.name not in WHERE_MEASURED)


def staging_schema(
    name: str,
    genes: Sequence[str],
    features: Sequence[str],
    *,
    copy_number: Sequence[str] = (),
    mutations: Sequence[str] = (),
    survival: bool = False,
) -> StudySchema:
    """Return a study schema over TCGA's breast, lung and liver cancers.

    Args:
        name: of the schema.
        genes: whose expression is read.
        features: of slides; all with public constants.
        copy_number: genes whose copy number is read, none leaves the modality out.
        mutations: genes whose mutations are read, none leaves the modality out.
        survival: whether overall survival is the first outcome, before the stages.

    Raises:
        InvalidInput: a slide feature without public constants.
    """
    modalities = [_expression(genes), _slides(features), _clinical()]
    if copy_number:
        modalities.append(_copy_number(copy_number))
    if mutations:
        modalities.append(_mutations(mutations))
    outcomes: list[Outcome] = [*_stages()]
    return StudySchema(
        name=name,
        version=1,
        title="Cancer staging and survival on TCGA" if survival else "Cancer staging on TCGA",
        description="Three cancers of The Cancer Genome Atlas; inputs are scaled by public constants only.",
        cohorts=tuple(Level(name=c, spellings=(f"TCGA-{c}",)) for c in ("BRCA", "LUSC", "LIHC")),
        cohort_column="project",
        patient=PatientId(column="case_id", parts=3),
        modalities=tuple(modalities),
        outcomes=(_survival(), *outcomes) if survival else tuple(outcomes),
        never=_FACTS,
    )


def _stages() -> tuple[Classes, ...]:
    early, late = Level(name="early", spellings=("I", "II")), Level(name="late", spellings=("III", "IV"))
    one, two, three, four = (Level(name=stage) for stage in ("I", "II", "III", "IV"))
    return (
        Classes(name="early-late", kind="binary", levels=(early, late), column=_STAGE, label="stage at diagnosis"),
        Classes(
            name="I-II",
            kind="binary",
            levels=(one, two),
            left_out=("III", "IV"),
            column=_STAGE,
            label="stage at diagnosis",
        ),
        Classes(
            name="ordinal",
            kind="ordinal",
            levels=(one, two, replace(three, spellings=("IV",))),
            column=_STAGE,
            label="stage at diagnosis",
        ),
        Classes(name="I-IV", kind="ordinal", levels=(one, two, three, four), column=_STAGE, label="stage at diagnosis"),
    )


def _survival() -> Survival:
    return Survival(
        name="overall-survival",
        label="overall survival",
        time="leak_os_days",
        event="leak_os_event",
        unit="days",
        edges=(365.0, 730.0, 1095.0, 1825.0, 3650.0),
        happened=Level(name="dead", spellings=("1",)),
        censored=Level(name="alive", spellings=("0",)),
    )


def _expression(genes: Sequence[str]) -> Modality:
    measure = Number(name="z-score", low=-1e6, high=1e6, transform="arcsinh", clip=20.0)
    return Modality(
        name="mrna",
        kind="tabular",
        label="gene expression",
        columns=tuple(genes),
        measure=measure,
        source="z-scores against the diploid samples of the same TCGA cohort, a public table",
    )


def _slides(features: Sequence[str]) -> Modality:
    constants = [constants_of(feature) for feature in features]
    known = [pair for pair in constants if pair is not None]
    if len(known) < len(constants):
        raise InvalidInput(f"{len(constants) - len(known)} slide features have no public constants; leave them out")
    measure = Number(name="feature", low=-1e12, high=1e12, transform="signed-log1p", clip=IMAGE_CLIP)
    return Modality(
        name="image",
        kind="tabular",
        label="slide features",
        columns=tuple(features),
        measure=measure,
        centres=tuple(centre for centre, _ in known),
        scales=tuple(scale for _, scale in known),
        source="round numbers by kind of feature",
    )


def _clinical() -> Modality:
    return Modality(
        name="clinical", kind="tabular", label="clinical facts", variables=USUAL, source="round clinical numbers"
    )


def _copy_number(genes: Sequence[str]) -> Modality:
    measure = Number(name="call", low=-2.0, high=2.0, whole=True)
    return Modality(
        name=COPY_NUMBER,
        kind="tabular",
        label="copy number",
        columns=tuple(EXTRA[COPY_NUMBER][1] + gene for gene in genes),
        measure=measure,
        gain=1.2,
        source="GISTIC calls from -2 to 2",
    )


def _mutations(genes: Sequence[str]) -> Modality:
    measure = Number(name="mutated", low=0.0, high=1.0, whole=True)
    return Modality(
        name=MUTATIONS,
        kind="tabular",
        label="mutations",
        columns=tuple(EXTRA[MUTATIONS][1] + gene for gene in genes),
        measure=measure,
        gain=8.0,  # about fifteen of a thousand genes are mutated: inputs of norm one
        source="1 where a gene is mutated",
    )


def read_calls(folder: Path, modality: str) -> tuple[list[str], list[str], np.ndarray]:
    """Return cases, genes and calls int8 [cases, genes] of one cohort's ``cna.npz`` or ``mut.npz``.

    Raises:
        InvalidInput: not such a file.
    """
    path = folder / f"{EXTRA[modality][0]}.npz"
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as file:
            cases, genes, values = file["case_id"], file["genes"], file["values"]
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"expected {folder.name}/{path.name} with case_id, genes and values") from error
    if values.dtype != np.int8 or values.shape != (len(cases), len(genes)):
        raise InvalidInput(f"{folder.name}/{path.name}: expected values int8 [cases, genes]")
    return [str(c) for c in cases], [str(g) for g in genes], values


def _main(source: Path, out: Path) -> None:
    tables = read_tables(source)
    for line in tables.notes:
        sys.stderr.write(f"{line}\n")
    folder = source / next(iter(tables.cohorts))
    cna, mut = (tuple(read_calls(folder, modality)[1]) for modality in EXTRA)
    genes, features = tables.genes, tables.image_features
    for document in (
        staging_schema("tcga-staging", genes, features),
        staging_schema("tcga-staging-5", genes, features, copy_number=cna, mutations=mut),
        staging_schema("tcga-survival", genes, features, survival=True),
    ):
        text = json.dumps(dump(document), ensure_ascii=False, separators=(",", ":"))
        (out / f"{document.name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
