"""A study that begins with the last model of a finished one: ``tessera propose NEW --from OLD``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from datasites.node.http import SignedClient
from datasites.study.proposal import Chain, Proposal
from datasites.study.recomputed.chain import check_layout
from datasites.study.signing import parse
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The earlier study with whose last model a new one begins: its proposal hash, and the model as safetensors."""

    study: str
    model: bytes


def continued(chain: Chain, beginning: Beginning, model: bytes) -> Chain:
    """Return the chain of a study that begins with the last model of an earlier one.

    Args:
        chain: as it would be with a model of its own.
        beginning: the earlier study.
        model: a model of the new study's configuration.

    Raises:
        InvalidInput: the two models have other parameters.
    """
    try:
        check_layout(beginning.model, model)
    except Refused as error:
        raise InvalidInput(
            "the study to begin with has a model of other parameters than this one asks for; choose the same --model, "
            "--fusion and hospitals' schema"
        ) from error
    return replace(chain, model_hash=sha256_hex(beginning.model), origin="study", study=beginning.study, seed=0)


def beginning_of(client: SignedClient, study: str, *, centred: bool) -> Beginning | None:
    """Return the finished study that a new one continues, with its last model; None where it continues none.

    Args:
        client: asks as the orchestrator.
        study: the name of the finished study, or nothing.
        centred: whether the new study releases feature means first.

    Raises:
        Refused: there is no such study here, it is not finished, or its model is deleted.
        InvalidInput: the new study releases feature means first, through weights that have to be zero.
    """
    if not study:
        return None
    if centred:
        raise InvalidInput("expected --rounds with --from: the usual schedule begins with a release of feature means")
    status = client.get_json(f"/studies/{study}")
    if status["state"] != "finished" or not status["checkpoints"]:
        raise Refused(f"the study {study!r} is {status['state']}; only a finished one can be continued")
    earlier, digest = parse(Proposal, status["proposal"]["payload"]), str(status["checkpoints"][-1]["model_hash"])
    model = client.get_bytes(f"/blobs/{digest}")
    if sha256_hex(model) != digest:
        raise Refused("the orchestrator sent another model than the last one of the study")
    return Beginning(study=earlier.proposal_hash, model=model)
