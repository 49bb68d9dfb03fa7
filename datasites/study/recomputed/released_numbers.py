"""Which named numbers leave with an update of a round: loss sums, score histograms, a proximity, and nothing else.

The names follow from the approved proposal alone. The site checks what its worker wrote against them, and the
orchestrator what a site sent. A number that no mechanism covers has no name here and does not leave. A round that lacks
a number it should carry is refused as well, since a gap would say that training failed.

    loss.SIDE.TERM                  SIDE training or validation, TERM as in terms_of       mechanism.losses
    score.OUTPUT.GROUP.BIN          32 bins of a score by group of outcomes (group_of)     mechanism.evaluation
    proximity.cosine                from the daemon: post-processing of its noised update  training/proximity.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from datasites.study.proposal import Proposal
from models.config import ModelConfig
from privacy.canonical import plain_json
from privacy.dp.randomness import Floats, Randomness
from privacy.dp.releases import BINS, loss_sums, score_histograms
from privacy.errors import InvalidInput

_NUMBER_BYTES = 32
"""How long a number of double precision is as JSON, with what stands around it."""

VALIDATION = 0.2
"""Share of the records that validate in studies that release losses or score histograms."""


def validates(proposal: Proposal, number: int) -> bool:
    """Return whether round ``number`` keeps validation records apart; otherwise every record trains."""
    losses = proposal.mechanism.losses
    measures = losses is not None and (losses.last_round is None or number <= losses.last_round)
    return measures or proposal.mechanism.evaluation is not None


def training_share(proposal: Proposal, number: int) -> float:
    """Return which part of a site's records trains in round ``number``, in expectation."""
    return 1.0 - VALIDATION if validates(proposal, number) else 1.0


def step_records(proposal: Proposal, number: int, patients: float) -> float:
    """Return by how many records a step of round ``number`` is divided: those that are expected to train, at least 1.

    A counting study is not divided: its step is the sum itself.

    Args:
        proposal: the study's.
        number: the round.
        patients: released count of the sites that take the step.
    """
    if proposal.model.counting is not None:
        return 1.0
    return max(1.0, training_share(proposal, number) * patients)


def terms_of(modalities: tuple[str, ...], most: int) -> tuple[str, ...]:
    """Return the loss terms a site reports: its combination first, then each modality alone, at most ``most``.

    ``terms_of(("mrna", "image"), 3)`` is ``("mrna+image", "mrna", "image")``.
    """
    alone = modalities if len(modalities) > 1 else ()
    return ("+".join(modalities), *alone)[:most]


def expected_names(proposal: Proposal, site: str, number: int) -> frozenset[str]:
    """Return the names of exactly the numbers that ``site`` releases with its update of round ``number``.

    Raises:
        InvalidInput: the study has no such round, or its evaluation is charged for fewer outputs than the model has.
    """
    mechanism, names = proposal.mechanism, set()
    if mechanism.losses is not None and mechanism.releases_losses(number):
        terms = terms_of(proposal.participant(site).modalities, mechanism.losses.terms)
        names |= {f"loss.{side}.{term}" for side in ("training", "validation") for term in terms}
    if mechanism.evaluation is not None and mechanism.releases_evaluation(number):
        outputs, cells = proposal.model.scores, proposal.model.cells * patterns(proposal, site)
        if outputs > mechanism.evaluation.outputs:
            raise InvalidInput(
                f"expected an evaluation that is charged for {outputs} outputs, got {mechanism.evaluation.outputs}"
            )
        names |= {score_name(o, c, b) for o in range(outputs) for c in range(cells) for b in range(BINS)}
    return frozenset(names)


def numbers_bytes(proposal: Proposal, site: str) -> int:
    """Return how many bytes of JSON the released numbers of an update of ``site`` have at most, in any round."""
    mechanism = proposal.mechanism
    lengths = [len(plain_json(PROXIMITY)) + _NUMBER_BYTES]
    if mechanism.losses is not None:
        terms = terms_of(proposal.participant(site).modalities, mechanism.losses.terms)
        lengths += [2 * (len(plain_json(f"loss.validation.{term}")) + _NUMBER_BYTES) for term in terms]
    if mechanism.evaluation is not None:
        outputs, cells = proposal.model.scores, proposal.model.cells * patterns(proposal, site)
        lengths.append(outputs * cells * BINS * (len(plain_json(score_name(outputs, cells, BINS))) + _NUMBER_BYTES))
    return sum(lengths)


