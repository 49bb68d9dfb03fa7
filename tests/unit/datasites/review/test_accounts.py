"""Accounts: one-time links, passwords that unlock the person's own key, rate limits, sessions and tokens."""

import datetime as dt
import unicodedata

import pytest

from datasites.review.people.attempts import ATTEMPTS_FROM_ANYWHERE
from privacy.errors import InvalidInput, Refused
from privacy.identity import verify

PASSWORD = "correct horse battery staple"


def test_a_one_time_link_works_once(desk, now):
    link = desk.accounts.invite("steward", now=now)
    desk.accounts.register(link, "carla", PASSWORD, now=now)
    with pytest.raises(Refused, match="one-time link"):
        desk.accounts.register(link, "dora", PASSWORD, now=now)


def test_a_one_time_link_expires(desk, now):
    link = desk.accounts.invite("steward", now=now)
    with pytest.raises(Refused, match="expired"):
        desk.accounts.register(link, "carla", PASSWORD, now=now + dt.timedelta(days=4))


@pytest.mark.parametrize(("name", "password"), [("anna", PASSWORD), ("Anna B", PASSWORD), ("carla", "short")])
def test_a_taken_or_malformed_name_and_a_short_password_leave_the_link_usable(desk, now, name, password):
    link = desk.accounts.invite("steward", now=now)
    with pytest.raises(InvalidInput):
        desk.accounts.register(link, name, password, now=now)
    desk.accounts.register(link, "carla", PASSWORD, now=now)


def test_only_the_persons_password_opens_their_key(desk):
    key = desk.accounts.unlock("anna", PASSWORD)
    verify(desk.accounts.account("anna").public_key, "review", {"a": 1}, key.sign("review", {"a": 1}))
    with pytest.raises(Refused):
        desk.accounts.unlock("anna", "another pass phrase")


def test_the_file_holds_neither_the_password_nor_the_key(desk):
    desk.accounts.unlock("anna", PASSWORD)
    files = list(desk.folder.glob("accounts.sqlite*"))
    assert files
    assert all(PASSWORD.encode() not in f.read_bytes() for f in files)


def test_wrong_passwords_are_rate_limited_and_time_heals(desk, now):
    for _ in range(6):
        with pytest.raises(Refused, match="do not go together"):
            desk.accounts.authenticate("anna", "wrong pass phrase", now=now)
    with pytest.raises(Refused, match="too many attempts"):
        desk.accounts.authenticate("anna", PASSWORD, now=now)
    desk.accounts.authenticate("anna", PASSWORD, now=now + dt.timedelta(minutes=6))


def test_an_unknown_name_reads_like_a_wrong_password(desk, now):
    with pytest.raises(Refused, match="do not go together"):
        desk.accounts.authenticate("nobody", PASSWORD, now=now)


def test_a_session_ends_by_time_and_by_signing_out(desk, now):
    anna = desk.accounts.account("anna")
    secret, _ = desk.accounts.open_session(anna, now=now)
    assert desk.accounts.credential(secret, now=now).account == anna
    assert desk.accounts.credential(secret, now=now + dt.timedelta(hours=9)) is None
    desk.accounts.end(secret)
    assert desk.accounts.credential(secret, now=now) is None


def test_a_closed_account_opens_nothing_and_signs_nothing(desk, now):
    accounts = desk.accounts
    bela = accounts.account("bela")
    session, _ = accounts.open_session(bela, now=now)
    accounts.link("bela", "https://login.example", "17", now=now)
    accounts.retire("bela")
    assert accounts.credential(session, now=now) is None and accounts.linked("https://login.example", "17") is None
    for action in (lambda: accounts.authenticate("bela", PASSWORD, now=now), lambda: accounts.unlock("bela", PASSWORD)):
        with pytest.raises(Refused, match=r"do not go together|not your password"):
            action()
    assert accounts.retired() == {"bela"} and accounts.account("bela").public_key == bela.public_key
    with pytest.raises(InvalidInput, match="taken"):
        accounts.register(accounts.invite("steward", now=now), "bela", PASSWORD, now=now)
    with pytest.raises(Refused, match="last steward"):
        accounts.retire("anna")


def test_an_auditor_gets_no_token_that_decides(desk, now):
    otto = desk.accounts.account("otto")
    with pytest.raises(Refused, match="auditor"):
        desk.accounts.issue_token(otto, scopes=("review",), label="x", days=1, now=now)
    secret, granted = desk.accounts.issue_token(otto, scopes=("read",), label="x", days=1, now=now)
    assert granted.scopes == ("read",)
    assert desk.accounts.credential(secret, now=now + dt.timedelta(days=2)) is None


