"""Noised score histograms of some records together: how many records there are, the area and mean costs with errors.

A :class:`Part` is what one site released of one pattern of modalities. A :class:`Pool` adds parts up: all of a cohort,
say. Everything is post-processing of released numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasites.data.publishing import COUNT_NOISE_MULTIPLIER
from datasites.study.proposal import Proposal
from datasites.study.recomputed.released_numbers import VALIDATION, histograms_of, pattern_name, patterns
from orchestrator.rounds.scoring.dp_outcomes import Counted
from orchestrator.rounds.scoring.score_model import on_simplex
from privacy.dp.randomness import covering_deviation
from privacy.dp.releases import BINS

_DRAWS = 400
_SMALLEST_SHARE = 0.1  # of the rarer side, so that noise never divides by nothing
CENTRES = (np.arange(BINS) + 0.5) / BINS

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one site released of one pattern of modalities: noised counts float64 [outputs, classes, 32].

    ``deviation`` is the noise of one bin; ``pattern`` is empty where patterns do not count apart, and ``share`` is how
    large a part of the site's records is expected here.
    """

    site: str
    pattern: str
    share: float
    histograms: Floats
    deviation: float


def parts_of(proposal: Proposal, site: str, released: Mapping[str, float]) -> list[Part]:
    """Return a site's released histograms by pattern of modalities; one part where patterns do not count apart."""
    release, model, several = proposal.mechanism.evaluation, proposal.model, patterns(proposal, site)
    if release is None:
        return []
    counts = histograms_of(released, model, several)
    deviation = covering_deviation(release.noise_multiplier, release.sensitivity, counts.size)
    modalities = proposal.participant(site).modalities
    return [
        Part(
            site=site,
            pattern=pattern_name(modalities, place) if proposal.evaluated_by_pattern else "",
            share=1 / several,
            histograms=counts[:, place * model.cells : (place + 1) * model.cells],
            deviation=deviation,
        )
        for place in range(several)
    ]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Histograms float64 [outputs, classes, 32] of some sites together.

    ``listed`` is how many validation records the released counts lead to expect, ``listed_error`` how far that may be
    off; ``deviation`` is the noise of one bin; ``ordered`` says whether classes have an order.
    """

    histograms: Floats
    listed: float
    listed_error: float
    deviation: float
    ordered: bool = True

    @classmethod
    def of(cls, proposal: Proposal, parts: Sequence[Part]) -> Pool:
        """Return the sum of ``parts``, at least one."""
        patients = {part.site: proposal.participant(part.site).dataset.patients for part in parts}
        here = sum(part.share * patients[part.site] for part in parts)
        dealt = VALIDATION * (1 - VALIDATION) * here + len(patients) * (VALIDATION * COUNT_NOISE_MULTIPLIER) ** 2
        some = any(part.share < 1 for part in parts) and here < sum(patients.values())
        unknown = VALIDATION * sum(patients.values()) if some else 0.0  # nobody released how many have this pattern
        return cls(
            histograms=np.sum([part.histograms for part in parts], axis=0),
            listed=max(1.0, VALIDATION * here),
            listed_error=float(np.sqrt(dealt + unknown**2)),
            deviation=float(np.sqrt(np.sum([part.deviation**2 for part in parts]))),
            ordered=proposal.model.predicts is None,
        )

    def counted(self) -> Counted:
        """Return the same counts for figures of numbers and survival."""
        return Counted(histograms=self.histograms, records=self.records, deviation=self.deviation)

    @property
    def records(self) -> float:
        """The number of records scored, by the released counts and the noised bins together."""
        return float(self._records(np.array([self.histograms[0].sum()]), np.array([self.listed]))[0])

    def auroc(self) -> tuple[float, float]:
        """Return the area, averaged over the thresholds, and its standard error."""
        results = [self._area(early, late, deviation) for early, late, deviation in self.thresholds()]
        return float(np.mean([area for area, _ in results])), float(np.mean([error for _, error in results]))

    def mean_cost(self, early: Floats, late: Floats) -> tuple[float, float]:
        """Return the mean over records of a cost by bin and side, averaged over thresholds, and its standard error."""
        costs, records, results = np.concatenate([early, late]), self.records, []
        for below, above, deviation in self.thresholds():
            mean = float(costs @ np.concatenate([below, above])) / records
            cells = on_simplex(np.concatenate([below, above]), records) / records
            sampling = float(cells @ costs**2 - (cells @ costs) ** 2) / records
            noise = float(deviation**2 * (costs @ costs)) / records**2
            results.append((mean, float(np.sqrt(max(0.0, sampling) + noise))))
        return float(np.mean([mean for mean, _ in results])), float(np.mean([error for _, error in results]))

    def thresholds(self) -> list[tuple[Floats, Floats, float]]:
        """Return, for every threshold, the histograms of the earlier and the later side and one bin's deviation.

        Of classes without an order: for every class, those of all others and of itself.
        """
        found = []
        for k, by_class in enumerate(self.histograms):
            if not self.ordered:
                others = by_class.sum(axis=0) - by_class[k]
                found.append((others, by_class[k], self.deviation * float(np.sqrt(max(1, len(by_class) - 1)))))
                continue
            sides = by_class[: k + 1].sum(axis=0), by_class[k + 1 :].sum(axis=0)
            found.append((*sides, self.deviation * float(np.sqrt(max(k + 1, len(by_class) - k - 1)))))
        return found

    def _area(self, early: Floats, late: Floats, deviation: float) -> tuple[float, float]:
        """Return the area and its spread over made-up records and noise like these (parametric bootstrap)."""
        stream = np.random.default_rng(0)  # public: the estimate of a round is always the same
        cells = on_simplex(np.concatenate([early, late]), self.records)
        drawn = stream.poisson(cells, size=(_DRAWS, cells.size)) + stream.normal(0.0, deviation, (_DRAWS, cells.size))
        listed = self.records + stream.normal(0.0, self.listed_error, _DRAWS)
        spread = np.std(_areas(drawn[:, :BINS], drawn[:, BINS:], self._records(drawn.sum(axis=1), listed)))
        records = self._records(np.array([early.sum() + late.sum()]), np.array([self.listed]))
        return float(_areas(early[None], late[None], records)[0]), float(spread)

    def _records(self, counted: Floats, listed: Floats) -> Floats:
        """Weigh the noised total of all bins and the listed number by their precision."""
        noise = self.deviation**2 * self.histograms[0].size
        return np.asarray(
            np.maximum(1.0, (self.listed_error**2 * counted + noise * listed) / (self.listed_error**2 + noise))
        )


def _areas(early: Floats, late: Floats, records: Floats) -> Floats:
    """Return the area under the ROC curve of histograms [n, 32] of both sides, cut to [0, 1], float64 [n].

    The number of pairs won is unbiased, since the noise of the two sides is independent; the sizes of the sides come
    from their noised totals and the number of records [n] together.
    """
    below = np.cumsum(early, axis=1) - early / 2
    won = (late * below).sum(axis=1)
    least = _SMALLEST_SHARE * records
    size = np.clip((late.sum(axis=1) - early.sum(axis=1) + records) / 2, least, records - least)
    return np.asarray(np.clip(won / (size * (records - size)), 0.0, 1.0), np.float64)
