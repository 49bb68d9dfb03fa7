"""A study that begins with the last model of a finished one: ``tessera propose NEW --from OLD``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from datasites.node.http import SignedClient
from datasites.study.proposal import Chain, Proposal
from datasites.study.recomputed.chain import check_layout
from datasites.study.recomputed.released_numbers import validates
from datasites.study.signing import parse
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from orchestrator.studies.proposing.settings import StudySettings


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The earlier study with whose last model a new one begins: its proposal hash, the model as safetensors, and what
    was proposed."""

    study: str
    model: bytes
    earlier: Proposal | None = field(default=None, compare=False)


def continued_settings(
    settings: StudySettings, beginning: Beginning | None, hospitals: Collection[str]
) -> StudySettings:
    """Return the settings of a study that continues another one, so that its model is read as the earlier one's.

    A model that subtracts feature means keeps those that the earlier study released, and is trained on as it was.

    Args:
        settings: of the new study.
        beginning: what it continues; None leaves the settings as they are.
        hospitals: the names of those that are asked.

    Raises:
        InvalidInput: the earlier model divides by released spreads; or the new study is evaluated on patients of whom
            the earlier one kept none out of training.
    """
    earlier = None if beginning is None else beginning.earlier
    if earlier is None:
        return settings
    trained = sorted({p.name for p in earlier.participants} & set(hospitals))
    if settings.evaluation_share and trained and not validates(earlier, earlier.rounds):
        raise InvalidInput(
            f"{earlier.study} trained on all patients of {trained[0]}: an evaluation there would score patients whom "
            "the model knows; ask other hospitals, or evaluate a study that was proposed with an evaluation"
        )
    if not earlier.model.centred:
        return settings
    if earlier.model.standardised:
        raise InvalidInput(f"{earlier.study} released spreads of features, and such a model cannot be continued")
    return replace(
        settings,
        centred=True,
        public_centres=True,
        shrunk=False,
        cohort_gain=earlier.model.cohort_gain,
        learning_rate=earlier.training.learning_rate,
        weight_decay=earlier.training.weight_decay,
        max_grad_norm=earlier.mechanism.max_grad_norm,
        sampling_rate=1.0,
        steps_per_round=1,
    )


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
        raise InvalidInput("expected --rounds with --from: the usual schedule releases feature means first")
    status = client.get_json(f"/studies/{study}")
    if status["state"] != "finished" or not status["checkpoints"]:
        raise Refused(f"the study {study!r} is {status['state']}; only a finished one can be continued")
    earlier, digest = parse(Proposal, status["proposal"]["payload"]), str(status["checkpoints"][-1]["model_hash"])
    model = client.get_bytes(f"/blobs/{digest}")
    if sha256_hex(model) != digest:
        raise Refused("the orchestrator sent another model than the last one of the study")
    return Beginning(study=earlier.proposal_hash, model=model, earlier=earlier)
