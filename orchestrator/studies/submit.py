"""The scientist's side over PySyft: read what hospitals published, send them a proposal, register the study."""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasites.data.dataset import read_schema
from datasites.data.publishing import CARD, Card
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.node.places import hashed_place, is_of_study
from datasites.study.proposal import Environment, Proposal
from datasites.study.requests import REQUEST, REQUEST_FILE
from datasites.study.signing import Signed, dump, open_sealed, parse, seal
from datasites.syft.client import PublishedDataset, ScientistNode
from datasites.syft.postbox import Postbox
from datasites.syft.runner import PROPOSAL_FILE
from orchestrator.studies.proposing.beginning import Beginning, beginning_of, continued_settings
from orchestrator.studies.proposing.brought import NOTHING, Brought, files_of, keep_tree
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.canonical import plain_json, sha256_hex
from privacy.errors import InvalidInput, Refused, TesseraError

_POLL_SECONDS = 2.0


def scientist(home: Home, client: SignedClient) -> ScientistNode:
    """Return the PySyft client of the orchestrator, or of a scientist with a folder of their own."""
    postbox = Postbox(client, home.party().name, home.keys_of)
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


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A proposal on its way: built and signed once, registered and sent until every hospital has it.

    ``sent`` names the hospitals whose mailbox took it. It lies in the orchestrator's home, so that a command that ended
    on the way is simply given again.
    """

    settings: Mapping[str, str]
    proposal: Signed
    model: str
    sent: tuple[str, ...] = ()

    @classmethod
    def find(cls, home: Home, settings: StudySettings, brought: Brought = NOTHING) -> Draft | None:
        """Return the draft of this study, or None.

        Raises:
            Refused: it was begun with other settings.
        """
        path = _draft_path(home, settings.study)
        if not path.exists():
            return None
        draft = parse(cls, path.read_bytes())
        if dict(draft.settings) != _plain(settings, brought):
            raise Refused(
                f"a proposal called {settings.study!r} was begun with other settings and did not reach everybody; give "
                "the same command again to send it, or choose another name"
            )
        return draft

    def keep(self, home: Home) -> None:
        """Write it down."""
        write_atomically(_draft_path(home, self.settings["study"]), plain_json(dump(self)))

    def opened(self, home: Home) -> Proposal:
        """Return the proposal inside."""
        return open_sealed(self.proposal, _kind_of(home), home.identity().public_key, Proposal)


def draft_of(
    home: Home,
    settings: StudySettings,
    offers: Sequence[Offer],
    beginning: Beginning | None = None,
    brought: Brought = NOTHING,
    built: bytes | None = None,
    environment: Environment | None = None,
) -> Draft:
    """Build and sign the proposal and write it down; see :func:`orchestrator.studies.proposing.propose.build_proposal`.

    Raises:
        InvalidInput: the offers do not fit together.
    """
    roster = home.roster()
    proposal, model = build_proposal(
        continued_settings(settings, beginning, [offer.party.name for offer in offers]),
        offers,
        orchestrator=roster.orchestrator,
        keyholder=roster.keyholder,
        helpers=roster.helpers,
        code=brought.code,
        beginning=beginning,
        brought=brought,
        built=built,
        scientist=home.party() if is_scientists(home) else None,
        environment=environment,
    )
    keep_tree(home, proposal, brought)
    signed = seal(home.identity(), _kind_of(home), proposal)
    draft = Draft(settings=_plain(settings, brought), proposal=signed, model=base64.b64encode(model).decode())
    draft.keep(home)
    return draft


def submit(
    node: ScientistNode,
    home: Home,
    client: SignedClient,
    settings: StudySettings,
    offers: Sequence[Offer],
    brought: Brought = NOTHING,
    built: bytes | None = None,
) -> Proposal:
    """Build and sign the proposal, register the study, and send it to every hospital as a PySyft job.

    A draft of the same settings that did not reach everybody is sent on instead, as it was signed.

    Raises:
        InvalidInput: the offers do not fit together.
        Refused: a study of this name exists with another proposal.
    """
    draft = Draft.find(home, settings, brought)
    again = draft is not None
    if draft is None:
        beginning = beginning_of(client, settings.begin_with, centred=settings.centred)
        there = parse(Environment, client.get_json("/environment")) if is_scientists(home) else None
        draft = draft_of(home, settings, offers, beginning, brought, built, there)
    proposal, files = draft.opened(home), files_of(home, draft.opened(home))
    register = _asked if is_scientists(home) else _registered
    sealed = register(client, draft, proposal, files)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name, data in {**files, **sealed}.items():
            write_atomically(tree / name, data)
        for site in [p.name for p in proposal.participants if p.name not in draft.sent]:
            node.submit(site, f"{settings.study}-{proposal.proposal_hash[:8]}", tree, again=again)
            draft = replace(draft, sent=(*draft.sent, site))
            draft.keep(home)
    node.sync()
    _draft_path(home, settings.study).unlink()
    return proposal


def is_scientists(home: Home) -> bool:
    """Return whether a folder is that of a scientist, who asks with a key of their own."""
    return home.config().role == "scientist"


def _kind_of(home: Home) -> str:
    return REQUEST if is_scientists(home) else "proposal"


def _registered(client: SignedClient, draft: Draft, proposal: Proposal, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Register a study in the orchestrator's own name; return the files that say so to hospitals."""
    model = base64.b64decode(draft.model)
    client.put_bytes(f"/blobs/{sha256_hex(model)}", model)
    for data in files.values() if proposal.own_server_rule else ():
        client.put_bytes(f"/blobs/{sha256_hex(data)}", data)
    client.post_json("/studies", {"proposal": dump(draft.proposal), "model_hash": sha256_hex(model)})
    return {PROPOSAL_FILE: json.dumps(dump(draft.proposal)).encode()}


def _asked(client: SignedClient, draft: Draft, proposal: Proposal, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Ask the orchestrator for a study; return its seal and the scientist's request for hospitals."""
    code = {name: base64.b64encode(data).decode() for name, data in files.items()}
    answer = client.post_json("/requests", {"request": dump(draft.proposal), "model": draft.model, "files": code})
    sealed = parse(Signed, answer["proposal"])
    there = open_sealed(sealed, "proposal", proposal.orchestrator.public_key, Proposal)
    if there.proposal_hash != proposal.proposal_hash:
        raise Refused("the orchestrator sealed another study than was asked for; nothing was sent to hospitals")
    return {
        PROPOSAL_FILE: json.dumps(dump(sealed)).encode(),
        REQUEST_FILE: json.dumps(dump(draft.proposal)).encode(),
    }


def _draft_path(home: Home, study: str) -> Path:
    return hashed_place(
        home.folder / "drafts", study, ".json", is_of=lambda old: is_of_study(old, study, "settings", "study")
    )


def _plain(settings: StudySettings, brought: Brought) -> dict[str, str]:
    plain = {name: str(value) for name, value in asdict(settings).items()}  # an infinite epsilon is no JSON
    return plain | ({"brought": brought.key} if brought.key else {})


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
        task=card.task,
        classes=card.classes,
        predicts=card.predicts,
        gains=dict(card.gains),
        self_scaled=card.self_scaled,
        own_evaluation=card.own_evaluation,
        names=dict(read_schema(path.parent).features),
    )
