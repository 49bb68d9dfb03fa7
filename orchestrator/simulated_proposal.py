"""The proposal of a simulated study: what ``tessera propose`` would send if these hospitals existed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from datasites.contract import DatasetReference, Party, Proposal, Task
from datasites.round_randomness import membership_secret, public_secret
from datasites.tcga.federations import Federation, Site
from models.config import MODALITIES
from orchestrator.propose import Offer, StudySettings, build_proposal
from orchestrator.simulated_sites import Patients, Records, SimulatedSite, make_sites
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

_NOBODY = "0" * 64
_MOST_PACKED = 1000  # no ciphertext carries more; larger simulations round as a consortium of a thousand would


@dataclass(frozen=True, kw_only=True)
class SimulatedStudy:
    """Everything a simulation needs: the proposal, its initial model, the sites' records and the held-out ones."""

    proposal: Proposal
    model: bytes
    sites: tuple[SimulatedSite, ...]
    test: Records


def simulated_study(everyone: Patients, federation: Federation, settings: StudySettings) -> SimulatedStudy:
    """Return the study that ``settings`` describe over the sites of ``federation``.

    Patient counts are exact here; a live hospital releases a noised count once.

    Args:
        everyone: all patients, preprocessed for the settings' task.
        federation: who holds which of them.
        settings: as for a live study, with a public seed.

    Raises:
        InvalidInput: no public seed, or settings that make no study.
    """
    if settings.seed is None:
        raise InvalidInput("expected a public seed: a simulation has no secrets, and no privacy")
    offers = [offer(everyone, federation, site) for site in federation.sites]
    proposal, model = build_proposal(
        settings,
        offers,
        orchestrator=_party("orchestrator"),
        keyholder=_party("keyholder"),
        code={},
        packed_sites=min(len(offers), _MOST_PACKED),
    )
    sites, test = make_sites(everyone, federation, lambda site: membership(settings.seed or 0, site))
    return SimulatedStudy(proposal=proposal, model=model, sites=tuple(sites), test=test)


def membership(seed: int, site: str) -> bytes:
    """Return the secret that splits a simulated site's records, as its datasite would derive it from the seed."""
    return bytes.fromhex(membership_secret(public_secret(seed, site), _dataset(site)))


def offer(everyone: Patients, federation: Federation, site: Site) -> Offer:
    """Return what a simulated site shows of its dataset."""
    held = {m for other in federation.sites for m in other.modalities}
    return Offer(
        party=replace(_party(site.name), institution=site.institution),
        cohort=site.cohort,
        modalities=tuple(m for m in MODALITIES if m in site.modalities),
        dataset=DatasetReference(
            name=_dataset(site.name), version=1, fingerprint=_NOBODY, schema_hash=_NOBODY, patients=len(site.cases)
        ),
        features={m: n for m, n in everyone.features.items() if m in held},
        cohorts=everyone.cohorts,
        task=_task(everyone),
    )


def _dataset(site: str) -> str:
    return f"{site}-staging"


def _party(name: str) -> Party:
    return Party(name=name, institution=name, public_key=sha256_hex(f"simulated {name}".encode()))


def _task(everyone: Patients) -> Task:
    return everyone.task  # type: ignore[return-value]  # checked when the labels were read
