"""The shapes of the machine API, as OpenAPI documents them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

Hash = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the canonical proposal")]
PublicKey = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Ed25519 public key")]
_Text = Annotated[str, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Login(_Body):
    """A person's name and password."""

    name: _Text
    password: _Text


class Registration(_Body):
    """Using up a one-time link."""

    token: _Text
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,62}$")]
    password: Annotated[str, Field(min_length=12, max_length=256)]


class TokenWish(Login):
    """A machine token for oneself, with no more rights than one has."""

    scopes: Annotated[list[Literal["read", "review"]], Field(min_length=1, max_length=2)]
    label: Annotated[str, Field(min_length=1, max_length=80)] = "machine"
    days: Annotated[float, Field(gt=0, le=366)] = 30


class Token(BaseModel):
    """A machine token, shown once."""

    token: str
    scopes: list[str]
    expires: str


class Session(BaseModel):
    """A browser session was opened; the cookie came with this answer."""

    name: str
    role: str
    csrf: str


class Person(BaseModel):
    """An account."""

    name: str
    role: str
    public_key: str


class Password(_Body):
    """The password that unlocks the caller's own signing key."""

    password: _Text


class Reason(_Body):
    """Why; the scientist reads it."""

    reason: Annotated[str, Field(min_length=3, max_length=4000)]


class Confirming(_Body):
    """Whose fingerprint was compared."""

    name: _Text
    institution: _Text


class ConfirmedKey(BaseModel):
    """A key whose fingerprint was compared out of band."""

    public_key: str
    fingerprint: str
    name: str
    institution: str
    person: str
    at: str


class Cost(BaseModel):
    """Epsilon before, of, and after a study, at the owner's delta (add or remove one patient); null is infinite."""

    population: str
    delta: float
    cap: float | None
    before: float | None
    cost: float | None
    after: float | None
    accountant: str
    fits: bool


class Decided(BaseModel):
    """One decision."""

    kind: str
    person: str
    reason: str
    at: str


class Broken(BaseModel):
    """A rule of the policy that the proposal breaks."""

    rule: str
    message: str


class RequestSummary(BaseModel):
    """A proposal in the inbox."""

    proposal_hash: str
    study: str
    purpose: str
    state: Literal["pending", "changes-requested", "approved", "denied", "revoked"]
    received: str
    expires: str
    proposer: str
    rounds: int
    signed_by: list[str]
    signatures_needed: int


class RequestDetail(RequestSummary):
    """A proposal with everything that matters for a decision."""

    proposal: dict[str, Any]
    cost: Cost | None
    violations: list[Broken]
    unconfirmed: list[str]
    decisions: list[Decided]


class Leaving(BaseModel):
    """One thing that would leave in a round."""

    name: str
    shape: str


class Tried(BaseModel):
    """One property that was tried on mock records."""

    what: str
    held: bool


class Trial(BaseModel):
    """A dry run on mock data."""

    outcome: str
    passed: bool
    seconds: float
    memory_bytes: int
    log: str
    leaves: list[Leaving]
    checks: list[Tried]
    layers: list[str]


class Study(BaseModel):
    """A study that runs or ran here."""

    study: str
    proposal_hash: str
    state: str
    rounds_done: int
    rounds: int
    epsilon_spent: float | None
    delta: float
    note: str


class Budget(BaseModel):
    """The budget of one patient population."""

    population: str
    datasets: list[str]
    cap: float | None
    delta: float
    spent: float | None
    reserved: float | None


class JournalLine(BaseModel):
    """One journal entry."""

    index: int
    kind: str
    at: str
    body: dict[str, Any]
    hash: str


class JournalPart(BaseModel):
    """A part of the journal, oldest first, and the head of the whole."""

    head_index: int
    head_hash: str
    entries: list[JournalLine]


class Ready(BaseModel):
    """Whether journal and approvals can be read."""

    status: Literal["ready", "not ready"]


class Health(BaseModel):
    """The portal answers."""

    status: Literal["ok"]
    site: str
