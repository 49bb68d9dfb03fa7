"""The sentences of the privacy report, and what an epsilon means for one patient, which the portal says as well.

Every function answers in the language that is spoken (:mod:`datasites.language`).
"""

from __future__ import annotations

import math

from datasites.language import mark, tr
from datasites.language.formats import decimal
from datasites.report.facts import Epsilon, Exposure, Term
from datasites.strategy.local_noise import LocalNoise
from datasites.strategy.registry import noise_named
from datasites.study.proposal import Proposal
from datasites.study.text import delta_text, epsilon_text
from privacy.dp.mechanism import Mechanism


def certainty(epsilon: float) -> str:
    """Return how sure somebody can become who gives even odds before and sees everything that leaves.

    ``certainty(1.0)`` is ``73 %``: with even odds and a failure probability of delta, the odds change at most by the
    factor e to the power of epsilon (Wasserman and Zhou 2010).

    Args:
        epsilon: at least 0; infinite means that there is no bound.
    """
    if math.isinf(epsilon):
        return tr("completely")
    percent = 100 / (1 + math.exp(-epsilon))
    if percent >= 99.99:
        return tr("almost certainty")
    return tr("{percent} %", percent=decimal(percent, 0 if percent < 99 else 2))


STATES = {
    "waiting": mark("approved, not started"),
    "running": mark("running"),
    "finished": mark("finished"),
    "unused": mark("ended without reading a record"),
    "stopped": mark("revoked"),
}
"""The states of a study, as facts have them; pages show them translated."""

DECISIONS = (
    mark("approved"), mark("approved with conditions"), mark("signed"), mark("denied"), mark("changes-requested"),
    mark("revoked"), mark("steward"), mark("privacy-officer"), mark("hospital"), mark("orchestrator"),
    mark("keyholder"), mark("helper"), mark("datasite"),
)  # fmt: skip
"""Decisions, functions and roles, as facts have them; pages show them translated."""


def adjacency() -> str:
    """Return which change of the data is hidden."""
    return tr("add or remove one patient's record at this hospital")


def stated(value: float, delta: float, accountant: str, against: str, adjacent: str = "") -> Epsilon:
    """Return an epsilon with what it holds for; infinite is None, and one record is what is hidden unless said."""
    return Epsilon(
        value=value if math.isfinite(value) else None,
        delta=delta,
        adjacency=adjacent or adjacency(),
        accountant=accountant,
        against=against,
    )


def adjacency_two() -> str:
    """Return the same for a patient of two hospitals."""
    return tr("add or remove one patient's records at two hospitals of the study")


def pld() -> str:
    """Return the name of the accountant of one study."""
    return tr("privacy loss distributions (exact for Gaussian noise alone, else by Google dp-accounting)")


def filter_name() -> str:
    """Return the name of the accountant across studies."""
    return tr("Gaussian DP filter of the ledger")


def everybody() -> str:
    """Return against whom local noise protects."""
    return LocalNoise().against(0)


def nobody() -> str:
    """Return against whom a public seed protects."""
    return tr("nobody: the noise came from a public seed and can be taken off")


def as_assumed() -> str:
    """Return against whom the figures of a population hold that has studies with shared noise."""
    return tr("everybody whom the studies assume (shared noise: see who may collude, with each study)")


def how_to_verify() -> tuple[str, ...]:
    """Return how a reader checks the report."""
    return (
        tr(
            "tessera verify privacy-report.pdf checks that this PDF is as the hospital signed it, offline, and prints "
            "the fingerprint of the key."
        ),
        tr(
            "tessera verify FOLDER checks every hash, signature, time and sum in the hospital's journal and ledger, "
            "offline."
        ),
        tr(
            "tessera verify FOLDER --peers PEER_FOLDER also compares with the heads that the other participants wrote "
            "down in every round. Only this shows that the end of a chain was not cut off or rewritten."
        ),
        tr("Compare the key's fingerprint above with the one the hospital tells you by telephone."),
    )


def terms() -> tuple[Term, ...]:
    """Return the words of the report in plain language."""
    found = (
        (
            tr("epsilon (ε)"),
            tr(
                "How much everything that left the hospital can change anybody's odds about one patient: at most by "
                "the factor e to the power of ε. Smaller is more private; 0 would tell nothing."
            ),
        ),
        (
            tr("delta (δ)"),
            tr("The small probability with which the promise of ε may fail. Every ε here is stated with its δ."),
        ),
        (
            tr("adjacency"),
            tr(
                "Which change of the data must stay hidden. Here: that one patient's record (all modalities) is in "
                "the hospital's data, or is not."
            ),
        ),
        (
            tr("accountant"),
            tr(
                "The mathematics that adds up releases. For one study: privacy loss distributions, the tight figure. "
                "Across studies, whose design may depend on earlier answers: a Gaussian filter, by which the ledger "
                "refuses."
            ),
        ),
        (
            tr("share of the budget"),
            tr("What part of the owner's cap is used, by the filter. Shares add up; epsilons do not."),
        ),
        (
            tr("promised"),
            tr("Reserved for the worst case of an approved study, not spent yet. What never reads a record goes back."),
        ),
        (
            tr("population"),
            tr("All datasets and versions that share a patient. They share one budget, so a new name resets nothing."),
        ),
        (
            tr("head"),
            tr("The hash of a chain's newest entry. Who knows it can tell later whether anything before was changed."),
        ),
    )
    return tuple(Term(term=term, meaning=meaning) for term, meaning in found)


