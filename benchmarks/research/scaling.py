"""Per-feature standardisation of modalities without public constants, where there is no privacy to charge.

Every site adds up its training records, their features and the squares of these; the three sums are exchanged exactly,
as everything is without privacy. With privacy the linear model releases noised moments in its first rounds instead
(:mod:`datasites.study.recomputed.centring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.batch import has, modalities_of
from orchestrator.simulation.sites import Records, SimulatedSite

_CLIP = 5.0
_SMALLEST = 1e-9


def standardised(
    sites: Sequence[SimulatedSite], test: Records, modalities: Sequence[str]
) -> tuple[list[SimulatedSite], Records]:
    """Return sites and test records with every feature of ``modalities`` at mean 0 and deviation 1 over all sites.

    Values are clipped to -5..5 as those with public constants are; a feature that never varies becomes 0.
    """
    scaled = list(sites)
    for modality in modalities:
        if modality not in test:
            continue
        measured = _measured(sites, modality, 1 + max(s.cohort for s in sites))
        gain = (measured.shape[1] / measured.sum(dim=1, keepdim=True).clamp(min=1.0)).sqrt()  # [cohorts, 1]
        sums = torch.stack([_sums(s.records, modality, measured, gain) for s in sites]).sum(dim=0)  # [3, features]
        count = sums[0].clamp(min=1.0)
        mean = sums[1] / count
        spread = (sums[2] / count - mean**2).clamp(min=0.0).sqrt()
        moments = mean, spread, measured, gain
        scaled = [replace(s, records=_applied(s.records, modality, *moments)) for s in scaled]
        test = _applied(test, modality, *moments)
    return scaled, test


def halfway(sites: Sequence[SimulatedSite], test: Records) -> tuple[list[SimulatedSite], Records]:
    """Return sites and test records with every feature centred and divided by the root of its deviation over all sites.

    That is halfway between public constants and standardised features. Each modality keeps its size: the mean square of
    its features' deviations.
    """
    scaled = list(sites)
    for modality in [m for m in modalities_of(test) if m in test]:
        measured = _measured(sites, modality, 1 + max(s.cohort for s in sites))
        gain = torch.ones(len(measured), 1, dtype=torch.float64)
        sums = torch.stack([_sums(s.records, modality, measured, gain) for s in sites]).sum(dim=0)
        count = sums[0].clamp(min=1.0)
        mean = sums[1] / count
        spread = (sums[2] / count - mean**2).clamp(min=_SMALLEST).sqrt()
        divisor = spread.sqrt() * (spread.mean() / (spread**2).mean()).sqrt()
        scaled = [replace(s, records=_moved(s.records, modality, mean, divisor, measured)) for s in scaled]
        test = _moved(test, modality, mean, divisor, measured)
    return scaled, test


def _moved(records: Records, modality: str, mean: Tensor, divisor: Tensor, measured: Tensor) -> Records:
    kept = has(records, modality) * measured[records["cohort"]]
    return {**records, modality: ((records[modality].to(torch.float64) - mean) / divisor * kept).to(torch.float32)}


def _measured(sites: Sequence[SimulatedSite], modality: str, cohorts: int) -> Tensor:
    """Return which features each cohort measures, float64 [cohorts, features]: the others are zero throughout."""
    found = torch.zeros(cohorts, sites[0].records[modality].shape[1], dtype=torch.float64)
    for site in sites:
        found[site.cohort] = torch.maximum(found[site.cohort], (site.records[modality] != 0).any(dim=0).to(found.dtype))
    return found


def _sums(records: Records, modality: str, measured: Tensor, gain: Tensor) -> Tensor:
    """Return counts, sums and sums of squares of every feature, float64 [3, features]."""
    cohort, values = records["cohort"], records[modality].to(torch.float64)
    values = values / gain[cohort]  # as measured: datasites.data.ingest scales up what has a part of the features
    counted = has(records, modality) * measured[cohort]
    return torch.stack([counted.sum(dim=0), (values * counted).sum(dim=0), (values**2 * counted).sum(dim=0)])


def _applied(records: Records, modality: str, mean: Tensor, spread: Tensor, measured: Tensor, gain: Tensor) -> Records:
    cohort, values = records["cohort"], records[modality].to(torch.float64)
    moved = (values / gain[cohort] - mean) / spread.clamp(min=_SMALLEST) * (spread > _SMALLEST)
    present = has(records, modality)
    kept = moved.clamp(-_CLIP, _CLIP) * gain[cohort] * present * measured[cohort]
    return {**records, modality: kept.to(torch.float32)}