def test_one_password_in_every_form_of_unicode(desk, now):
    composed, decomposed = "caf\u00e9 au lait, s'il vous plait", "cafe\u0301 au lait, s'il vous plait"
    desk.accounts.register(desk.accounts.invite("steward", now=now), "carla", decomposed, now=now)
    for typed in (composed, decomposed):
        assert desk.accounts.authenticate("carla", typed, now=now).name == "carla"
        assert desk.accounts.unlock("carla", typed).public_key == desk.accounts.account("carla").public_key
    with pytest.raises(InvalidInput, match="password"):
        desk.accounts.change_password("carla", composed, "a bell \x07 in the middle")
    desk.accounts.change_password("carla", composed, "ein anderer, langer Satz")
    assert desk.accounts.unlock("carla", "ein anderer, langer Satz")


@pytest.mark.parametrize("typed", ["cafe\u0301 au lait, s'il", "caf\u00e9 au lait, s'il", "a tab\tin the password"])
def test_a_password_from_before_opens_as_it_was_typed_then(desk, now, typed, monkeypatch):
    monkeypatch.setattr("datasites.review.accounts.prepared", lambda password: password)  # as earlier versions did
    desk.accounts.register(desk.accounts.invite("steward", now=now), "carla", typed, now=now)
    for form in {typed, unicodedata.normalize("NFC", typed), unicodedata.normalize("NFD", typed)}:
        assert desk.accounts.authenticate("carla", form, now=now).name == "carla"
        assert desk.accounts.unlock("carla", form)


def test_a_session_ends_when_nobody_uses_it(desk, now):
    sessions, anna = desk.accounts.sessions, desk.accounts.account("anna")
    secret, _ = desk.accounts.open_session(anna, now=now)
    for minutes in (25, 50):
        later = now + dt.timedelta(minutes=minutes)
        sessions.used(sessions.find(secret, now=later), now=later)
    assert sessions.find(secret, now=now + dt.timedelta(minutes=79)) is not None
    assert sessions.find(secret, now=now + dt.timedelta(minutes=81)) is None
    token, _ = desk.accounts.issue_token(anna, scopes=("read",), label="x", days=2, now=now)
    assert sessions.find(token, now=now + dt.timedelta(days=1)) is not None


def test_people_list_and_end_their_sessions_and_tokens(desk, now):
    sessions, anna = desk.accounts.sessions, desk.accounts.account("anna")
    secret, _ = desk.accounts.open_session(anna, now=now)
    token, granted = desk.accounts.issue_token(anna, scopes=("read",), label="cron", days=1, now=now)
    assert [c.label for c in sessions.of("anna", now=now)] == ["cron", "browser"]
    with pytest.raises(InvalidInput):
        sessions.end_by_key("bela", granted.key)
    sessions.end_by_key("anna", granted.key)
    assert sessions.find(token, now=now) is None and sessions.find(secret, now=now) is not None


def test_a_stranger_locks_nobody_out_of_a_browser_that_is_known(desk, now):
    browser = desk.accounts.sessions.remember_browser("anna", now=now)
    for number in range(80):
        with pytest.raises(Refused):
            desk.accounts.authenticate("anna", "wrong", now=now, place=f"10.0.0.{number}")
    with pytest.raises(Refused, match="too many"):
        desk.accounts.authenticate("anna", PASSWORD, now=now, place="10.1.0.1")
    assert desk.accounts.authenticate("anna", PASSWORD, now=now, place="10.1.0.1", browser=browser).name == "anna"
    with pytest.raises(Refused, match="too many"):
        desk.accounts.authenticate("anna", PASSWORD, now=now, place="10.1.0.1", browser=browser[:-1])


def test_right_passwords_are_no_guesses_however_many_there_are(desk, now):
    for second in range(ATTEMPTS_FROM_ANYWHERE + 5):
        desk.accounts.authenticate("anna", PASSWORD, now=now + dt.timedelta(seconds=second), place="192.0.2.1")


def test_right_passwords_forget_nobody_elses_guesses(desk, now):
    for number in range(ATTEMPTS_FROM_ANYWHERE):
        with pytest.raises(Refused, match="do not go together"):
            desk.accounts.authenticate("anna", "a guess of a stranger", now=now, place=f"198.51.100.{number}")
        if number % 20 == 0:
            desk.accounts.authenticate("anna", PASSWORD, now=now + dt.timedelta(seconds=1), place="192.0.2.1")
    with pytest.raises(Refused, match="too many attempts"):
        desk.accounts.authenticate("anna", PASSWORD, now=now, place="203.0.113.9")
