"""No page shows a sentence that a catalogue could not translate: each is asked for in a made-up, bracketed language."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace

import pytest
from starlette.testclient import TestClient
from support.pseudo_language import made_up, texts_in, unmarked
from support.review_desk import NOW, PASSWORD, identity, make_proposal

from datasites.data.glance import Glance, Preview, Terms, Variables
from datasites.data.missing import Changes, Missing, Whole
from datasites.node.notices.absences import Absences
from datasites.node.notices.settings import FILE
from datasites.node.web.languages import COOKIE
from datasites.portal.app import create_portal
from datasites.portal.shown.journal_words import HAPPENED
from datasites.review.budgets import Budget, BudgetDetails, Reserved, Returned, StudyStatus
from datasites.review.people.acts import PersonAct, people_acts
from datasites.review.plain_jobs import PlainJobs
from datasites.review.policy_file import CHANGED
from datasites.study.filing import Filing, Recipient
from datasites.study.signing import dump, seal
from datasites.study.thread import WORD, Word
from privacy.canonical import sha256_hex
from privacy.dp import two_hospitals
from privacy.dp.mechanism import Mechanism
from privacy.identity import fingerprint
from privacy.ledger.costs import ZERO
from privacy.ledger.views import Point, Room, Spend
from privacy.sentences import say

__all__ = ["made_up"]
CODE = {"plan.toml": b"architecture = 'linear'\n"}
PYTHON = {"plan.py": b"import socket\nimport os\neval('1')\nprint(2)\nx.mean(0)\n"}
DATA = {
    "Hospital Alba", "Hospital Bruna", "Hospital Corva", "Notary office", "University", "alba", "bruna", "corva",
    "notary", "dr-lang", "anna", "bela", "otto",
    "lung", "alba-lung", "lung-staging", "seccomp", "landlock", "English",
    "Deutsch", "Français", "float32", "mrna", "LUSC", "plan.toml", "plan.py", "privacy-report.pdf", "policy.toml",
    "hub-1", "hub-2", "Hub One", "Hub Two", "ab-job", "Zq", "testclient", "socket", "os",
    "mean", "no state", "Privacy report", "CH", "DE",
}  # fmt: skip
FILING = Filing(
    principal_investigator="Zq",
    institution="Zq",
    contact="Zq@Zq.Zq",
    sponsor="Zq",
    controller="Zq",
    ethics_vote="",
    no_ethics_vote="Zq",
    consent_basis="Zq",
    dpia="Zq",
    data_use=("DUO:0000007 Zq",),
    recipients=(Recipient(name="Zq", country="DE"),),
)
GLANCE = Glance(
    name="Zq",
    version=1,
    cohort="LUSC",
    task="early-late",
    classes=2,
    patients=190,
    source="Zq",
    variables=(Variables(modality="mrna", count=3, names=("Zq",)),),
    preprocessing={"mrna": "Zq"},
    terms=Terms(data_use=("DUO:0000007 Zqq", "DUO:0000021", "DUO:0000022 CH", "DUO:0000025 1", "DUO:0000012 Zq")),
    previews=(Preview(name="Zq", columns=("Zq",), rows=(("1",),)),),
    missing=Whole(
        modalities=(
            Missing(modality="mrna", patients=9, of=10, variables=(("Zq", 1), *((f"{n}", n) for n in range(20)))),
            Missing(modality="mrna", patients=1000, of=1000, variables=(("Zq", 1),)),
            Missing(modality="mrna", patients=9, of=10, variables=(("Zq", 0),)),
            Missing(modality="mrna", patients=9, of=10),
            Missing(modality="mrna", patients=0, of=10),
        ),
        changes=Changes(since=1, added=1, changed=2, withdrawn=3, same=4),
    ),
)


ACTS = {f"{what}-act-{step}" for what in ("people", "budget") for step in ("asked", "done", "dropped")}
"""Kinds whose entries are read again."""


class Reader:
    """Looks at pages in the made-up language and collects what is not in brackets."""

    def __init__(self, context, code: str) -> None:
        self.client = TestClient(create_portal(context), headers={"accept": "text/html"}, base_url="https://portal")
        self.client.cookies.set(COOKIE, code)
        self.found: dict[str, list[str]] = {}
        self.data = set(DATA) | {f"{context.public_key[:12]}"}
        self.csrf = ""

    def sign_in(self, name: str = "anna") -> None:
        page = self.client.post("/login", data={"name": name, "password": PASSWORD})
        self.csrf = re.search(r'name="csrf" value="([^"]+)"', page.text).group(1)

    def check(self) -> None:
        found = sorted({text for texts in self.found.values() for text in texts})
        if found:
            pytest.fail("\n".join(found))

    def look(self, path: str, *, data=(), post: dict[str, str] | None = None, status: int | None = None) -> str:
        sent = {"csrf": self.csrf, **(post or {})}
        answer = self.client.get(path) if post is None else self.client.post(path, data=sent)
        assert status in (None, answer.status_code), (path, answer.status_code)
        found = list(unmarked(answer.text, self.data | set(data)))
        if found:
            self.found[f"{path[:40]} {post or ''}"] = found
        return answer.text


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Epsilons are computed elsewhere; here any number will do."""
    monkeypatch.setattr(two_hospitals, "epsilon_at_two_hospitals", lambda _mechanism, _delta, **_rounds: 4.0)
    monkeypatch.setattr(Mechanism, "epsilon", lambda mechanism, *_args, **_rounds: float(mechanism.rounds))