def checked_numbers(proposal: Proposal, site: str, number: int, releases: Mapping[str, object]) -> dict[str, float]:
    """Return ``releases`` when they are exactly what a worker releases in this round, each a finite number.

    Raises:
        InvalidInput: a name without a mechanism, a missing name, or something that is not a finite number.
    """
    return _checked(expected_names(proposal, site, number), number, releases)


def checked_header_numbers(
    proposal: Proposal, site: str, number: int, releases: Mapping[str, object]
) -> dict[str, float]:
    """Return the numbers of an update's header when they are exactly the worker's and the daemon's own.

    Raises:
        InvalidInput: as :func:`checked_numbers`, or a proximity that is no cosine.
    """
    own = {PROXIMITY} if releases_proximity(proposal, number) else set[str]()
    found = _checked(expected_names(proposal, site, number) | own, number, releases)
    if abs(found.get(PROXIMITY, 0.0)) > 1:
        raise InvalidInput("expected a proximity between -1 and 1")
    return found


def _checked(expected: frozenset[str], number: int, releases: Mapping[str, object]) -> dict[str, float]:
    if set(releases) != expected:
        extra, missing = len(set(releases) - expected), len(expected - set(releases))
        raise InvalidInput(
            f"expected the {len(expected)} released numbers that the mechanism covers in round {number}, got "
            f"{len(releases)} ({extra} that no mechanism covers, {missing} missing)"
        )
    return {name: _finite(value) for name, value in releases.items()}


def empty_numbers(proposal: Proposal, site: str, number: int, randomness: Randomness) -> dict[str, float]:
    """Return what a site releases whose worker failed: the usual names, noise around zero."""
    mechanism, found = proposal.mechanism, dict[str, float]()
    if mechanism.losses is not None and mechanism.releases_losses(number):
        terms = terms_of(proposal.participant(site).modalities, mechanism.losses.terms)
        nothing = np.zeros((0, len(terms)))
        found |= loss_sums(nothing, nothing, terms=terms, release=mechanism.losses, randomness=randomness)
    if mechanism.evaluation is not None and mechanism.releases_evaluation(number):
        found |= named_histograms(
            score_histograms(
                np.zeros((0, proposal.model.scores)),
                np.zeros(0, np.int64),
                classes=proposal.model.cells * patterns(proposal, site),
                release=mechanism.evaluation,
                randomness=randomness,
            )
        )
    return found


def patterns(proposal: Proposal, site: str) -> int:
    """Return in how many groups a site's records are scored: 1, or one for every combination of its modalities.

    Combinations are numbered as binary numbers with the site's first modality as the highest digit, from the one with
    only the last modality on. A record has one of them, so a release moves with one patient as far as without groups.
    """
    return (1 << len(proposal.participant(site).modalities)) - 1 if proposal.evaluated_by_pattern else 1


def pattern_name(modalities: tuple[str, ...], place: int) -> str:
    """Return which of ``modalities`` are in combination ``place``, from 0 on: ``mrna+image``."""
    digits = f"{place + 1:0{len(modalities)}b}"
    return "+".join(m for m, digit in zip(modalities, digits, strict=True) if digit == "1")


def score_name(output: int, group: int, place: int) -> str:
    """Return the name of one bin: score ``output`` among the records of group ``group``.

    A group is a class or group of outcomes; where patterns count apart, those of the first pattern come first.
    """
    return f"score.{output}.{group}.{place}"


def named_histograms(histograms: Floats) -> dict[str, float]:
    """Return histograms [scores, cells, 32] as named numbers."""
    return {score_name(*place): float(value) for place, value in np.ndenumerate(histograms)}


def histograms_of(releases: Mapping[str, float], model: ModelConfig, patterns: int = 1) -> Floats:
    """Read :func:`named_histograms` back: float64 [model.scores, patterns * model.cells, 32].

    Raises:
        InvalidInput: a bin is missing.
    """
    found = np.zeros((model.scores, patterns * model.cells, BINS))
    try:
        for place in np.ndindex(found.shape):
            found[place] = releases[score_name(*place)]
    except KeyError as error:
        raise InvalidInput(f"expected score histograms of {model.cells} groups, a bin is missing") from error
    return found


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInput("expected finite numbers as releases")
    return float(value)


PROXIMITY = "proximity.cosine"
"""The angle between a site's update of round r and the others'; it travels with the update of round r + 1."""


def compares(proposal: Proposal, number: int) -> bool:
    """Return whether the updates of round ``number`` will be compared."""
    return number in proposal.strategy.weights.compared_rounds


def releases_proximity(proposal: Proposal, number: int) -> bool:
    """Return whether a proximity travels with the updates of round ``number``."""
    return compares(proposal, number - 1)
