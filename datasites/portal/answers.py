"""What a request page answers before anybody signs: every epsilon by its name, who learns what, and what is gained.

One epsilon never stands for another. Each line of :func:`epsilons` has its delta, its adjacency, its accountant and
against whom it holds, so that figures that differ say why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from datasites.data.glance import Glance
from datasites.report import words
from datasites.report.facts import Epsilon, Exposure
from datasites.review.budgets import CostPreview
from datasites.strategy.registry import noise_named
from datasites.study.data_use import Comparison, compare
from datasites.study.data_use import words as in_words
from datasites.study.proposal import Proposal
from datasites.study.text import epsilon_text
from privacy.dp.mechanism import Mechanism
from privacy.dp.two_hospitals import epsilon_at_two_hospitals

_DAYS_A_MONTH = 30.44
_MEASURED: Mapping[tuple[str, str], Mapping[float, float]] = {
    ("shared", "early-late"): {16: 0.665, 8: 0.659, 4: 0.654, 2: 0.634, 1: 0.603},
    ("shared", "I-II"): {16: 0.636, 8: 0.631, 4: 0.614, 2: 0.592, 1: 0.541},
    ("local", "early-late"): {16: 0.656, 8: 0.644, 4: 0.620, 2: 0.583, 1: 0.539},
    ("local", "I-II"): {16: 0.625, 8: 0.607, 4: 0.575, 2: 0.536, 1: 0.518},
}
"""Mean AUROC by epsilon (delta 1e-4) of nine simulated hospitals on public tables: docs/results.md."""
_PLAIN = {"early-late": 0.668, "I-II": 0.634}
_ALONE = {"early-late": 0.625, "I-II": 0.584}


@dataclass(frozen=True, kw_only=True)
class Named:
    """One epsilon with the statement that it belongs to."""

    name: str
    epsilon: Epsilon
    use: str

    @property
    def text(self) -> str:
        """Return the value as people read it."""
        return epsilon_text(self.epsilon.value)


def answers(proposal: Proposal, cost: CostPreview | None, glance: Glance | None) -> dict[str, Any]:
    """Return what the template of a request prints beside the request itself."""
    return {
        "epsilons": epsilons(proposal, cost) if cost else (),
        "learns": who_learns(proposal, cost) if cost else (),
        "left": left_over(cost) if cost else "",
        "benefit": benefit(proposal),
        "glance": glance,
        "data_use": data_use(proposal, glance),
        "in_words": in_words,
    }


def epsilons(proposal: Proposal, cost: CostPreview) -> tuple[Named, ...]:
    """Return every privacy figure of a request, each named, at the owner's delta."""
    mechanism, delta = proposal.mechanism, cost.delta
    who = words.nobody() if proposal.seed is not None else words.against(mechanism)
    before = "spent on these patients so far" if cost.reserved else "spent or reserved on these patients before"
    after = "when everything approved has run" if cost.reserved else "after this study, with all that is reserved"
    found = [
        Named(
            name="This study alone, at its worst",
            epsilon=_figure(_study(mechanism, delta), delta, words.pld(), who),
            use="what the consent of this one study is about",
        ),
        Named(
            name="This study, for a patient known to two of its hospitals",
            epsilon=_figure(_twice(mechanism, delta), delta, words.pld(), who, words.adjacency_two()),
            use="what such a patient may lose, who is in both datasets",
        ),
    ]
    if not noise_named(mechanism.noise).covers_single_updates and mechanism.private:
        found.append(
            Named(
                name="This study, if no hospital works with others against one",
                epsilon=_figure(_study(mechanism.central(), delta), delta, words.pld(), "everybody who only sees sums"),
                use="for comparison with published figures; the ledger charges the first line",
            )
        )
    found += [
        Named(
            name=f"Ledger: {before}",
            epsilon=_figure(cost.before, delta, cost.accountant, who),
            use="what every study up to now costs together",
        ),
        Named(
            name=f"Ledger: {after}",
            epsilon=_figure(cost.after, delta, cost.accountant, who),
            use="what is compared with the cap",
        ),
        Named(
            name="The cap of these patients",
            epsilon=_figure(cost.cap, delta, cost.accountant, who),
            use="the owner's limit for all studies together",
        ),
    ]
    return tuple(found)


def who_learns(proposal: Proposal, cost: CostPreview) -> tuple[Exposure, ...]:
    """Return who, alone and together, learns what; the table of the privacy report, before the signature."""
    who = words.nobody() if proposal.seed is not None else words.against(proposal.mechanism)
    charged = _figure(_study(proposal.mechanism, cost.delta), cost.delta, words.pld(), who)
    return words.exposures(proposal, charged)


def left_over(cost: CostPreview) -> str:
    """Return what this study leaves for later ones, in one sentence."""
    if not math.isfinite(cost.cap):
        return "The owner has set no cap: nothing here limits later studies."
    if not cost.fits:
        return "It does not fit under the cap, so nothing can be left."
    share = 0.0 if cost.cap == 0 else max(0.0, 1 - cost.after / cost.cap)
    return (
        f"Of the cap of {epsilon_text(cost.cap)}, {epsilon_text(cost.after)} is then spent or reserved: "
        f"about {share:.0%} of epsilon is left for later studies on these patients. Epsilons do not add up; the budget "
        "page says what still fits. What this study reserves and does not use comes back when it ends."
    )


def benefit(proposal: Proposal) -> tuple[str, ...]:
    """Return what can be expected of the model at this epsilon, with the caveat; empty where nothing was measured."""
    known = _MEASURED.get((proposal.noise, proposal.task))
    if known is None or not proposal.mechanism.private:
        return ()
    study = proposal.mechanism.epsilon()
    nearest = min(known, key=lambda epsilon: abs(math.log(epsilon / max(study, 1e-9))))
    return (
        f"The simulator trained nine hospitals' public tables on this task with {proposal.noise} noise at epsilon "
        f"{nearest:g} (delta 0.0001; this study: {epsilon_text(study)} at its own delta). The mean AUROC was "
        f"{known[nearest]:.3f}. Without privacy it was {_PLAIN[proposal.task]:.3f}. One hospital alone without privacy "
        f"reached {_ALONE[proposal.task]:.3f}. Guessing gives 0.5.",
        "These are other patients and other hospitals, and it is a simulation. Nobody knows what comes out of this "
        "study. A model of this quality helps research; it must not decide on a patient.",
    )


def data_use(proposal: Proposal, glance: Glance | None) -> tuple[Comparison, ...]:
    """Return where the purpose does not fit the dataset's terms, and what people have to judge."""
    if glance is None or not glance.terms.data_use:
        return ()
    filing = proposal.filing
    return compare(
        glance.terms.data_use,
        filing.data_use if filing else (),
        ethics_vote=bool(filing and filing.ethics_vote),
        countries=[r.country for r in filing.recipients] if filing else (),
        months=proposal.custody.retention_days / _DAYS_A_MONTH,
    )


@lru_cache(maxsize=256)
def _study(mechanism: Mechanism, delta: float) -> float:
    return mechanism.epsilon(delta)


@lru_cache(maxsize=256)
def _twice(mechanism: Mechanism, delta: float) -> float:
    return epsilon_at_two_hospitals(mechanism, delta)


def _figure(value: float, delta: float, accountant: str, against: str, adjacency: str = "") -> Epsilon:
    return Epsilon(
        value=value if math.isfinite(value) else None,
        delta=delta,
        adjacency=adjacency or words.adjacency(),
        accountant=accountant,
        against=against,
    )