STRICT = """
[study]
maximum_rounds = 3
minimum_sites = 4
minimum_patients = 9999
plan_authors = ["Zq"]
[noise]
minimum_multiplier = 99
modes = ["shared"]
"""


def test_requests_of_every_kind(made_up, new_desk, new_context) -> None:
    desk = new_desk(STRICT)
    reader = Reader(replace(new_context(desk, after=12.0), glance=lambda _: GLANCE), made_up)
    base = make_proposal()
    kinds = {
        "python": make_proposal(code=PYTHON, kind="python", nonce="2" * 32, filing=FILING),
        "shared": make_proposal(noise="shared", nonce="3" * 32, min_sites=3),
        "seeded": make_proposal(seed=7, nonce="4" * 32, task="ordinal"),
        "centred": make_proposal(model=replace(base.model, centred=True), nonce="5" * 32, task="I-II"),
        "one-round": make_proposal(rounds=1, mechanism=replace(base.mechanism, rounds=1), nonce="6" * 32),
        "open": make_proposal(mechanism=replace(base.mechanism, noise_multiplier=0.0), nonce="9" * 32),
    }
    reader.sign_in()
    for name, proposal in kinds.items():
        hashed = desk.submit(proposal, PYTHON if name == "python" else CODE)
        reader.data |= set(texts_in(dump(proposal)))
        reader.look(f"/requests/{hashed}", status=200)
        forms = (
            ("approve", {"password": "wrong"}),
            ("approve", {"password": PASSWORD}),
            ("deny", {"reason": "x"}),
            ("ask", {}),
            ("revoke", {"reason": "Zq Zq"}),
            ("dry-run", {}),
        )
        for path, form in forms if name == "python" else ():
            reader.look(f"/requests/{hashed}/{path}", post=form)
    reader.look("/inbox")
    reader.check()


def test_requests_that_were_talked_about_and_decided(made_up, new_desk, new_context) -> None:
    desk = new_desk("[review]\nrequired_reviewers = 2")
    reader = Reader(new_context(desk), made_up)
    first, second = make_proposal(nonce="1" * 32), make_proposal(nonce="2" * 32, rounds=7, noise="shared")
    hashes = [desk.submit(proposal) for proposal in (first, second)]
    reader.data |= {text for p in (first, second) for text in texts_in(dump(p))}
    reader.sign_in()
    words = ("asked", "answered", "paused", "resumed", "finished", "deleted", "conditions", "approved", "returned")
    for place, kind in enumerate(words, start=1):
        hear(desk, second, kind, place)
    for name, hashed in (("anna", hashes[0]), ("bela", hashes[0]), ("bela", hashes[0]), ("otto", hashes[1])):
        reader.sign_in(name)
        reader.look(f"/requests/{hashed}/approve", post={"password": PASSWORD, "conditions": "Zq Zq"})
        reader.look(f"/requests/{hashed}")
    reader.sign_in("bela")
    reader.look(f"/requests/{hashes[0]}/revoke", post={"reason": "Zq Zq"})
    reader.look(f"/requests/{hashes[1]}/ask", post={"reason": "Zq Zq"})
    reader.look(f"/requests/{hashes[1]}/deny", post={"reason": "Zq Zq"})
    reader.look(f"/requests/{hashes[1]}/deny", post={"reason": "Zq Zq"})
    for path in ("/inbox", "/journal?verify=1", "/journal?q=Zq", "/fingerprints"):
        reader.look(path)
    reader.check()


