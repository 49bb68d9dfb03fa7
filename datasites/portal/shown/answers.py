"""What a request page answers before anybody signs: every epsilon by its name, who learns what, and what is gained.

One epsilon never stands for another. Each line of :func:`epsilons` has its delta, its adjacency, its accountant and
against whom it holds, so that figures that differ say why.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasites.data.glance import Glance
from datasites.language import tr, tr_plural
from datasites.language.formats import decimal, percent, significant
from datasites.report import words
from datasites.report.facts import Epsilon, Exposure
from datasites.review.budgets import CostPreview
from datasites.strategy.registry import noise_named
from datasites.study.data_use import Comparison, compare
from datasites.study.data_use import words as in_words
from datasites.study.proposal import Proposal
from datasites.study.text import delta_text, epsilon_text

_DAYS_A_MONTH = 30.44


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
    from privacy.dp.two_hospitals import epsilon_at_two_hospitals  # seconds of imports that a start need not wait for

    mechanism, delta = proposal.charged, cost.delta
    who = words.nobody() if proposal.seed is not None else words.against(mechanism)
    twice = epsilon_at_two_hospitals(mechanism, delta)
    if cost.reserved:
        before, after = tr("Ledger: spent on these patients so far"), tr("Ledger: when everything approved has run")
    else:
        before = tr("Ledger: spent or reserved on these patients before")
        after = tr("Ledger: after this study, with all that is reserved")
    found = [
        Named(
            name=tr("This study alone, at its worst"),
            epsilon=words.stated(mechanism.epsilon(delta), delta, words.pld(), who),
            use=tr("what the consent of this one study is about"),
        ),
        Named(
            name=tr("This study, for a patient known to two of its hospitals"),
            epsilon=words.stated(twice, delta, words.pld(), who, words.adjacency_two()),
            use=tr("what such a patient may lose, who is in both datasets"),
        ),
    ]
    if not noise_named(mechanism.noise).covers_single_updates and mechanism.private:
        found.append(
            Named(
                name=tr("This study, if no hospital works with others against one"),
                epsilon=words.stated(
                    mechanism.central().epsilon(delta), delta, words.pld(), tr("everybody who only sees sums")
                ),
                use=tr("for comparison with published figures; the ledger charges the first line"),
            )
        )
    found += [
        Named(
            name=before,
            epsilon=words.stated(cost.before, delta, cost.accountant, who),
            use=tr("what every study up to now costs together"),
        ),
        Named(
            name=after,
            epsilon=words.stated(cost.after, delta, cost.accountant, who),
            use=tr("what is compared with the cap"),
        ),
        Named(
            name=tr("The cap of these patients"),
            epsilon=words.stated(cost.cap, delta, cost.accountant, who),
            use=tr("the owner's limit for all studies together"),
        ),
    ]
    return tuple(found)


def who_learns(proposal: Proposal, cost: CostPreview) -> tuple[Exposure, ...]:
    """Return who, alone and together, learns what; the table of the privacy report, before the signature."""
    who = words.nobody() if proposal.seed is not None else words.against(proposal.mechanism)
    charged = words.stated(proposal.charged.epsilon(cost.delta), cost.delta, words.pld(), who)
    return words.exposures(proposal, charged)


def left_over(cost: CostPreview) -> str:
    """Return what this study leaves for later ones, in one sentence."""
    if not math.isfinite(cost.cap):
        return tr("The owner has set no cap: nothing here limits later studies.")
    if not cost.fits:
        return tr("It does not fit under the cap, so nothing can be left.")
    share = 0.0 if cost.cap == 0 else max(0.0, 1 - cost.after / cost.cap)
    return tr(
        "Of the cap of {cap}, {after} is then spent or reserved: about {share} of epsilon is left for later studies on "
        "these patients. Epsilons do not add up; the budget page says what still fits. What this study reserves and "
        "does not use comes back when it ends.",
        cap=epsilon_text(cost.cap),
        after=epsilon_text(cost.after),
        share=percent(share),
    )


def benefit(proposal: Proposal) -> tuple[str, ...]:
    """Return what can be expected of the model at this epsilon, with the caveat; empty where nothing was measured."""
    measured = _measured().get(proposal.task)
    known = measured["private"].get(proposal.noise) if measured else None
    if measured is None or not known or not proposal.charged.private:
        return ()
    study = proposal.mechanism.epsilon()
    nearest = min(known, key=lambda epsilon: abs(math.log(float(epsilon) / max(study, 1e-9))))
    return (
        tr_plural(
            "The simulator trained nine hospitals' public tables on this task with {noise} noise at epsilon {epsilon} "
            "(delta {delta}; this study: {study} at its own delta), once. The AUROC was {auroc}.",
            "The simulator trained nine hospitals' public tables on this task with {noise} noise at epsilon {epsilon} "
            "(delta {delta}; this study: {study} at its own delta), with {count} random seeds. The mean AUROC was "
            "{auroc}.",
            measured["seeds"],
            noise=tr(proposal.noise),
            epsilon=significant(float(nearest), 3),
            delta=delta_text(measured["delta"]),
            study=epsilon_text(study),
            auroc=decimal(known[nearest], 3),
        ),
        tr(
            "Without privacy it was {plain}. One hospital alone without privacy reached {alone}. Guessing gives "
            "{guess}.",
            plain=decimal(measured["plain"], 3),
            alone=decimal(measured["alone"], 3),
            guess=decimal(0.5, 1),
        ),
        tr(
            "These are other patients and other hospitals, and it is a simulation. Nobody knows what comes out of this "
            "study. A model of this quality helps research; it must not decide on a patient."
        ),
    )


@lru_cache(maxsize=1)
def _measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "benefit.json").read_text(encoding="utf-8"))
    return found


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
