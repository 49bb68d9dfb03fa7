"""The thread of a study: every decision, answer and ending as one signed word that reaches those it concerns.

A hospital's words are its people's decisions; the orchestrator's are the scientist's answers and what became of the
study. :func:`open_word` checks who may say what, so that hospital and orchestrator believe the same words.

============  ===============  ===================================================================================
kind          said by          means
============  ===============  ===================================================================================
approved      hospital         the proposal may run there
conditions    hospital         it may run there once the scientist has accepted the conditions in the text
denied        hospital         it will never run there, so the study cannot start
asked         hospital         the scientist has to explain or change something
revoked       hospital         the approval is taken back
returned      hospital         nothing more can be charged there; what was reserved and not charged went back
failed        hospital         a round failed there: it waits for its people before the next one is charged
continued     hospital         its people let the study go on after a failed round
answered      orchestrator     the scientist's answer to one hospital (``to``)
accepted      orchestrator     the scientist accepts a hospital's conditions (``answers`` is the hash of that word)
paused        orchestrator     no further round until it is resumed
resumed       orchestrator     it goes on
dropped       orchestrator     it goes on without one hospital (``to``)
withdrawn     orchestrator     the scientist took the request back before it ran
cancelled     orchestrator     the scientist ended the study
ended         orchestrator     it cannot start or go on any more; the text says why
finished      orchestrator     all rounds are done
deleted       orchestrator     the model was deleted; the text names the hashes
============  ===============  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from datasites.language import mark
from datasites.study.signing import Message, Signed, dump, open_sealed, parse
from datasites.study.text import check_line, check_prose
from privacy.canonical import NEWEST, canonical_hash
from privacy.errors import InvalidInput
from privacy.sentences import say

if TYPE_CHECKING:
    from datasites.study.proposal import Proposal

WORD = "word"
SiteKind = Literal["approved", "conditions", "denied", "asked", "revoked", "returned", "failed", "continued"]
ScientistKind = Literal[
    "answered",
    "accepted",
    "paused",
    "resumed",
    "dropped",
    "withdrawn",
    "cancelled",
    "ended",
    "finished",
    "deleted",
]
SITE_KINDS = frozenset({"approved", "conditions", "denied", "asked", "revoked", "returned", "failed", "continued"})
ADDRESSED = frozenset({"answered", "accepted", "dropped"})
ENDINGS = frozenset({"withdrawn", "cancelled", "ended"})
OVER_FOR_GOOD = frozenset({"finished", "denied", "revoked", "withdrawn", "cancelled", "expired"})
"""The states of a study that never trains again."""
TO_ALL = ENDINGS | {"denied", "revoked", "paused", "resumed", "dropped", "finished", "deleted"}
LONGEST = 4000

SENTENCES = {
    "approved": mark("approved"),
    "conditions": mark("approved with conditions"),
    "denied": mark("denied"),
    "asked": mark("asks"),
    "revoked": mark("revoked its approval"),
    "returned": mark("gave back the budget that was not charged"),
    "failed": mark("waits for its people after a failed round"),
    "continued": mark("goes on after a failed round"),
    "answered": mark("answers"),
    "accepted": mark("accepts the conditions"),
    "paused": mark("paused the study"),
    "resumed": mark("resumed the study"),
    "dropped": mark("goes on without one hospital"),
    "withdrawn": mark("withdrew the request"),
    "cancelled": mark("cancelled the study"),
    "ended": mark("the study has ended"),
    "finished": mark("the study is finished"),
    "deleted": mark("deleted the model"),
}
SHOWN = SENTENCES | {
    "approved": mark("has approved"),
    "conditions": mark("has approved with conditions"),
    "denied": mark("has denied it"),
    "ended": mark("says that the study has ended"),
    "finished": mark("says that the study is finished"),
}
"""The same behind a name on pages and in reports: other languages part a state from what somebody did."""
STORED = (
    mark("{who} denied: “{words}”"),
    mark("{who} revoked its approval: “{words}”"),
    mark("{who} withdrew the request: “{words}”"),
    mark("{who} cancelled the study: “{words}”"),
    mark("{who} paused the study: “{words}”"),
    mark("{who} goes on without one hospital ({site}): “{words}”"),
    mark("denied by {who}: {words}"),
    mark("revoked by {who}: {words}"),
)
"""Words of a thread as they stand in stored reasons."""


@dataclass(frozen=True, kw_only=True)
class Word(Message):
    """One thing that one party of a study says; ``number`` counts its words in this study from 1.

    ``person`` is who said it there and ``titled`` their full name and function (of several people with a semicolon
    between), ``to`` the one hospital it is for (empty: everybody it concerns), ``answers`` the hash of the word it
    answers.
    """

    study: str
    proposal_hash: str
    author: str
    number: int
    kind: SiteKind | ScientistKind
    person: str
    text: str
    at: str
    to: str = ""
    answers: str = ""
    titled: str = ""

    @property
    def who(self) -> str:
        """The person's full name and function where they are known, otherwise the name of their account."""
        return self.titled or self.person

    @property
    def word_hash(self) -> str:
        """SHA-256 of the canonical word, which an answer names."""
        return canonical_hash(dump(self), NEWEST)

    @property
    def sentence(self) -> str:
        """Return author, kind and text on one line, for people."""
        to = f" ({self.to})" if self.to else ""
        text = f": “{self.text}”" if self.text else ""
        return f"{self.author} {SENTENCES[self.kind]}{to}{text}"

    def concerns(self, party: str) -> bool:
        """Return whether ``party`` reads this word: its own, what is said to it, and what ends or changes the study."""
        return party in (self.author, self.to) or self.kind in TO_ALL

    @property
    def final(self) -> bool:
        """Whether nothing can run under this proposal any more: not here, and not elsewhere."""
        return self.kind in ENDINGS or self.kind == "denied"