def test_two_people_security_keys_and_absences(made_up, tmp_path, new_desk, new_context) -> None:
    (tmp_path / FILE).write_text(
        '[smtp]\nhost = "127.0.0.1"\nsender = "Zq@Zq.Zq"\n[[people]]\nname = "anna"\nemail = "Zq@Zq.Zq"\n'
        '[[people]]\nname = "bela"\nemail = "Zq@Zq.Zq"\n'
    )
    desk = new_desk('[people]\nrequired_people = 2\nsecurity_key = "required"')
    people = people_acts(desk.journal)
    desk.accounts.vouch("bela", desk.accounts.account("anna"))
    for person in ("anna", "bela"):
        target = {"target": "1" * 64, "name": "Zq", "institution": "Zq"}
        for act in (PersonAct(kind="close-account", target="otto"), PersonAct(kind="fingerprint", **target)):
            people.add(act, person=desk.accounts.account(person), reason="Zq Zq", now=NOW)
    people.add(
        PersonAct(kind="invite", target="steward"), person=desk.accounts.account("bela"), reason="Zq Zq", now=NOW
    )
    absences = Absences(tmp_path)
    reader = Reader(replace(new_context(desk), absences=absences), made_up)
    reader.data |= {fingerprint("1" * 64), "notices.toml", "smtp.host"}
    reader.sign_in()
    with closing(absences):
        for path, form in (
            ("/away", {"until": "2026-03-20", "delegate": "bela"}),
            ("/away", {"until": "Zq", "delegate": "bela"}),
            ("/away", {"until": "2020-03-20", "delegate": "bela"}),
            ("/away", {"until": "2026-03-20", "delegate": "Zq"}),
            ("/people", {"role": "auditor", "password": PASSWORD}),
            ("/people/close", {"name": "bela", "password": PASSWORD}),
            ("/people/keys", {"label": "Zq", "password": PASSWORD, "made": "Zq"}),
            ("/people/keys/remove", {"key": "Zq", "password": PASSWORD}),
            (f"/acts/{'0' * 16}/confirm", {"reason": "Zq Zq", "password": PASSWORD}),
            (f"/acts/{'0' * 16}/decline", {"reason": "Zq Zq", "password": PASSWORD}),
        ):
            reader.look(path, post=form)
        for path in ("/away", "/inbox", "/people", "/policy", "/journal"):
            reader.look(path, status=200)
        (tmp_path / FILE).write_text("[smtp]\nport = 0\n")
        reader.look("/away", status=200)
    for act in people.waiting(now=NOW):
        reader.look(f"/acts/{act.key}/decline", post={"reason": "Zq Zq", "password": PASSWORD})
    reader.check()


def hear(desk, proposal, kind: str, place: int) -> None:
    """Let the site hear one word of the orchestrator, or of another hospital."""
    ours = kind in ("approved", "conditions", "asked", "returned")
    author, signer = ("bruna", "bruna") if ours else ("dr-lang", "orchestrator")
    word = Word(
        study=proposal.study,
        proposal_hash=proposal.proposal_hash,
        author=author,
        number=place,
        kind=kind,
        person="Zq",
        text="Zq Zq",
        at=NOW.isoformat(),
        to="alba" if kind == "answered" else "",
    )
    desk.store.thread.hear(proposal.proposal_hash, seal(identity(signer), WORD, word), place, now=NOW)


