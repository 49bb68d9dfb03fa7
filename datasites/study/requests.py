"""Who asks for a study: a scientist of the roster signs it with a key of their own, and the orchestrator seals it.

The scientist signs the whole proposal (kind ``study-request``). The orchestrator checks it and seals the same proposal
as its own, since it runs the rounds. Hospitals get both and believe neither alone: the proposal names the scientist,
the request proves that they asked, and each hospital's own roster says that there is such a person.
"""

from __future__ import annotations

from collections.abc import Collection

from datasites.study.proposal import Party, Proposal
from datasites.study.signing import Signed, open_sealed
from privacy.errors import InvalidInput, Refused

REQUEST = "study-request"
REQUEST_FILE = "request.json"


def check_request(proposal: Proposal, signed: Signed | None, scientists: Collection[Party]) -> None:
    """Check that whom a proposal names as its scientist has asked for exactly this.

    Args:
        proposal: as the orchestrator sealed it.
        signed: the scientist's request; None where none came.
        scientists: those of this role's own roster.

    Raises:
        Refused: a scientist who is not in the roster under this name, institution and key, a request that is missing,
            of another study or signed by somebody else, or a request for a study that names no scientist.
        Tampered: the signature does not hold.
    """
    if proposal.scientist is None:
        if signed is not None:
            raise Refused("a scientist's request came with a study that names no scientist; propose it again")
        return
    if proposal.scientist not in scientists:
        raise Refused(
            f"{proposal.scientist.name} ({proposal.scientist.institution}) is no scientist of the roster here, or has "
            "another key; enrol them with a new roster first"
        )
    if signed is None:
        raise Refused(
            f"the study names {proposal.scientist.name} as its scientist, and no request of theirs came with it"
        )
    if opened(signed, proposal.scientist).proposal_hash != proposal.proposal_hash:
        raise Refused(f"{proposal.scientist.name} asked for another study than the orchestrator sealed")


def opened(signed: Signed, scientist: Party) -> Proposal:
    """Return the proposal inside a request, which names the scientist who signed it.

    Raises:
        InvalidInput: no request, another signer, or a proposal that names somebody else.
        Tampered: the signature does not hold.
    """
    proposal = open_sealed(signed, REQUEST, scientist.public_key, Proposal)
    if proposal.scientist != scientist:
        raise InvalidInput("a request names as its scientist whoever signs it")
    return proposal
