"""A simulated study before its first round: its proposal, its sites' records in memory, and the held-out patients.

The proposal is what ``tessera propose`` would send if these hospitals existed; the records are the rows that ``ingest``
would write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasites.data.dataset import membership
from datasites.data.federations import Federation, Site
from datasites.data.ingest import site_part, variables_of
from datasites.data.tcga.preprocessing import clinical_features, unscaled
from datasites.data.tcga.tables import Tables, class_count, labels
from datasites.strategy.own_step import PLAN_FILE
from datasites.study.proposal import DatasetReference, Party, Proposal
from datasites.study.streams import membership_secret, public_secret
from models.batch import modalities_of, to_tensors
from models.config import ModelConfig, Target, in_order
from models.outcomes import predicted
from models.parameters import to_bytes
from orchestrator.rounds.scoring.outcome_figures import OutcomeMetrics
from orchestrator.studies.evaluation import Metrics, scored
from orchestrator.studies.proposing.brought import Brought
from orchestrator.studies.proposing.constants import ConstantsFile
from orchestrator.studies.proposing.propose import build_proposal, model_config_of
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

_NOBODY = "0" * 64
_MOST_PACKED = 1000  # no ciphertext carries more; larger simulations round as a consortium of a thousand would


@dataclass(frozen=True, kw_only=True)
class SimulatedStudy:
    """Everything a simulation needs: the proposal, its initial model, the sites' records and the held-out ones.

    ``names`` are the model's inputs by modality; ``partly`` those that a cohort's tables have, where it lacks some.
    ``lost`` says what was left out when the tables were read.
    """

    proposal: Proposal
    model: bytes
    sites: tuple[SimulatedSite, ...]
    test: Records
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    partly: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    code: Path | None = None
    lost: tuple[str, ...] = ()


def simulated_study(
    everyone: Patients,
    federation: Federation,
    settings: StudySettings,
    code: Path | None = None,
    constants: ConstantsFile | None = None,
) -> SimulatedStudy:
    """Return the study that ``settings`` describe over the sites of ``federation``.

    Patient counts are exact here; a live hospital releases a noised count once.

    Args:
        everyone: all patients, preprocessed for the settings' task.
        federation: who holds which of them.
        settings: as for a live study, with a public seed.
        code: folder with ``plan.py`` of an own network.
        constants: from public tables, for settings with public centres.

    Raises:
        InvalidInput: no public seed, or settings that make no study.
    """
    if settings.seed is None:
        raise InvalidInput("expected a public seed: a simulation has no secrets, and no privacy")
    offers = [offer(everyone, federation, site) for site in federation.sites]
    brought = Brought(tree={} if code is None else _files(code), constants=constants)
    proposal, model = build_proposal(
        settings,
        offers,
        orchestrator=_party("orchestrator"),
        keyholder=_party("keyholder"),
        code=brought.code if code is not None else {},
        packed_sites=min(len(offers), _MOST_PACKED),
        brought=brought,
        built=_built(code, model_config_of(settings, offers), settings.seed) if code and brought.network else None,
    )
    sites, test = make_sites(everyone, federation, lambda site: simulated_membership(settings.seed or 0, site))
    return SimulatedStudy(
        proposal=proposal,
        model=model,
        sites=tuple(sites),
        test=test,
        names={m: everyone.names[m] for m in proposal.model.features if m in everyone.names},
        partly=everyone.partly,
        code=code,
        lost=federation.lost,
    )


def _files(code: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(code)): path.read_bytes() for path in sorted(code.rglob("*.py"))}
    if PLAN_FILE not in found:
        raise InvalidInput(f"expected {PLAN_FILE} in {code}, with build_model(config, *, seed) and record_loss")
    return found


def _built(code: Path, config: ModelConfig, seed: int) -> bytes:
    from datasites.worker.child import load_plan

    return to_bytes(load_plan(code, config, seed=seed)[0])


def simulated_membership(seed: int, site: str) -> bytes:
    """Return the secret that splits a simulated site's records, as its datasite would derive it from the seed."""
    return bytes.fromhex(membership_secret(public_secret(seed, site), _dataset(site)))


def offer(everyone: Patients, federation: Federation, site: Site) -> Offer:
    """Return what a simulated site shows of its dataset."""
    held = {m for other in federation.sites for m in other.modalities}
    return Offer(
        party=replace(_party(site.name), institution=site.institution),
        cohort=site.cohort,
        modalities=in_order(site.modalities),
        dataset=DatasetReference(
            name=_dataset(site.name), version=1, fingerprint=_NOBODY, schema_hash=_NOBODY, patients=len(site.cases)
        ),
        features={m: n for m, n in everyone.features.items() if m in held},
        cohorts=everyone.cohorts,
        task=everyone.task,
        classes=everyone.classes,
        predicts=everyone.predicts,
        gains=dict(everyone.gains),
        names={m: names for m, names in everyone.names.items() if m in held},
        own_evaluation=True,
    )


