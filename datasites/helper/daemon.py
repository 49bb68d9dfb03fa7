"""A helper's process: dials the orchestrator, offers round keys, answers lists with pad sums, declares lists void.

It listens nowhere. Every key, answer, void and refusal goes to its journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasites.helper.custody import PadCustody
from datasites.keyholder.checks import ListRequest, check_list, check_unsigned_list
from datasites.keyholder.opened import BadPads, FreshWanted
from datasites.keyholder.served import Served, arrival_in, served_proposals, void_list
from datasites.keyholder.vouched import shown_commitments
from datasites.node.files import lack_of_room, remove_unfinished
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.node.process import alone_in, work_until_asked
from datasites.node.tracing.spans import traced
from datasites.node.wellbeing import watched
from datasites.node.work import Witness, WorkQueue
from datasites.study.messages import PadSums, RoundKey, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, open_sealed, pack_envelope, parse, seal
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.ledger.journal import Journal

_MOST_BYTES = 1 << 28


@dataclass(kw_only=True)
class Helper:
    """Does a helper's work items."""

    home: Home
    client: SignedClient
    custody: PadCustody
    journal: Journal
    queue: WorkQueue
    looked: bool = False

    @property
    def served(self) -> Served:
        """The studies that are served here."""
        return Served(home=self.home, client=self.client, journal=self.journal)

    def step(self) -> float:
        """Do what is to be done now, or wait for it."""
        if not self.looked:
            self.look_back()
        self.queue.deal(self.handle)
        return 0.0

    def look_back(self) -> None:
        """Compare what was signed here with the journal, and note where it is older: it was restored from a backup.

        Nothing has to be refused: under a key from the backup only what hospitals sign for good is answered.

        Raises:
            TesseraError: the orchestrator cannot be asked; ask again before working.
        """
        known = {
            (e.body["study"], e.body["round"], e.body["list_hash"]) for e in self.journal.entries(kind="pads-summed")
        }
        items = self.client.get_json("/heads", max_bytes=_MOST_BYTES)
        missing = sorted({place for item in items for place in self._signed_in(item)} - known)
        if missing:
            rounds = [[study, number] for study, number, _ in missing]
            self.journal.append("restored-noticed", {"rounds": rounds})
        for study, number, list_hash in missing:
            self.journal.append("pads-summed", {"study": study, "round": number, "list_hash": list_hash})
        self.looked = True

    def _signed_in(self, item: dict[str, list[dict[str, object]]]) -> Iterator[tuple[str, int, str]]:
        own = self.journal.public_keys
        for document in item.get("answers", []):
            sums = open_sealed(parse(Signed, document), "pads", own, PadSums)
            yield sums.study, sums.round, sums.list_hash

    @traced
    def handle(self, item: WorkItem) -> None:
        """Do one work item; what is refused is journaled and told."""
        try:
            if item.kind == "key":
                self._offer_key(item)
            elif item.kind == "commit":
                self._commit(item)
            elif item.kind == "pads":
                self._answer(item)
            elif item.kind == "void":
                self._void(item)
            elif item.kind == "clear":
                arrival = arrival_in(self.served.study(item.study), item)
                self.served.send(item, "clearance", self.custody.clear(arrival, self._name))
            elif item.kind in ("finished", "forget"):
                self.custody.forget(item.study)
        except BadPads as error:
            self.served.refuse(item, str(error), without=error.sites)
        except FreshWanted as error:
            self.served.refuse(item, str(error), fresh=error.fresh)
        except Declined:  # the orchestrator's no, not ours: nothing is refused here
            raise
        except (Refused, InvalidInput, Tampered) as error:
            self.served.refuse(item, str(error))
        except KeyError:
            self.served.refuse(item, "the work item lacks a document")

    def _offer_key(self, item: WorkItem) -> None:
        key = self.custody.open_round(self.served.study(item.study), item.round, self._name)
        self.served.journal_once(f"key-{key.pad_key}", "helper-key", {"study": key.study, "round": key.round})
        self.served.send(item, "helper-key", key)

    def _commit(self, item: WorkItem) -> None:
        """Say, before a site signs a list, what its pads add up to."""
        listed = check_unsigned_list(*self._listed(item))
        self.served.commit(item, self.custody.commit(listed, self._name))

    def _answer(self, item: WorkItem) -> None:
        sums, body = self.custody.answer(check_list(*self._listed(item)), self._name)
        entry = {"study": sums.study, "round": sums.round, "list_hash": sums.list_hash}
        self.served.journal_once(f"pads-{sums.list_hash}", "pads-summed", entry)
        signed = seal(self.home.identity(), "pads", sums)
        self.client.put_bytes(f"/studies/{item.study}/rounds/{item.round}/pads", pack_envelope(signed, body))
        self.custody.destroy_key(item.study, item.round)

    def _listed(self, item: WorkItem) -> tuple[Proposal, RoundKey, ListRequest]:
        """Return the study, the keyholder's key of the round, and the list of a work item."""
        proposal = self.served.study(item.study, item.documents["commitments"])
        key = open_sealed(
            item.documents["key"], "round-key", proposal.keyholder.public_key, RoundKey, since=proposal.canonical
        )
        request = ListRequest(
            plan=item.documents["plan"],
            commitments=item.documents["commitments"],
            attestations=item.attestations,
            pad_commitments=shown_commitments(item.documents),
        )
        return proposal, key, request

    def _void(self, item: WorkItem) -> None:
        listed = void_list(self.served.study(item.study), item)
        key = self.custody.void(item.study, item.round, listed.list_hash)
        self.served.declare_void(item, listed.list_hash, key.pad_key)

    @property
    def _name(self) -> str:
        return self.home.config().name


def run(folder: Path) -> None:
    """Work until the process is asked to end.

    Raises:
        InvalidInput: the folder is no helper's.
        Refused: another process runs on it.
    """
    with alone_in(folder) as home:
        _serve(home)


def _serve(home: Home) -> None:
    folder = home.folder
    config, identity = home.config(), home.identity()
    remove_unfinished(folder)
    client = SignedClient(
        identity, config.orchestrator_url, home.roster().orchestrator.public_key, ca=config.ca, proxy=config.proxy
    )
    journal = Journal(folder / "journal.sqlite", identity)
    witness = Witness(
        home=home, client=client, proposals=lambda: served_proposals(home), trouble=lambda: lack_of_room(folder)
    )
    helper = Helper(
        home=home,
        client=client,
        custody=PadCustody(folder / "rounds-kept", identity),
        journal=journal,
        queue=WorkQueue(client, witness=witness),
    )
    with watched(home):
        work_until_asked(folder, "helper", helper.step, client, journal)
