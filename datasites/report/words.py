"""The sentences of the privacy report, and what an epsilon means for one patient, which the portal says as well."""

from __future__ import annotations

import math

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
        return "completely"
    percent = 100 / (1 + math.exp(-epsilon))
    return f"{percent:.0f} %" if percent < 99 else f"{percent:.2f} %" if percent < 99.99 else "almost certainty"


STATES = {
    "waiting": "approved, not started",
    "running": "running",
    "finished": "finished",
    "unused": "ended without reading a record",
    "stopped": "revoked",
}
ADJACENCY = "add or remove one patient's record at this hospital"
ADJACENCY_TWO = "add or remove one patient's records at two hospitals of the study"
PLD = "privacy loss distributions (Google dp-accounting)"
LEDGER = "Gaussian DP filter of the ledger"
EVERYBODY = LocalNoise().against(0)
NOBODY = "nobody: the noise came from a public seed and can be taken off"
AS_ASSUMED = "everybody whom the studies assume (shared noise: see who may collude, with each study)"

HOW_TO_VERIFY = (
    "tessera verify FOLDER checks every hash, signature, time and sum in the hospital's journal and ledger, offline.",
    "tessera verify FOLDER --peers PEER_FOLDER also compares with the heads that the other participants wrote down "
    "in every round. Only this shows that the end of a chain was not cut off or rewritten.",
    "Compare the key's fingerprint above with the one the hospital tells you by telephone.",
)

TERMS = (
    Term(
        term="epsilon (ε)",
        meaning="How much everything that left the hospital can change anybody's odds about one patient: at most by "
        "the factor e to the power of ε. Smaller is more private; 0 would tell nothing.",
    ),
    Term(
        term="delta (δ)",
        meaning="The small probability with which the promise of ε may fail. Every ε here is stated with its δ.",
    ),
    Term(
        term="adjacency",
        meaning="Which change of the data must stay hidden. Here: that one patient's record (all modalities) is in the "
        "hospital's data, or is not.",
    ),
    Term(
        term="accountant",
        meaning="The mathematics that adds up releases. For one study: privacy loss distributions, the tight figure. "
        "Across studies, whose design may depend on earlier answers: a Gaussian filter, by which the ledger refuses.",
    ),
    Term(
        term="share of the budget",
        meaning="What part of the owner's cap is used, by the filter. Shares add up; epsilons do not.",
    ),
    Term(
        term="promised",
        meaning="Reserved for the worst case of an approved study, not spent yet. What never reads a record goes back.",
    ),
    Term(
        term="population",
        meaning="All datasets and versions that share a patient. They share one budget, so a new name resets nothing.",
    ),
    Term(
        term="head",
        meaning="The hash of a chain's newest entry. Who knows it can tell later whether anything before was changed.",
    ),
)


def odds(epsilon: float | None, delta: float) -> str:
    """Return what an epsilon means for even odds."""
    if epsilon is None or math.isinf(epsilon):
        return "There is no bound on what everything that left may tell about a single patient."
    if epsilon == 0:
        return "Nothing that depends on a single patient has left the hospital."
    return (
        "Somebody who thinks it as likely as not (50 %) that a certain patient is in the data, and then sees all that "
        f"left, can become at most {certainty(epsilon)} sure. This bound fails with probability "
        f"{delta_text(delta)} at most."
    )


def against(mechanism: Mechanism) -> str:
    """Return against whom the charged epsilon of a study holds."""
    return noise_named(mechanism.noise).against(mechanism.colluders)


def exposures(proposal: Proposal, charged: Epsilon) -> tuple[Exposure, ...]:
    """Return who, with whom, learns what in a study (the threat model's table for this study)."""
    bound = f"ε {epsilon_text(charged.value)} at δ {delta_text(charged.delta)}"
    if proposal.seed is not None:
        bound = "none: the noise is public"
    noise = proposal.noise_mode
    rows = (
        ("The other hospitals", "the global models and the sums over at least "
         f"{proposal.min_sites} hospitals", bound),
        (f"The orchestrator ({proposal.orchestrator.institution}) alone",
         "sums over hospitals, noised losses and scores; this hospital's update only encrypted", bound),
        (f"The keyholder ({proposal.keyholder.institution}) alone",
         "sums of each round, for a moment; never a single hospital's update", bound),
        ("Orchestrator and keyholder together", "this hospital's single updates, with the noise this hospital added",
         noise.weaker_at_servers or bound),
        ("Orchestrator and all other hospitals but one", "the sum of this hospital's and that one's noised updates",
         noise.weaker_at_hospitals or bound),
        ("Whoever gets the finished model", "the model", bound),
        ("Somebody in this hospital", "the records themselves; this report is about what leaves", "none"),
    )  # fmt: skip
    return tuple(Exposure(who=who, learns=learns, bound=limit) for who, learns, limit in rows)


def limits(*, free_python: bool, shared: bool) -> tuple[str, ...]:
    """Return what is not protected, for the first page."""
    always = (
        "The budget bounds what can be learned about one patient's taking part. It does not hide what is true of "
        "patients in general: a good model tells about everybody with the disease, whether in the data or not.",
        "A patient who is known to two hospitals of a study loses more; the figure stands with each study.",
        "That this hospital takes part, when it works, and how much it sends are visible to the orchestrator.",
        "A participant can spoil the model within the agreed bounds; this is limited, not prevented.",
    )
    extra = []
    if shared:
        extra.append(
            "With shared noise each hospital adds only a part of the noise. If orchestrator and keyholder work "
            "together, or more hospitals than the study assumes, the bound of that study does not hold."
        )
    if free_python:
        extra.append(
            "A study here ran code written for it. Its guarantee assumes that the reviewed code is honest: in one "
            "process, hostile code could change ours."
        )
    return (*always, *extra)
