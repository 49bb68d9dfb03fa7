"""The orchestrator's `/metrics`: figures read off the journal, for this machine or a token, and nobody's names."""

from __future__ import annotations

import datetime as dt

import pytest
from fastapi.testclient import TestClient
from support.pilot_study import proposal

from datasites.study.signing import seal
from orchestrator.api.metrics import TOKEN_FILE, install
from orchestrator.api.server import create_app
from orchestrator.rounds.checkpoints import study_runs
from orchestrator.rounds.summing.sums import RunningSumProcess
from privacy.ledger.journal import Journal


@pytest.fixture
def service(new_service):
    return new_service("orchestrator", "keyholder", "hospital-a", "hospital-b", "hospital-c")


@pytest.fixture
def clients(service, tmp_path):
    app = create_app(service, mailbox_folder=tmp_path / "mailbox")
    install(app, service, tmp_path)
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 5000)) as here:
        yield here, TestClient(app, client=("192.0.2.7", 5000))


def finished(journal, number, sites=("hospital-a", "hospital-b", "hospital-c")):
    body = {"study": "secret-study", "round": number, "sites": list(sites), "uplink_bytes": 300, "seconds": 1.5}
    journal.append("round-finished", body)


def test_figures_come_from_the_journal_and_grow_with_it(clients, service):
    here, _ = clients
    finished(service.journal, 1)
    service.journal.append("refusal", {"study": "secret-study", "round": 1, "party": "hospital-b", "reason": "no"})
    text = here.get("/metrics").text
    assert "tessera_rounds_total 1.0" in text
    assert "tessera_updates_total 3.0" in text
    assert "tessera_update_bytes_total 300.0" in text
    assert "tessera_refusals_total 1.0" in text
    assert 'tessera_studies{state="running"} 0.0' in text
    finished(service.journal, 2, sites=("hospital-a",))
    text = here.get("/metrics").text
    assert "tessera_rounds_total 2.0" in text
    assert "tessera_updates_total 4.0" in text
    assert 'route="/metrics"' in text
    assert 'tessera_journal_entries_total{kind="round-finished"} 2.0' in text


def test_no_study_and_no_hospital_is_named(clients, service):
    here, _ = clients
    finished(service.journal, 1)
    here.get("/studies/secret-study")
    text = here.get("/metrics").text
    assert "secret-study" not in text
    assert "hospital" not in text


def test_others_need_the_token_of_the_operator(clients, tmp_path):
    _, elsewhere = clients
    token = "a-token-of-enough-letters"
    assert elsewhere.get("/metrics").status_code == 403
    assert elsewhere.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 403
    (tmp_path / TOKEN_FILE).write_text(token + "\n")
    assert elsewhere.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert elsewhere.get("/metrics", headers={"Authorization": f"Bearer {token}x"}).status_code == 403
    (tmp_path / TOKEN_FILE).write_text("")
    assert elsewhere.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_what_a_proxy_passes_on_is_not_from_this_machine(clients, header):
    here, _ = clients
    assert here.get("/metrics", headers={header: "127.0.0.1"}).status_code == 403


def test_a_summing_process_that_dies_is_counted(clients, monkeypatch):
    here, _ = clients
    monkeypatch.setattr(RunningSumProcess, "died", 3)
    assert "tessera_sum_worker_restarts_total 3.0" in here.get("/metrics").text


@pytest.fixture
def clock(service, tmp_path):
    """A journal whose time stands still until it is set on."""
    passed = {"hours": 0.0}
    start = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    service.journal = Journal(
        tmp_path / "timed.sqlite", service.identity, clock=lambda: start + dt.timedelta(hours=passed["hours"])
    )
    yield lambda hours: passed.update(hours=hours)
    service.journal.close()


def begin(service, study):
    signed = seal(service.identity, "proposal", proposal(study=study, orchestrator=service.roster.orchestrator))
    service.store.add_study(study, signed)
    service.journal.append("study-registered", {"study": study})


def still_since(client):
    """Hours of the journal's day at which the running study that is furthest behind made its last step."""
    lines = client.get("/metrics").text.splitlines()
    found = [float(line.split()[1]) for line in lines if line.startswith("tessera_study_progress_seconds ")]
    return round((found[0] - dt.datetime(2026, 3, 1, tzinfo=dt.UTC).timestamp()) / 3600, 2) if found else None


def test_the_study_that_stands_still_for_longest_is_told_without_its_name(clock, service, clients):
    here, _ = clients
    for study in ("quick", "slow"):
        begin(service, study)
    clock(1)
    assert still_since(here) is None  # both wait for approvals: nobody is late
    for study in ("quick", "slow"):
        study_runs(service.store, service.journal, study)
    for hour in (2, 3, 4, 5):
        clock(hour)
        service.journal.append("round-finished", {"study": "quick", "round": hour})
    assert still_since(here) == 1
    assert "quick" not in here.get("/metrics").text
    service.journal.append("round-lost", {"study": "slow", "round": 1, "reason": "too few"})
    assert still_since(here) == 5
    for study in ("quick", "slow"):
        service.store.set_state(study, "finished")
    assert still_since(here) is None


def test_a_study_that_goes_on_after_a_pause_counts_from_there_and_after_a_restart_from_its_last_step(
    clock, service, clients
):
    here, _ = clients
    begin(service, "pilot")
    study_runs(service.store, service.journal, "pilot")
    service.store.set_state("pilot", "paused", "for the night")
    clock(9)
    service.store.set_state("pilot", "waiting")
    study_runs(service.store, service.journal, "pilot")
    assert still_since(here) == 9
    clock(12)
    study_runs(service.store, service.journal, "pilot")  # as the orchestrator's next process says it
    assert still_since(here) == 9