def odds(epsilon: float | None, delta: float) -> str:
    """Return what an epsilon means for even odds."""
    if epsilon is None or math.isinf(epsilon):
        return tr("There is no bound on what everything that left may tell about a single patient.")
    if epsilon == 0:
        return tr("Nothing that depends on a single patient has left the hospital.")
    return tr(
        "Somebody who thinks it as likely as not (50 %) that a certain patient is in the data, and then sees all that "
        "left, can become at most {certainty} sure. This bound fails with probability {delta} at most.",
        certainty=certainty(epsilon),
        delta=delta_text(delta),
    )


def against(mechanism: Mechanism) -> str:
    """Return against whom the charged epsilon of a study holds."""
    return noise_named(mechanism.noise).against(mechanism.colluders)


def bound(epsilon: Epsilon) -> str:
    """Return an epsilon with its delta, in a few characters."""
    return tr("ε {epsilon} at δ {delta}", epsilon=epsilon_text(epsilon.value), delta=delta_text(epsilon.delta))


def exposures(proposal: Proposal, charged: Epsilon) -> tuple[Exposure, ...]:
    """Return who, with whom, learns what in a study (the threat model's table for this study)."""
    limit = bound(charged) if proposal.seed is None else tr("none: the noise is public")
    noise = proposal.noise_mode
    rows = (
        (
            tr("The other hospitals"),
            tr("the global models and the sums over at least {count} hospitals", count=proposal.min_sites),
            limit,
        ),
        (
            tr("The orchestrator ({institution}) alone", institution=proposal.orchestrator.institution),
            tr("sums over hospitals, noised losses and scores; this hospital's update only encrypted"),
            limit,
        ),
        (
            tr("The keyholder ({institution}) alone", institution=proposal.keyholder.institution),
            tr("sums of each round, for a moment; never a single hospital's update"),
            limit,
        ),
        *_together(proposal, limit),
        (
            tr("Orchestrator and all other hospitals but one"),
            _left_alone(proposal),
            tr(noise.weaker_at_hospitals) or limit,
        ),
        (tr("Whoever gets the finished model"), tr("the model"), limit),
        (
            tr("Somebody in this hospital"),
            tr("the records themselves; the bounds here are about what leaves"),
            tr("none"),
        ),
    )
    return tuple(Exposure(who=who, learns=learns, bound=limit) for who, learns, limit in rows)


def _left_alone(proposal: Proposal) -> str:
    """Return what all others but one read: less than a sum of two where both helpers are theirs."""
    if proposal.published and proposal.helpers_inside == len(proposal.helpers):
        return tr(
            "the sum of this hospital's and that one's noised updates; once a round is answered also single updates in "
            "it, if both helpers are among them"
        )
    return tr("the sum of this hospital's and that one's noised updates")


def _together(proposal: Proposal, limit: str) -> tuple[tuple[str, str, str], ...]:
    """Return who together reads this hospital's single updates: two parties, or three where the study has helpers."""
    single = tr("this hospital's single updates, with the noise this hospital added")
    weaker = tr(proposal.noise_mode.weaker_at_servers) or limit
    if not proposal.helpers:
        return ((tr("Orchestrator and keyholder together, since nobody helps in this study"), single, weaker),)
    one, two = (helper.institution for helper in proposal.helpers)
    rows = [
        (
            tr("Two of orchestrator, keyholder and the helpers ({one}, {two}) together", one=one, two=two),
            tr("what each of them learns alone; never a single hospital's update"),
            limit,
        ),
        (tr("Orchestrator, keyholder and one helper together"), single, weaker),
    ]
    if proposal.published:
        later = tr("after a round was answered, this hospital's single update in it, with the noise it added")
        rows.append((tr("Orchestrator and both helpers together"), later, weaker))
    return tuple(rows)


def limits(*, free_python: bool, shared: bool) -> tuple[str, ...]:
    """Return what is not protected, for the first page."""
    always = (
        tr(
            "The budget bounds what can be learned about one patient's taking part. It does not hide what is true of "
            "patients in general: a good model tells about everybody with the disease, whether in the data or not."
        ),
        tr("A patient who is known to two hospitals of a study loses more; the figure stands with each study."),
        tr("That this hospital takes part, when it works, and how much it sends are visible to the orchestrator."),
        tr("A participant can spoil the model within the agreed bounds; this is limited, not prevented."),
    )
    extra = []
    if shared:
        extra.append(
            tr(
                "With shared noise each hospital adds only a part of the noise. If those work together who read single "
                "updates, or more hospitals than the study assumes, the bound of that study does not hold."
            )
        )
    if free_python:
        extra.append(
            tr(
                "A study here ran code written for it. Its guarantee assumes that the reviewed code is honest: in one "
                "process, hostile code could change ours."
            )
        )
    return (*always, *extra)