def _dataset(site: str) -> str:
    return f"{site}-staging"


def _party(name: str) -> Party:
    return Party(name=name, institution=name, public_key=sha256_hex(f"simulated {name}".encode()))


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
    """Every labelled patient of one task as arrays, preprocessed once; federations take rows out of it.

    ``unscaled`` names the modalities with features that have no public centre and scale. ``names`` are the inputs of
    each modality, in order; ``partly`` those that a cohort's tables have, where it lacks some.
    """

    task: str
    cohorts: tuple[str, ...]
    classes: int
    rows: Mapping[str, int]
    arrays: Mapping[str, NDArray[np.generic]]
    unscaled: tuple[str, ...] = ()
    predicts: Target | None = None
    gains: Mapping[str, float] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    partly: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def features(self) -> dict[str, int]:
        """Number of features of each modality."""
        return {m: self.arrays[m].shape[1] for m in modalities_of(self.arrays)}

    def take(self, cases: Sequence[str], modalities: Sequence[str]) -> Records:
        """Return the records of ``cases`` with only ``modalities``; the others are zero and absent."""
        chosen = [self.rows[case] for case in cases]
        found = {name: values[chosen] for name, values in self.arrays.items()}
        presence = found["presence"].astype(np.float32)
        for column, modality in enumerate(modalities_of(self.arrays)):
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
        "clinical": tuple(clinical_features(variables_of(tables))),
    }
    features = {m: names for m, names in features.items() if names}
    cases = [case for cohort in tables.cohorts.values() for case in labels(cohort.clinical, task)]
    part = site_part(cases, tuple(features), tables, task, features)
    rows = {case: i for i, case in enumerate(part.cases)}
    arrays: dict[str, NDArray[np.generic]] = {
        "cohort": np.array([cohorts.index(c) for c in part.cohorts]),
        "label": np.array(part.labels),
    }
    order = in_order(part.inputs)
    presence = np.zeros((len(rows), len(order)), dtype=np.float32)
    for modality, (held, values) in part.inputs.items():
        filled = np.zeros((len(rows), values.shape[1]), dtype=np.float32)
        places = [rows[case] for case in held]
        filled[places] = values[:]
        presence[places, order.index(modality)] = 1.0
        arrays[modality] = filled
    arrays["presence"] = presence
    return Patients(
        task=task,
        cohorts=tuple(cohorts),
        classes=class_count(task),
        rows=rows,
        arrays=arrays,
        unscaled=("image",) if unscaled(tables.image_features) else (),
        names=features,
        partly=_partly(tables, features),
    )


def _partly(tables: Tables, features: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the columns of each cohort's tables that lack some of the study's, by cohort and modality."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, cohort in tables.cohorts.items():
        for modality, table in cohort.modalities.items():
            own = tuple(column for column in features.get(modality, ()) if column in table.columns)
            if len(own) < len(features.get(modality, ())):
                found.setdefault(name, {})[modality] = own
    return found


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
                modalities=in_order(site.modalities),
                records=everyone.take(site.cases, site.modalities),
                trains=torch.from_numpy(side),
            )
        )
    return sites, everyone.take(federation.test, tuple(everyone.features))


def corrupted(sites: Sequence[SimulatedSite], how: str, classes: int, seed: int) -> list[SimulatedSite]:
    """Return the sites with labels made wrong as ``--corrupt`` says: ``flip:SITE,SITE``, ``permute``, or not at all.

    Raises:
        InvalidInput: another word, or no site of such a name.
    """
    kind, _, given = how.partition(":")
    names = given.split(",") if given else []
    known = {s.name for s in sites}
    if kind not in ("", "flip", "permute") or set(names) - known or bool(names) != (kind == "flip"):
        raise InvalidInput(
            f"expected --corrupt flip:SITE,SITE or permute with sites of the federation, got {how!r}; sites: "
            f"{', '.join(sorted(known))[:300]}"
        )
    if kind == "flip":
        return flip_labels(sites, names, classes)
    return permute_labels(sites, seed) if kind == "permute" else list(sites)


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
        modalities=in_order(m for s in sites for m in s.modalities),
        records={n: torch.cat([s.records[n] for s in sites]) for n in names},
        trains=torch.cat([s.trains for s in sites]),
    )


def predict(model: nn.Module, records: Records, config: ModelConfig) -> np.ndarray:
    """Return what a model predicts of ``records``, float64 (:func:`models.outcomes.predicted`)."""
    with torch.no_grad():
        return np.asarray(predicted(model(records), config).numpy(), dtype=np.float64)


def score(model: nn.Module, records: Records, config: ModelConfig) -> Metrics | OutcomeMetrics:
    """Score a model on records with known labels."""
    found = predict(model, records, config)
    return scored(found, records["label"].numpy(), records["cohort"].numpy(), config)
