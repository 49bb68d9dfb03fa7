"""Epsilons beside the one that is charged, each with whom it is against.

The charged epsilon holds against everybody. Most people see less than it assumes:

* Under local noise every hospital's noise is in every sum. Whoever reads sums only faces all of it but what colluding
  hospitals know of their own: with nine equal hospitals at epsilon 8 and one that colludes, epsilon 2.3.
* Under shared noise the charge counts dishonest hospitals. Where nobody colludes, their shares are in the sum too.
* A patient of two hospitals is in both, and loses more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from datasites.language import tr, tr_plural
from datasites.study.proposal import Proposal
from datasites.study.recomputed.planning import weights_by

_LEAST_STEPS = 3.0
_OF_SUMS = "sums of "


@dataclass(frozen=True, kw_only=True)
class SecondFigure:
    """One epsilon at ``delta``: what it is, and against whom or for whom it holds."""

    kind: str
    epsilon: float
    delta: float
    label: str
    against: str

    @property
    def of_sums(self) -> bool:
        """Whether it is about readers of sums; pages state the other kinds among the figures of the study itself."""
        return self.kind.startswith(_OF_SUMS)


def second_figures(
    proposal: Proposal, site: str, delta: float, *, rounds: int | None = None
) -> tuple[SecondFigure, ...]:
    """Return the second figures of a study for one hospital; none where its noise is public.

    Args:
        proposal: the study's.
        site: the hospital.
        delta: in (0, 1).
        rounds: 0 to the study's; None means all.
    """
    mechanism = proposal.mechanism
    if proposal.seed is not None or not proposal.charged.private:
        return ()
    from privacy.dp.two_hospitals import epsilon_at_two_hospitals  # seconds of imports that a start need not wait for

    found = []
    hospitals = len(proposal.participants)
    gains = noise_in_sums(proposal, site)
    if not proposal.noise_mode.covers_single_updates:
        found.append(
            SecondFigure(
                kind="nobody colludes",
                epsilon=mechanism.central().epsilon(delta, rounds=rounds),
                delta=delta,
                label=tr("If no hospital colludes"),
                against=tr("everybody who works with no hospital and no keyholder"),
            )
        )
    elif gains is not None:
        for arrived, gain in {hospitals: gains[0], proposal.min_sites: gains[1]}.items():  # one, where all are needed
            quieter = replace(mechanism, noise_multiplier=mechanism.noise_multiplier * gain)
            found.append(
                SecondFigure(
                    kind=f"{_OF_SUMS}{arrived}",
                    epsilon=quieter.epsilon(delta, rounds=rounds),
                    delta=delta,
                    label=tr(
                        "Against readers of sums, {arrived} of {count} hospitals in each",
                        arrived=arrived,
                        count=hospitals,
                    ),
                    against=tr(
                        "everybody except orchestrator and keyholder (and helper) together, also against {hospitals} "
                        "working with one of them; as long as no value of an update passes the public bound",
                        hospitals=_hospitals(proposal.colluders),
                    ),
                )
            )
    found.append(
        SecondFigure(
            kind="two hospitals",
            epsilon=epsilon_at_two_hospitals(mechanism, delta, rounds=rounds),
            delta=delta,
            label=tr("For a patient known to two of the hospitals"),
            against=tr("everybody, as the charge"),
        )
    )
    return tuple(found)


def _hospitals(count: int) -> str:
    return tr_plural("{count} other hospital", "{count} other hospitals", count)


def noise_in_sums(proposal: Proposal, site: str) -> tuple[float, float] | None:
    """Return how many times a site's own noise a sum carries: with all hospitals in it, and with the fewest allowed.

    The noise of site j in a sum has a standard deviation in proportion to ``w_j / n_j`` (weight over released count).
    The noise of ``colluders`` other sites, the loudest ones, is not counted, nor noise of fewer than three rounding
    steps. Only the least of the site's blocks counts, since a record may put its whole norm there.

    None where sums prove nothing: several steps a round, or a step that is not linear, feed a site's own noise back
    into its update; weights that follow single updates; own noise of fewer than three rounding steps.
    """
    training, mechanism = proposal.training, proposal.mechanism
    linear = mechanism.steps_per_round == 1 and training.optimizer == "sgd"
    single = proposal.noise_mode.covers_single_updates
    if not single or not linear or proposal.strategy.weights.compared_rounds:
        return None
    counts = {p.name: float(max(1, p.dataset.patients)) for p in proposal.participants}
    own = training.learning_rate * mechanism.share_deviation / mechanism.sampling_rate
    step = training.update_bound / proposal.encryption.levels
    found: list[tuple[float, float]] = []
    for weights in weights_by(proposal.strategy.weights, proposal, {}).values():
        noise = {name: own * weight / counts[name] for name, weight in weights.items()}
        if site not in noise:
            continue
        if noise[site] < _LEAST_STEPS * step:
            return None
        others = sorted(v if v >= _LEAST_STEPS * step else 0.0 for n, v in noise.items() if n != site)
        honest = others[: len(others) - proposal.colluders]
        found.append(
            (_gain(noise[site], honest), _gain(noise[site], honest[: proposal.min_sites - 1 - proposal.colluders]))
        )
    if not found:
        return None
    return min(all_in for all_in, _ in found), min(few for _, few in found)


def _gain(own: float, others: Sequence[float]) -> float:
    return math.sqrt(1 + sum((other / own) ** 2 for other in others))
