"""The scientist's side over PySyft: read what hospitals published, send them a proposal, register the study."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from datasites.contract import Proposal, dump, parse, seal
from datasites.files import write_atomically
from datasites.home import Home
from datasites.http import SignedClient
from datasites.publishing import CARD, Card
from datasites.syft.client import PublishedDataset, ScientistNode
from datasites.syft.postbox import Postbox
from datasites.syft.runner import PROPOSAL_FILE
from orchestrator.propose import Offer, StudySettings, build_proposal
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, TesseraError

_POLL_SECONDS = 2.0

PLAN_TEXT = '''"""What this study asks for.

The plan is declarative: every datasite trains the model named in the proposal with its own, already reviewed
Tessera code (see `environment.code_hash` in the proposal). No code of this job ever sees a record.
"""
'''


def scientist(home: Home, client: SignedClient) -> ScientistNode:
    """Return the orchestrator's PySyft client."""
    roster = home.roster()
    postbox = Postbox(client, roster.orchestrator.name, lambda name: roster.by_name(name).public_key)
    return ScientistNode(home.folder / "syft", postbox)


def offers_of(
    node: ScientistNode,
    home: Home,
    sites: Sequence[str],
    *,
    seconds: float,
    check: Callable[[], None] = lambda: None,
) -> list[Offer]:
    """Become a peer of each site and read the card of the dataset it published.

    Args:
        node: the scientist's PySyft client.
        home: the orchestrator's folder.
        sites: names in the roster.
        seconds: how long to wait for all of them.
        check: called while waiting; raises if waiting is in vain.

    Raises:
        TesseraError: a site published nothing in time.
    """
    deadline = time.monotonic() + seconds
    for site in sites:
        node.add_peer(site)
    while True:
        check()
        node.sync()
        found = {d.owner: d for d in node.datasets() if _card_path(d) is not None}
        missing = [site for site in sites if site not in found or site not in node.peers]
        if not missing:
            return [_offer(home, found[site]) for site in sites]
        if time.monotonic() > deadline:
            raise TesseraError(f"{missing[0]} published nothing or did not accept us in {seconds:g} s; see its log")
        node.wait_for_news(_POLL_SECONDS)


def submit(
    node: ScientistNode, home: Home, client: SignedClient, settings: StudySettings, offers: Sequence[Offer]
) -> Proposal:
    """Build and sign the proposal, register the study, and send it to every hospital as a PySyft job.

    Raises:
        InvalidInput: the offers do not fit together.
        Refused: a study of this name exists with another proposal.
    """
    roster, identity = home.roster(), home.identity()
    code = {"plan.py": sha256_hex(PLAN_TEXT.encode())}
    proposal, model = build_proposal(
        settings, offers, orchestrator=roster.orchestrator, keyholder=roster.keyholder, code=code
    )
    signed = seal(identity, "proposal", proposal)
    model_hash = sha256_hex(model)
    client.put_bytes(f"/blobs/{model_hash}", model)
    client.post_json("/studies", {"proposal": dump(signed), "model_hash": model_hash})
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        write_atomically(tree / "plan.py", PLAN_TEXT.encode())
        write_atomically(tree / PROPOSAL_FILE, json.dumps(dump(signed)).encode())
        for offer in offers:
            node.submit(offer.party.name, f"{settings.study}-{proposal.proposal_hash[:8]}", tree)
    node.sync()
    return proposal


def _card_path(dataset: PublishedDataset) -> Path | None:
    return next((path for path in dataset.mock_files if path.name == CARD), None)


def _offer(home: Home, dataset: PublishedDataset) -> Offer:
    path = _card_path(dataset)
    if path is None:
        raise InvalidInput(f"{dataset.owner} published {dataset.name!r} without a card; ask it to publish again")
    card = parse(Card, path.read_bytes())
    return Offer(
        party=home.roster().by_name(dataset.owner),
        cohort=card.cohort,
        modalities=card.modalities,
        dataset=card.dataset,
        features=dict(card.features),
        cohorts=card.cohorts,
        task=card.task,  # type: ignore[arg-type]  # compared with the study's task
    )
