"""The patients of a simulated federation in memory: the same rows that ``ingest`` would write, without the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasites.dataset import membership
from datasites.ingest import CLINICAL_VARIABLES, site_part
from datasites.tcga.federations import Federation
from datasites.tcga.labels import class_count, labels
from datasites.tcga.preprocessing import clinical_features
from datasites.tcga.tables import Tables
from models.batch import to_tensors
from models.config import MODALITIES

Records = dict[str, Tensor]
VALIDATION = 0.2


@dataclass(frozen=True, kw_only=True)
class SimulatedSite:
    """One institution: its records, and which of them train (the others validate where a method needs that)."""

    name: str
    cohort: int
    modalities: tuple[str, ...]
    records: Records
    trains: Tensor

    @property
    def patients(self) -> int:
        """Number of records."""
        return len(self.records["label"])


@dataclass(frozen=True, kw_only=True)
class Patients:
    """Every labelled patient of one task as arrays, preprocessed once; federations take rows out of it."""

    task: str
    cohorts: tuple[str, ...]
    classes: int
    rows: Mapping[str, int]
    arrays: Mapping[str, NDArray[np.generic]]

    @property
    def features(self) -> dict[str, int]:
        """Number of features of each modality."""
        return {m: self.arrays[m].shape[1] for m in MODALITIES if m in self.arrays}

    def take(self, cases: Sequence[str], modalities: Sequence[str]) -> Records:
        """Return the records of ``cases`` with only ``modalities``; the others are zero and absent."""
        chosen = [self.rows[case] for case in cases]
        found = {name: values[chosen] for name, values in self.arrays.items()}
        presence = found["presence"].astype(np.float32)
        for column, modality in enumerate(MODALITIES):
            if modality not in modalities:
                presence[:, column] = 0.0
                if modality in found:
                    found[modality] = np.zeros_like(found[modality])
        return to_tensors({**found, "presence": presence})


def patients(tables: Tables, task: str, cohorts: Sequence[str]) -> Patients:
    """Preprocess every labelled patient of ``tables`` for ``task``."""
    features = {
        "mrna": tables.genes,
        "image": tables.image_features,
        "clinical": tuple(clinical_features(CLINICAL_VARIABLES)),
    }
    features = {m: names for m, names in features.items() if names}
    cases = [case for cohort in tables.cohorts.values() for case in labels(cohort.clinical, task)]
    part = site_part(cases, tuple(features), tables, task, features)
    rows = {case: i for i, case in enumerate(part.cases)}
    arrays: dict[str, NDArray[np.generic]] = {
        "cohort": np.array([cohorts.index(c) for c in part.cohorts]),
        "label": np.array(part.labels),
    }
    presence = np.zeros((len(rows), len(MODALITIES)), dtype=np.float32)
    for modality, (held, values) in part.inputs.items():
        filled = np.zeros((len(rows), values.shape[1]), dtype=np.float32)
        places = [rows[case] for case in held]
        filled[places] = values
        presence[places, MODALITIES.index(modality)] = 1.0
        arrays[modality] = filled
    arrays["presence"] = presence
    return Patients(task=task, cohorts=tuple(cohorts), classes=class_count(task), rows=rows, arrays=arrays)


def make_sites(
    everyone: Patients, federation: Federation, secret_of: Callable[[str], bytes] = str.encode
) -> tuple[list[SimulatedSite], Records]:
    """Return the sites of ``federation`` and its test records with everything that was measured of them.

    ``secret_of`` gives the secret that decides by keyed hash which records of a site train.
    """
    sites = []
    for site in federation.sites:
        side = membership(site.cases, secret_of(site.name), validation=VALIDATION)
        sites.append(
            SimulatedSite(
                name=site.name,
                cohort=everyone.cohorts.index(site.cohort),
                modalities=tuple(m for m in MODALITIES if m in site.modalities),
                records=everyone.take(site.cases, site.modalities),
                trains=torch.from_numpy(side),
            )
        )
    return sites, everyone.take(federation.test, MODALITIES)


def flip_labels(sites: Sequence[SimulatedSite], names: Sequence[str], classes: int) -> list[SimulatedSite]:
    """Return the sites with the labels of ``names`` turned around: the first class becomes the last."""
    return [
        replace(s, records={**s.records, "label": classes - 1 - s.records["label"]}) if s.name in names else s
        for s in sites
    ]


def permute_labels(sites: Sequence[SimulatedSite], seed: int) -> list[SimulatedSite]:
    """Return the sites with every site's labels shuffled among its records: the null with nothing to learn."""
    generator = torch.Generator().manual_seed(seed)
    return [
        replace(s, records={**s.records, "label": s.records["label"][torch.randperm(s.patients, generator=generator)]})
        for s in sites
    ]


def pool(sites: Sequence[SimulatedSite]) -> SimulatedSite:
    """Return all sites as one, each record with the modalities its own site holds."""
    names = sites[0].records
    return SimulatedSite(
        name="pooled",
        cohort=0,
        modalities=tuple(m for m in MODALITIES if any(m in s.modalities for s in sites)),
        records={n: torch.cat([s.records[n] for s in sites]) for n in names},
        trains=torch.cat([s.trains for s in sites]),
    )