def open_word(signed: Signed, proposal: Proposal) -> Word:
    """Return the word inside, once its author, its signature and its place are checked.

    Raises:
        InvalidInput: the author takes no part, says what is not theirs to say, or names another study.
        Tampered: the signature does not hold.
    """
    word = parse(Word, dict(signed.payload))
    owner = proposal.orchestrator if word.author == proposal.orchestrator.name else proposal.participant(word.author)
    word = open_sealed(signed, WORD, owner.public_key, Word)
    if (word.study, word.proposal_hash) != (proposal.study, proposal.proposal_hash):
        raise InvalidInput(say("the word is about another study or another version of it"))
    if (word.kind in SITE_KINDS) == (owner is proposal.orchestrator):
        raise InvalidInput(say("{author} cannot say {kind!r}", author=word.author, kind=word.kind))
    if word.kind in ADDRESSED:
        proposal.participant(word.to)
    elif word.to:
        raise InvalidInput(
            say("a word of the kind {kind!r} is for everybody, not for {to!r}", kind=word.kind, to=word.to[:40])
        )
    check_line(word.person, "a person's name")
    if word.titled:
        check_line(word.titled, "a person's name and function")
    check_text(word.text, required=word.kind not in {"approved", "accepted", "resumed", "finished"})
    if word.number < 1:
        raise InvalidInput(say("expected words to be counted from 1, got {number}", number=word.number))
    return word


def check_text(text: str, *, required: bool = True) -> str:
    """Return what somebody wrote, without spaces around it.

    Raises:
        InvalidInput: too short, too long, or with a character that is not seen.
    """
    stripped = text.replace("\r\n", "\n").strip()  # browsers send both
    if len(stripped) > LONGEST or (required and len(stripped) < 3):
        raise InvalidInput(
            say("expected a reason of 3 to {longest} characters; the other side will read it", longest=LONGEST)
        )
    return check_prose(stripped, "a reason")


def accepted(words: Iterable[Word], site: str) -> bool:
    """Return whether every word of ``site`` that sets conditions was accepted by the scientist."""
    known = tuple(words)
    answered = {w.answers for w in known if w.kind == "accepted" and w.to == site}
    return {w.word_hash for w in known if w.kind == "conditions" and w.author == site} <= answered


def conditions_of(approval: dict[str, Any]) -> str:
    """Return the conditions under which an approval's reviewers signed, each with its name; empty without any."""
    stated = [(r.get("full_name") or r["reviewer"], r.get("conditions", "")) for r in approval["reviewers"]]
    return "\n".join(f"{name}: {text}" for name, text in stated if text)
