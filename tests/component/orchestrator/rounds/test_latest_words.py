"""Every hospital asks for the last word of its studies every few seconds: each word is read for it once."""

from __future__ import annotations

from types import SimpleNamespace

from support.review_desk import NOW, identity, make_proposal

from datasites.study.signing import seal
from datasites.study.thread import WORD, Word
from orchestrator.rounds.store import Store
from orchestrator.rounds.thread import Threads


class Counting(Store):
    """A store that counts how often a document was asked for."""

    asked = 0

    def document(self, *args, **named):
        self.asked += 1
        return super().document(*args, **named)


def test_the_last_words_are_those_that_concern_the_reader_and_are_read_once(tmp_path) -> None:
    store = Counting(tmp_path, None)
    proposals = [make_proposal(study=f"study-{number}") for number in range(3)]

    def say(proposal, place: int, kind: str, to: str = "") -> None:
        author, signer = ("dr-lang", "orchestrator") if to or kind == "paused" else ("alba", "alba")
        word = Word(
            study=proposal.study,
            proposal_hash=proposal.proposal_hash,
            author=author,
            number=place,
            kind=kind,
            person="anna",
            text="Why so many rounds?",
            at=NOW.isoformat(),
            to=to,
        )
        store.put_document(proposal.study, 0, WORD, seal(identity(signer), WORD, word), closing=place)

    for proposal in proposals:
        store.add_study(proposal.study, seal(identity("orchestrator"), "proposal", proposal))
    for proposal in proposals[:2]:
        say(proposal, 1, "asked")
        say(proposal, 2, "answered", to="alba")
    threads = Threads(SimpleNamespace(store=store))
    everything = {p.study: {"proposal_hash": p.proposal_hash, "last": 2} for p in proposals[:2]}
    assert threads.latest("", all_words=True) == threads.latest("alba", all_words=False) == everything
    heard = threads.latest("bruna", all_words=False)
    asked = store.asked
    for _ in range(3):
        assert threads.latest("alba", all_words=False) == everything
        assert threads.latest("bruna", all_words=False) == heard
    assert store.asked == asked
    say(proposals[2], 1, "paused")
    assert threads.latest("bruna", all_words=False)["study-2"]["last"] == 1
    assert store.asked == asked + 1
    assert Threads(SimpleNamespace(store=store)).latest("bruna", all_words=False) == threads.latest(
        "bruna", all_words=False
    )
    store.close()