def test_the_pages_beside_requests(made_up, tmp_path, new_desk, new_context, monkeypatch) -> None:
    desk = new_desk("[review]\nauto_approve_reruns = true\nrequired_roles = ['steward']")
    jobs = PlainJobs(tmp_path / "jobs", record=desk.journal.append)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "plan.py").write_bytes(PYTHON["plan.py"])
    for name in ("Zq", "ab-job"):
        jobs.receive(name, "dr-lang", tmp_path / "job", {"plan.py": sha256_hex(PYTHON["plan.py"])}, now=NOW)
    studies = tuple(
        StudyStatus(
            study="Zq", proposal_hash="a" * 64, state=state, rounds_done=1, rounds=5, epsilon_spent=1.0, delta=1e-5
        )
        for state in ("waiting", "running", "finished", "stopped", "unused")
    )
    budget = Budget(population="lung", datasets=("alba-lung",), cap=10.0, delta=1e-5, spent=1.0, reserved=4.0)
    details = BudgetDetails(
        population="lung",
        closed=False,
        room=(Room(epsilon=1.0, studies=3), Room(epsilon=2.0, studies=1)),
        reserved=(Reserved(study="Zq", proposal_hash="b" * 64, rounds=3, epsilon=1.0),),
        returned=tuple(
            Returned(at=NOW.isoformat(), study="Zq", rounds=(2,), by="datasite", reason=reason)
            for reason in (
                "the request is denied here by anna: Zq",
                "the approval expired at 2026-01-01",
                "the worker failed in rounds 1, 2: the study has ended here",
                "the study is finished: its last round was told",
                "version 2 of alba-lung has replaced version 1, which was approved",
            )
        ),
    )
    change = {"key": "budget.epsilon_cap", "before": "none", "after": "8"}
    desk.journal.append(
        CHANGED, {"policy_hash": "1", "by": "policy file", "reason": "policy.toml was changed", "changes": [change]}
    )
    for kind in sorted(set(HAPPENED) - {CHANGED} - ACTS):
        desk.journal.append(kind, {"reason": "Zq"})
    spend = Spend(cost=ZERO, epsilon=1.0, delta=1e-5, share=0.1)
    facts = {"index": 1, "at": NOW.isoformat(), "kind": "cap", "event": say("cap set"), "study": None, "cap": None}
    point = Point(**facts, spent=spend, committed=spend)
    context = replace(
        new_context(desk),
        jobs=jobs,
        studies=lambda: studies,
        budgets=lambda: (budget,),
        history=lambda: {"lung": (point, point)},
        budget_details=lambda: {"lung": details},
        policy_problem=lambda: say("the policy is not valid: {why}", why="Zq"),
        error=lambda: say("expected a policy in TOML at {name}, and could not read it", name="policy.toml"),
    )
    reader = Reader(context, made_up)
    for path in ("/login", "/welcome?token=x", "/nothing", "/language?to=zz"):
        reader.look(path)
    reader.look("/welcome", post={"token": "x", "name": "Zq", "password": "short"})
    reader.look("/login", post={"name": "anna", "password": "wrong"})
    reader.sign_in()
    token = desk.accounts.invite("auditor", now=NOW, by="anna")
    for path in (
        "/inbox", "/jobs", "/studies", "/budget", "/journal", "/journal?page=1", "/reports", "/fingerprints", "/policy",
        "/people", "/requests/" + "0" * 64, "/requests/zz", "/reports/none.pdf", "/people/close", "/journal?page=x",
        "/journal?page=-1", "/journal?q=" + "x" * 99, f"/welcome?token={token}", "/welcome", "/login/hospital",
    ):  # fmt: skip
        reader.look(path)
    job = jobs.waiting()[0].job_id
    for path, form in (
        (f"/jobs/{job}", {"decision": "approved", "password": PASSWORD}),
        (f"/jobs/{job}", {"decision": "rejected", "password": PASSWORD}),
        (f"/jobs/{job}", {"decision": "maybe", "password": PASSWORD}),
        ("/fingerprints", {"public_key": "1" * 64, "password": PASSWORD}),
        ("/people", {"role": "auditor", "password": PASSWORD}),
        ("/people", {"role": "king", "password": PASSWORD}),
        ("/people/close", {"name": "Zq", "password": PASSWORD}),
        ("/people/password", {"password": PASSWORD, "new": "short"}),
        ("/people/end", {"key": "none"}),
        ("/budget/cap", {"epsilon": "x", "password": PASSWORD, "reason": "Zq Zq"}),
        ("/reports", {}),
        ("/people/close", {"name": "otto", "password": PASSWORD}),
    ):
        reader.look(path, post=form)
    reader.csrf = "stale"
    reader.look("/people/end", post={"key": "none"})
    reader.sign_in("bela")
    for path in ("/people", "/jobs"):
        reader.look(path)
    reader.check()
