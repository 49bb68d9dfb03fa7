"""Every field that a datasite sends, and why it may leave: one table for people, tests and an auditor's recording.

:func:`fields_of` takes one request apart into named fields, :func:`unaccounted` returns those that no row of
:data:`TABLE` covers. A new field has no row, and the test that records a whole demo fails. ``docs/what-leaves.md`` is
this table::

    PYTHONPATH=tests python -m support.what_leaves > docs/what-leaves.md
"""

from __future__ import annotations

import base64
import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from datasites.study.signing import unpack_envelope

_WIRE = ("host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it stood on the wire, before transport encryption."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Row:
    """Fields of one kind of request (patterns with ``*``) and why they may leave."""

    request: str
    fields: tuple[str, ...]
    covered_by: str


_PUBLIC = "public: names and hashes of the study, known before anybody reads a record"
_OWN = "public: the site's own identity and signature"
_SIGNED = ("signed.kind", "signed.public_key", "signed.signature", "signed.canonical")
_CHAINS = (
    "hash of the newest journal or ledger entry, in which patients stand under keyed hashes only; "
    "it confirms a guess of the whole entry"
)
_SYFT = "PySyft's own ciphertext; it contains job states and outputs of mock runs (docs/pysyft.md)"

TABLE: tuple[Row, ...] = (
    Row(request="*", fields=tuple(f"header.{name}" for name in _WIRE), covered_by="ordinary HTTP headers"),
    Row(
        request="*",
        fields=tuple(
            f"header.{name}"
            for name in ("tessera-protocol", "tessera-proposals", "tessera-release", "tessera-data-software")
        ),
        covered_by="public: versions and a hash of the installed software; no record has a part in them",
    ),
    Row(
        request="*",
        fields=(
            *(f"token.{name}" for name in ("caller", "audience", "method", "target", "body_hash", "nonce")),
            "token.issued_ms",
            "token.signature",
        ),
        covered_by="who asks whom for what, and when; updates leave at multiples of `round_seconds` only",
    ),
    Row(
        request="GET /work",
        fields=("query.wait", "query.known"),
        covered_by="how long to wait, and the hash of the orchestrator's last answer",
    ),
    Row(
        request="GET /work",
        fields=("query.seen",),
        covered_by="the head of the orchestrator's own journal, given back to it",
    ),
    Row(
        request="GET /invitations/*",
        fields=(),
        covered_by="sends no field; `tessera join` fetches the invitation that a code names, before there is a key",
    ),
    Row(
        request="POST /invitations/*",
        fields=(*_SIGNED, *(f"signed.payload.{n}" for n in ("number", "role", "name", "institution"))),
        covered_by="public: the site's own new identity and what its invitation says of it (`tessera join`)",
    ),
    Row(
        request="POST /invitations/*",
        fields=("signed.payload.certificate_request",),
        covered_by="the host names of the site's portal and its public TLS key (PKCS #10), for the consortium's "
        "authority; empty without `--portal-name`",
    ),
    Row(request="GET /heads", fields=(), covered_by="sends no field"),
    Row(request="GET /healthz", fields=(), covered_by="sends no field; asks whether the orchestrator can be reached"),
    Row(request="GET /roster", fields=(), covered_by="sends no field"),
    Row(request="GET /handovers", fields=(), covered_by="sends no field; asks for the orchestrator's own new key"),
    Row(
        request="POST /handovers",
        fields=(*_SIGNED, *(f"signed.payload.{name}" for name in ("name", "old_key", "new_key", "made", "taken"))),
        covered_by="public: the key of this party and its new one, each with a signature; `tessera datasite rotate`",
    ),
    Row(
        request="GET /studies",
        fields=("query.after", "query.limit"),
        covered_by="which page of the list of studies; `tessera status` and `rotate`",
    ),
    Row(
        request="GET /studies",
        fields=("header.if-none-match",),
        covered_by="the orchestrator's own tag of the list it sent, given back to it; `tessera status --watch`",
    ),
    Row(
        request="POST /head",
        fields=("json.seen", *(f"json.seen.{n}" for n in ("chain", "index", "hash", "public_key", "signature"))),
        covered_by="the head of the orchestrator's own journal, given back to it",
    ),
    Row(
        request="POST /head",
        fields=("json.trouble",),
        covered_by="a sentence from Tessera's own code: why this site does no work, with names of studies and rounds",
    ),
    Row(
        request="POST /evidence",
        fields=("json.proposal", "json.proposal.*", "json.plan", "json.plan.*"),
        covered_by="the orchestrator's own signed documents, given back to it after it was restored from a backup",
    ),
    Row(
        request="GET /blobs/*",
        fields=(),
        covered_by="sends no field; the hash in the address comes from the round plan",
    ),
    Row(
        request="GET /studies/*/rounds/*/evidence",
        fields=("query.files",),
        covered_by="the word `yes`: the round's files are wanted in the same answer",
    ),
    Row(request="GET /studies/*/rounds/*/integers", fields=(), covered_by="sends no field"),
    Row(request="GET /studies/*/rounds/*/opened/*", fields=(), covered_by="sends no field"),
    Row(
        request="PUT /studies/*/rounds/*/update",
        fields=(
            *_SIGNED,
            *(f"signed.payload.{n}" for n in ("study", "proposal_hash", "round", "plan_hash", "site")),
            *(f"signed.payload.blocks[].{n}" for n in ("name", "values", "ciphertexts")),
            "signed.payload.body_bytes",
        ),
        covered_by=_PUBLIC,
    ),
    Row(
        request="PUT /studies/*/rounds/*/update",
        fields=("body", "signed.payload.body_hash"),
        covered_by="the update: clipped and noised by DP-SGD, with all of the noise (local) or a share of it (shared). "
        "`mechanism.noise_multiplier` sets the noise; the ledger charges every round. Encrypted, so that only the sum "
        "can be decrypted. In round 1 of a centred study it carries the clipped sum of inputs instead of a gradient, "
        "under the same bound and noise (`models/losses.py`)",
    ),
    Row(
        request="PUT /studies/*/rounds/*/update",
        fields=("signed.payload.pad",),
        covered_by="a random seed, encrypted for the keyholder; without it nobody can decrypt the ciphertexts",
    ),
    Row(
        request="PUT /studies/*/rounds/*/update",
        fields=("signed.payload.helper_pads.*", "signed.payload.seed_hashes[]", "signed.payload.begun"),
        covered_by="random seeds, encrypted for one helper, hashes of random seeds, and the process's random word",
    ),
    Row(
        request="PUT /studies/*/rounds/*/update",
        fields=("signed.payload.releases.loss.*",),
        covered_by="clipped and noised sums of losses; `mechanism.losses` sets the noise; charged when they are sent",
    ),
    Row(
        request="PUT /studies/*/rounds/*/update",
        fields=("signed.payload.releases.score.*",),
        covered_by="noised histograms of scores; `mechanism.evaluation` sets the noise; charged when they are sent",
    ),
    Row(
        request="PUT /studies/*/rounds/*/update",
        fields=("signed.payload.releases.proximity.*",),
        covered_by="the angle between the site's last noised update and the others': computed only from what was sent "
        "and from public models (post-processing), under local noise only (`datasites/training/proximity.py`)",
    ),
    Row(
        request="PUT /studies/*/rounds/*/update",
        fields=("signed.payload.journal_head", "signed.payload.ledger_head"),
        covered_by=_CHAINS,
    ),
    Row(
        request="POST /studies/*/rounds/*/attestation",
        fields=(
            *_SIGNED,
            *(f"signed.payload.{n}" for n in ("study", "round", "plan_hash", "list_hash", "sum_hash", "site")),
            "signed.payload.earlier[]",
        ),
        covered_by=_PUBLIC,
    ),
    Row(
        request="POST /studies/*/rounds/*/attestation",
        fields=("signed.payload.tags[]",),
        covered_by="a linear function of ciphertexts that the site has sent already",
    ),
    Row(
        request="POST /studies/*/rounds/*/attestation",
        fields=("signed.payload.pad_tags.*", "signed.payload.pad_commitments"),
        covered_by="linear functions of random pads, each masked by a number of the same seed, and a hash of what "
        "keyholder and helpers committed to",
    ),
    Row(
        request="POST /studies/*/rounds/*/arrival",
        fields=(*_SIGNED, *(f"signed.payload.{name}" for name in ("study", "site", "begun"))),
        covered_by="a random word that says that this process was started anew",
    ),
    Row(
        request="POST /studies/*/rounds/*/refusal",
        fields=(*_SIGNED, *(f"signed.payload.{n}" for n in ("study", "round", "party", "reason", "without[]"))),
        covered_by="a sentence from Tessera's own code on plans, approvals and budgets, never the output of a worker; "
        "and the hospital's own name where it will send no update in this round",
    ),
    Row(
        request="POST /studies/*/approvals",
        fields=(
            *_SIGNED,
            *(f"signed.payload.{n}" for n in ("study", "proposal_hash", "site", "approved", "expires")),
            *(f"signed.payload.reviewers[].{n}" for n in ("reviewer", "role", "public_key", "signature", "conditions")),
            *(f"signed.payload.reviewers[].{n}" for n in ("full_name", "function")),
        ),
        covered_by="a person's decision: who approved what, under which conditions, and until when",
    ),
    Row(
        request="POST /studies/*/words",
        fields=(
            *_SIGNED,
            *(f"signed.payload.{n}" for n in ("study", "proposal_hash", "author", "number", "kind", "person", "at")),
            *(f"signed.payload.{n}" for n in ("text", "to", "answers", "titled")),
        ),
        covered_by="a person's decision in that person's own words, which the page asks to write without patient data",
    ),
    Row(request="GET /words", fields=(), covered_by="sends no field"),
    Row(
        request="GET /studies/*/words",
        fields=("query.since",),
        covered_by="how many words of the study's thread are known here",
    ),
    Row(
        request="GET /mailbox/news",
        fields=("query.since", "query.wait"),
        covered_by="how long to wait, and a counter of the mailbox",
    ),
    Row(
        request="* /mailbox/letter",
        fields=tuple(f"query.{n}" for n in ("owner", "box", "folder", "name")),
        covered_by="names of participants, of the dataset and of PySyft's files",
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=(*_SIGNED, *(f"signed.payload.place.{n}" for n in ("owner", "box", "folder", "name"))),
        covered_by=_OWN,
    ),
    Row(
        request="PUT /mailbox/letter", fields=("signed.payload.content_hash",), covered_by="hash of the mailbox message"
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=(
            "letter.version.*",
            "letter.bundle.*",
            "letter.own.peers.json.*",
            "letter.own.any.json*",
            "letter.request",
        ),
        covered_by="PySyft's version, public encryption keys, and requests to become a peer",
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=("letter.own.ciphertext", "letter.outbox.ciphertext"),
        covered_by=_SYFT,
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=("letter.collection.card.json.dataset.patients",),
        covered_by="the noised number of patients; charged once per dataset version",
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=("letter.collection.card.json.dataset.fingerprint",),
        covered_by="keyed hash (HMAC); the key stays at the site",
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=(
            "letter.collection.card.json.dataset.name",
            "letter.collection.card.json.dataset.version",
            "letter.collection.card.json.dataset.schema_hash",
            *(
                f"letter.collection.card.json.{n}"
                for n in (
                    "cohort",
                    "cohorts[]",
                    "modalities[]",
                    "features.*",
                    "task",
                    "classes",
                    "predicts.*",
                    "gains.*",
                    "self_scaled[]",
                    "data_use[]",
                )
            ),
        ),
        covered_by="public facts about the dataset version, written by its owner",
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=(
            *(
                f"letter.collection.schema.json.{n}"
                for n in (
                    "name",
                    "version",
                    "institution",
                    "cohort",
                    "cohorts[]",
                    "task",
                    "classes",
                    "modalities[]",
                    "predicts.*",
                    "gains.*",
                    "self_scaled[]",
                )
            ),
            *(f"letter.collection.schema.json.{n}" for n in ("features.*", "preprocessing.*", "source")),
        ),
        covered_by="the public schema: names and fixed constants, none of them computed from these records",
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=("letter.collection.*.parquet",),
        covered_by="mock rows, drawn from the schema alone",
    ),
    Row(
        request="PUT /mailbox/letter",
        fields=("letter.collection.dataset.yaml",),
        covered_by="PySyft's description of the dataset",
    ),
    Row(
        request="POST /mailbox/share",
        fields=("json.box", "json.folder", "json.readers[]"),
        covered_by="who may read the mock",
    ),
    Row(
        request="POST /mailbox/remove",
        fields=tuple(f"json.places[].{n}" for n in ("owner", "box", "folder", "name")),
        covered_by="names of the site's own mailbox messages",
    ),
)


def unaccounted(request: Request) -> list[str]:
    """Return the fields of a request that no row of the table covers, with the request in front."""
    here = f"{request.method} {urlsplit(request.target).path}"
    rows = [row for row in TABLE if fnmatch.fnmatchcase(here, row.request)]
    if not any(row.request != "*" for row in rows):
        return [f"{here}: the whole request"]
    patterns = [_pattern(field) for row in rows for field in row.fields]
    return [f"{here}: {name}" for name, _ in fields_of(request) if not any(p.fullmatch(name) for p in patterns)]


def fields_of(request: Request) -> Iterator[tuple[str, Any]]:
    """Yield every field of a request as (name, value); list places are written ``[]``."""
    for name, value in request.headers.items():
        if name.lower() == "authorization":
            yield from _token(value)
        else:
            yield f"header.{name.lower()}", value
    url = urlsplit(request.target)
    query = parse_qsl(url.query, keep_blank_values=True)
    yield from ((f"query.{name}", value) for name, value in query)
    if url.path == "/mailbox/letter" and request.body:
        yield from _letter(dict(query), request.body)
    elif url.path.endswith("/update"):
        signed, body = unpack_envelope(request.body)
        yield from _flat("signed", _plain(signed))
        yield "body", body
    elif request.body:
        value = json.loads(request.body)
        yield from _flat("signed" if isinstance(value, dict) and "signature" in value else "json", value)


def _letter(place: Mapping[str, str], data: bytes) -> Iterator[tuple[str, Any]]:
    signed, content = unpack_envelope(data)
    yield from _flat("signed", _plain(signed))
    box, name = place["box"], place["name"]
    where = f"letter.{box}.{name}" if box in ("own", "collection") else f"letter.{box}"
    if content.startswith(b"SYC2"):
        yield f"letter.{box}.ciphertext", content
    elif name.endswith(".json"):
        yield from _flat(where, json.loads(content))
    else:
        yield where, content


def _token(value: str) -> Iterator[tuple[str, Any]]:
    statement, _, signature = value.removeprefix("Tessera ").rpartition(".")
    yield from _flat("token", json.loads(base64.urlsafe_b64decode(statement)))
    yield "token.signature", signature


def _plain(signed: Any) -> dict[str, Any]:
    from datasites.study.signing import dump

    return dump(signed)


def _flat(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{where}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(f"{where}[]", inner)
    else:
        yield where, value


def _pattern(field: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in field.split("*")), re.DOTALL)


def as_markdown(table: Iterable[Row] = TABLE) -> str:
    """Return the table as ``docs/what-leaves.md`` shows it."""
    lines = [_HEAD, "| request | fields | why they may leave |", "|---|---|---|"]
    for row in table:
        names = ", ".join(f"`{name}`" for name in row.fields) or "none"
        lines.append(f"| `{row.request}` | {names} | {row.covered_by} |")
    return "\n".join(lines) + "\n" + _TAIL


_HEAD = """# What leaves a hospital

This table lists every field that a hospital sends and why it may leave. The page is generated; do not edit it:

    PYTHONPATH=tests python -m support.what_leaves > docs/what-leaves.md

A test records every byte that one hospital sends during a demo, splits it into fields and looks each of them up here.
The test fails if a field has no row. It also fails if a planted case id, a feature row or an exact number of patients
appears anywhere in the recording, also inside what PySyft encrypts.

How to read the columns:

* *request*: HTTP method and path. `*` stands for anything.
* *fields*: `header`, `token`, `query`, `json` and `body` are parts of the request. `signed` is a signed message.
  `letter` is the content of a mailbox message; these carry PySyft's files. `[]` marks the elements of a list.
* *why they may leave*: the protection or the reason. "Charged" means that the ledger books it.
"""

_TAIL = """
## What goes elsewhere than to the orchestrator

* Notices (`notices.toml`) go to the mail server and the webhooks that the hospital names itself. A notice has a kind, a
  subject, a text and a time. It names studies, hospitals, people of the portal and addresses of its pages. It holds no
  record and no number about records.
* The hospital's own sign-in (OpenID Connect) gets what its protocol needs: a random state, a nonce and a code.
* The portal answers the hospital's own people, in their browsers.

## What the timing reveals

* An update leaves at a whole multiple of the policy's `sandbox.round_seconds` after its work began. A worker that
  crashes or is slow shows only if it changes the number of these slots. If `round_seconds` is above `time_seconds` plus
  the time of one encryption, every worker takes one slot, even one that hangs until it is ended.
* If training fails, the site sends noise around zero instead of the update and of the released numbers. Two things can
  still give a failure away. A histogram whose bins sum to about zero shows it to those who may read the released
  numbers. Feature means that are too small show it to everybody with the model of a centred study. The second failure
  ends the study at the site, and others see this.
* Approvals, refusals and restarts happen when people and machines do them. They depend on no record.
"""


if __name__ == "__main__":
    print(as_markdown(), end="")
