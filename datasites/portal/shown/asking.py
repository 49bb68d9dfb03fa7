"""Sentences about who asks for a study, and about the code that it brings."""

from __future__ import annotations

from datasites.language import tr
from datasites.study.proposal import Proposal
from privacy.identity import fingerprint


def asker_words(proposal: Proposal) -> tuple[str, ...]:
    """Return who signed the request, where a scientist asks with a key of their own."""
    asker = proposal.scientist
    if asker is None:
        return ()
    return (
        tr(
            "{name} signed the request with a key of their own (fingerprint {fingerprint}); {orchestrator} runs the "
            "study.",
            name=asker.name,
            fingerprint=fingerprint(asker.public_key),
            orchestrator=proposal.orchestrator.name,
        ),
    )


def code_words(proposal: Proposal) -> tuple[str, ...]:
    """Return whose code runs, and what that leaves to trust."""
    if proposal.plan.kind == "declarative":
        return (tr("The code is our own, reviewed and selected by a specification."),)
    own = tr("The study brings its own Python code: the guarantee assumes that the reviewed code is honest.")
    rule = tr(
        "The study brings its own rule for the server: code that makes the next model of each sum. It runs in the "
        "sandbox and sees no record. A rule made for it can choose models that show the update of one hospital, which "
        "then only the noise covers: read it."
    )
    return (own,) * proposal.own_network + (rule,) * proposal.own_server_rule
