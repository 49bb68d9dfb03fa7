"""Notices go out once, by mail and webhook, are tried again, and reach the delegate of who is away."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import AuthResult

from datasites.hospital.watch import Watch
from datasites.node.credentials.tls import ensure_authority, ensure_server_certificate
from datasites.node.notices.absences import Absences
from datasites.node.notices.delivery import SIGNATURE, Delivery
from datasites.node.notices.outbox import MOST_TRIES, Notice, Outbox
from datasites.node.notices.settings import FILE, KINDS, NoticeSettings
from datasites.node.process import bind
from datasites.review.budgets import Budget
from orchestrator.rounds.notices import ScientistsNotices
from privacy.errors import InvalidInput
from privacy.identity import Identity
from privacy.ledger.journal import Journal

NOW = dt.datetime(2026, 3, 2, 12, 0, tzinfo=dt.UTC)
NOTICE = Notice(key="request:1", kind="new-request", subject="[alba] New request: lung", body="University asks.")


class Mails(Message):
    def __init__(self) -> None:
        super().__init__()
        self.got: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.got.append(message)


@pytest.fixture
def mails() -> Iterator[tuple[Mails, int]]:
    handler = Mails()
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Any]:
    """A mail server that takes mail only over STARTTLS, from who signs in; with its certificate authority's file."""
    authority = ensure_authority(tmp_path / "mail", name="mail")
    certificate = ensure_server_certificate(authority, tmp_path / "mail", names=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    asked: list[tuple[bytes, bytes]] = []

    def check(_: Any, __: Any, ___: Any, ____: Any, given: Any) -> AuthResult:
        asked.append((given.login, given.password))
        return AuthResult(success=asked[-1] == (b"tessera", b"quiet"))

    handler, listener = Mails(), bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    controller = Controller(
        handler,
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=check,
    )
    controller.start()
    yield SimpleNamespace(mails=handler, port=port, asked=asked, ca=authority.certificate_path)
    controller.stop()


@pytest.fixture
def hook() -> Iterator[tuple[list[tuple[bytes, str]], list[int], str]]:
    got, answers = list[tuple[bytes, str]](), [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((body, self.headers.get(SIGNATURE, "")))
            self.send_response(answers[0] if len(answers) == 1 else answers.pop(0))
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield got, answers, f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    server.server_close()
    thread.join()


def settings(tmp_path: Path, text: str) -> NoticeSettings:
    (tmp_path / FILE).write_text(text)
    return NoticeSettings.load(tmp_path)


def smtp(port: int) -> str:
    return f'[smtp]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\nsender = "tessera@alba.example"\n'


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "notices.sqlite")
    yield made
    made.close()


def test_a_mail_goes_out_once_and_to_those_who_want_its_kind(tmp_path: Path, mails: Any, outbox: Outbox) -> None:
    handler, port = mails
    people = (
        '[[people]]\nname = "anna"\nemail = "anna@alba.example"\n'
        '[[people]]\nname = "bela"\nemail = "bela@alba.example"\nkinds = ["budget-mark"]\n'
    )
    chosen = settings(tmp_path, smtp(port) + people)
    assert outbox.add(NOTICE, chosen, NOW) == 1
    assert outbox.add(NOTICE, chosen, NOW) == 0
    delivery = Delivery(chosen, outbox, lambda *_: None)
    assert delivery.step(NOW) == 1
    assert delivery.step(NOW + dt.timedelta(days=1)) == 0
    (mail,) = handler.got
    assert (mail["To"], mail["Subject"]) == ("anna@alba.example", "[alba] New request: lung")
    assert mail.get_payload().strip() == "University asks."


def secure(tmp_path: Path, port: int, *, ca: str = "", password: str = "quiet") -> NoticeSettings:
    (tmp_path / "password").write_text(f"{password}\n")
    return settings(
        tmp_path,
        f'[smtp]\nhost = "127.0.0.1"\nport = {port}\nsender = "tessera@alba.example"\nuser = "tessera"\n'
        f'password_file = "{tmp_path / "password"}"\nca = "{ca}"\n'
        '[[people]]\nname = "anna"\nemail = "anna@alba.example"\n',
    )


def test_mail_goes_out_over_starttls_with_the_password(tmp_path: Path, guarded: Any, outbox: Outbox) -> None:
    chosen = secure(tmp_path, guarded.port, ca=guarded.ca)
    outbox.add(NOTICE, chosen, NOW)
    assert Delivery(chosen, outbox, lambda *_: None).step(NOW) == 1
    assert guarded.asked == [(b"tessera", b"quiet")]
    assert guarded.mails.got[0]["Subject"] == NOTICE.subject


@pytest.mark.parametrize("wrong", ["authority", "password", "no-tls"])
def test_no_password_and_no_mail_leave_where_the_server_cannot_be_trusted_and_it_is_tried_again(
    tmp_path: Path, guarded: Any, mails: Any, outbox: Outbox, wrong: str
) -> None:
    chosen = {
        "authority": lambda: secure(tmp_path, guarded.port),  # this machine does not know the hospital's authority
        "password": lambda: secure(tmp_path, guarded.port, ca=guarded.ca, password="loud"),
        "no-tls": lambda: secure(tmp_path, mails[1], ca=guarded.ca),  # offers no STARTTLS
    }[wrong]()
    outbox.add(NOTICE, chosen, NOW)
    assert Delivery(chosen, outbox, lambda *_: None).step(NOW) == 0
    assert guarded.asked == ([(b"tessera", b"loud")] if wrong == "password" else [])
    assert guarded.mails.got == mails[0].got == []
    later = NOW + dt.timedelta(seconds=61)
    right = secure(tmp_path, guarded.port, ca=guarded.ca)
    assert Delivery(right, outbox, lambda *_: None).step(later) == 1


def test_who_says_in_the_portal_to_be_away_is_stood_in_for_until_they_are_back(
    tmp_path: Path, mails: Any, outbox: Outbox
) -> None:
    people = (
        '[[people]]\nname = "anna"\nemail = "anna@alba.example"\n'
        '[[people]]\nname = "bela"\nemail = "bela@alba.example"\nkinds = []\n'
    )
    settings(tmp_path, smtp(mails[1]) + people)
    absences = Absences(tmp_path)
    absences.say("anna", until="2026-03-05", delegate="bela", today=NOW.date())
    assert outbox.add(NOTICE, absences.settings(), NOW) == 2
    after = Notice(key="request:2", kind="new-request", subject="x", body="y")
    assert outbox.add(after, absences.settings(), NOW + dt.timedelta(days=4)) == 1
    absences.close()
    absences = Absences(tmp_path)
    assert absences.end("anna") and not absences.end("anna")
    assert outbox.add(Notice(key="3", kind="new-request", subject="x", body="y"), absences.settings(), NOW) == 1
    for until, delegate, message in (
        ("2026-03-01", "bela", "from 2026-03-02 on"),
        ("2027-03-09", "bela", "at most 366 days"),
        ("soon", "bela", "a day such as"),
        ("2026-03-05", "anna", "a delegate out of bela"),
        ("2026-03-05", "carla", "a delegate out of bela"),
    ):
        with pytest.raises(InvalidInput, match=message):
            absences.say("anna", until=until, delegate=delegate, today=NOW.date())
    with pytest.raises(InvalidInput, match=r"notices\.toml"):
        absences.say("otto", until="2026-03-05", delegate="bela", today=NOW.date())
    absences.close()


def test_a_delegate_gets_what_is_for_somebody_who_is_away(tmp_path: Path, mails: Any, outbox: Outbox) -> None:
    handler, port = mails
    people = (
        '[[people]]\nname = "anna"\nemail = "anna@alba.example"\naway_until = "2026-03-05"\ndelegate = "bela"\n'
        '[[people]]\nname = "bela"\nemail = "bela@alba.example"\nkinds = []\n'
    )
    chosen = settings(tmp_path, smtp(port) + people)
    outbox.add(NOTICE, chosen, NOW)
    Delivery(chosen, outbox, lambda *_: None).step(NOW)
    assert [m["To"] for m in handler.got] == ["anna@alba.example", "bela@alba.example"]
    assert "For anna, who is away until 2026-03-05." in handler.got[1].get_payload()
    later = Notice(key="request:2", kind="new-request", subject="x", body="y")
    assert outbox.add(later, chosen, NOW + dt.timedelta(days=4)) == 1


def test_a_webhook_is_signed_and_tried_again_until_it_answers(tmp_path: Path, hook: Any, outbox: Outbox) -> None:
    got, answers, url = hook
    answers[:] = [500, 503, 200]
    (tmp_path / "secret").write_text("quiet\n")
    chosen = settings(tmp_path, f'[[webhooks]]\nurl = "{url}"\nsecret_file = "{tmp_path / "secret"}"\n')
    outbox.add(NOTICE, chosen, NOW)
    delivery = Delivery(chosen, outbox, lambda *_: None)
    assert delivery.step(NOW) == 0
    assert delivery.step(NOW + dt.timedelta(seconds=30)) == 0
    assert len(got) == 1  # the first wait is a minute
    assert delivery.step(NOW + dt.timedelta(seconds=61)) == 0
    assert delivery.step(NOW + dt.timedelta(seconds=182)) == 1
    body, signature = got[-1]
    assert json.loads(body)["subject"] == NOTICE.subject
    assert hmac.compare_digest(signature, hmac.new(b"quiet", body, hashlib.sha256).hexdigest())
    assert len(got) == 3


def test_what_never_goes_out_is_given_up_and_journaled_without_its_address(tmp_path: Path, outbox: Outbox) -> None:
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()  # nobody listens there
    chosen = settings(tmp_path, smtp(port) + '[[people]]\nname = "anna"\nemail = "anna@alba.example"\n')
    outbox.add(NOTICE, chosen, NOW)
    journal: list[tuple[str, dict[str, Any]]] = []
    delivery = Delivery(chosen, outbox, lambda kind, body: journal.append((kind, body)))
    for day in range(MOST_TRIES + 3):
        assert delivery.step(NOW + dt.timedelta(days=day)) == 0
    assert [kind for kind, _ in journal] == ["notice-given-up"]
    assert "anna" not in json.dumps(journal)


def test_a_queued_notice_outlives_a_restart(tmp_path: Path, hook: Any) -> None:
    got, _, url = hook
    chosen = settings(tmp_path, f'[[webhooks]]\nurl = "{url}"\n')
    first = Outbox(tmp_path / "box.sqlite")
    first.add(NOTICE, chosen, NOW)
    first.close()
    second = Outbox(tmp_path / "box.sqlite")
    assert Delivery(chosen, second, lambda *_: None).step(NOW) == 1
    second.close()
    assert len(got) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('colour = "red"', "colour"),
        ('[[people]]\nname = "anna"\nemail = "anna@alba.example"', "set \\[smtp\\]"),
        (smtp(25) + '[[people]]\nname = "anna"\nemail = "not an address"', "email"),
        (smtp(25) + '[[people]]\nname = "anna"\nemail = "a@b.c"\ndelegate = "carla"', "delegate"),
        (smtp(25) + 'user = "u"', "without TLS"),
        ('[[webhooks]]\nurl = "ftp://x"', "url"),
        ("budget_marks = [2.0]", "budget_marks"),
        ("[smtp", "could not read"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        settings(tmp_path, text)


def test_a_hospital_tells_of_every_kind_once(tmp_path: Path, new_desk: Any, new_proposal: Any, hook: Any) -> None:
    got, _, url = hook
    desk = new_desk("[review]\nrequired_reviewers = 2")
    chosen = settings(tmp_path, f'reminder_days = 3\n[[webhooks]]\nurl = "{url}"\n')
    outbox = Outbox(tmp_path / "hospital.sqlite")
    budget = Budget(population="lung", datasets=("alba-lung",), cap=10.0, delta=1e-5, spent=8.1, reserved=9.0)
    watch = Watch(
        site="alba",
        url="https://portal.alba.example/",
        approvals=desk.store,
        journal=desk.journal,
        budgets=lambda: (budget,),
        settings=chosen,
        outbox=outbox,
    )
    received = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
    hashed = desk.submit(new_proposal())
    assert watch.look(received) == 3  # the request and two marks of the budget
    assert watch.look(received) == 0
    desk.approve(hashed)
    desk.journal.append("worker-failed", {"study": "lung-staging", "round": 2})
    desk.journal.append("round-refused", {"proposal_hash": hashed, "reason": "the approval expired"})
    assert watch.look(received) == 3
    assert watch.look(received + dt.timedelta(days=3)) == 1
    assert watch.look(received + dt.timedelta(days=4)) == 0
    desk.store.deny(hashed, reviewer=desk.accounts.account("bela"), reason="Not with us.", now=received)
    assert watch.look(received + dt.timedelta(days=9)) == 0  # what was decided here is no news here
    Delivery(chosen, outbox, lambda *_: None).step(received + dt.timedelta(days=9))
    outbox.close()
    told = [json.loads(body) for body, _ in got]
    assert {t["kind"] for t in told} == set(KINDS) - {"decision"}
    assert all("https://portal.alba.example/" in t["text"] for t in told)


def test_scientists_hear_of_decisions_and_pauses(tmp_path: Path, hook: Any) -> None:
    got, _, url = hook
    settings(tmp_path, f'[[webhooks]]\nurl = "{url}"\n')
    journal = Journal(tmp_path / "journal.sqlite", Identity.generate(), clock=lambda: NOW)
    notices = ScientistsNotices(tmp_path, journal, name="dr-lang")
    word = {
        "study": "lung",
        "proposal_hash": "0" * 64,
        "author": "alba",
        "number": 1,
        "kind": "denied",
        "person": "anna",
        "text": "The consent does not cover it.",
        "at": NOW.isoformat(),
        "to": "",
        "answers": "",
    }
    journal.append("word", {"place": 1, **word})
    journal.append("word", {"place": 2, **word, "author": "dr-lang", "kind": "cancelled"})
    journal.append("study-paused", {"study": "lung", "reason": "too few sites"})
    notices.step(NOW)
    notices.step(NOW)
    notices.outbox.close()
    journal.close()
    told = [(json.loads(body)["kind"], json.loads(body)["text"]) for body, _ in got]
    assert told == [
        ("decision", "alba denied: “The consent does not cover it.”"),
        ("refused-round", "too few sites"),
    ]
