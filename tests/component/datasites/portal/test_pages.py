"""The pages without a browser: everybody reads, forms need their token, and nothing from outside is printed raw."""

import math
import re
import threading
import time
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from datasites.hospital.facts import preview
from datasites.portal.app import create_portal
from datasites.portal.shown.code_view import facts_diff, side_by_side
from datasites.portal.shown.figures import cost_picture, timeline_picture
from datasites.portal.shown.words import meaning, summary
from datasites.report.words import certainty
from datasites.review.budgets import Budget, CostPreview
from datasites.study.proposal import Chain
from datasites.study.second_figures import SecondFigure
from privacy.dp.mechanism import HistogramRelease, LossRelease
from privacy.errors import TesseraError
from privacy.identity import Identity
from privacy.ledger.ledger import Ledger, case_hash

PASSWORD = "correct horse battery staple"
HTML = {"accept": "text/html"}


@pytest.fixture
def portal(desk, new_context):
    app = create_portal(new_context(desk))
    with TestClient(app, headers=HTML) as client:
        yield client


def sign_in(client, name: str = "anna") -> str:
    """Sign in and return the CSRF token of the pages' forms."""
    answer = client.post("/login", data={"name": name, "password": PASSWORD, "to": "/inbox"})
    assert answer.status_code == 200
    assert answer.url.path == "/inbox"
    return re.search(r'name="csrf" value="([^"]+)"', answer.text).group(1)


def test_a_stranger_is_sent_to_the_login_and_back(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    answer = portal.get(f"/requests/{proposal_hash}")
    assert answer.url.path == "/login"
    assert f'value="/requests/{proposal_hash}"' in answer.text


def test_the_login_never_sends_people_elsewhere(portal):
    data = {"name": "anna", "password": PASSWORD, "to": "//evil.example/"}
    assert portal.post("/login", data=data, follow_redirects=False).headers["location"] == "/inbox"


def test_a_wrong_password_is_said_on_the_page(portal):
    answer = portal.post("/login", data={"name": "anna", "password": "wrong", "to": "/inbox"})
    assert answer.status_code == 403
    assert "do not go together" in answer.text


@pytest.mark.parametrize(
    "path", ["inbox", "studies", "budget", "journal?verify=1", "reports", "fingerprints", "policy", "people"]
)
def test_every_page_is_whole(portal, path):
    sign_in(portal)
    answer = portal.get(f"/{path}")
    assert answer.status_code == 200
    assert answer.text.count("<h1>") == 1
    assert "</html>" in answer.text
    assert "http" not in re.sub(r"https?://testserver|http-equiv|http://www.w3.org", "", answer.text)


def test_a_request_page_says_it_in_plain_words_and_shows_the_code(portal, desk, new_proposal):
    code = {"plan.py": b"import socket\nx = '<script>alert(1)</script>'\n"}
    proposal_hash = desk.submit(new_proposal(code=code, purpose="<b>bold</b> purpose"), code)
    sign_in(portal)
    page = portal.get(f"/requests/{proposal_hash}").text
    assert "asks to train a model that tells early" in page
    assert "plan.py, line 1" in page
    assert "<script>alert" not in page
    assert "<b>bold" not in page


def test_a_request_page_says_in_one_sentence_what_an_unchecked_chain_of_models_voids(portal, desk, new_proposal):
    chains = {None: "any model in any round", "given": "initial model", "study": "initial model", "seed": "recomputes"}
    sign_in(portal)
    for origin, expected in chains.items():
        study = {"study": "b" * 64} if origin == "study" else {}
        chain = None if origin is None else Chain(model_hash="a" * 64, origin=origin, **study)
        proposal_hash = desk.submit(new_proposal(chain=chain, study=f"chain-{origin}"))
        (line,) = re.findall(
            r'<span class="tag \w+">models</span>([^<]*)</li>', portal.get(f"/requests/{proposal_hash}").text
        )
        assert expected in line
        assert line.count(".") == 1  # one sentence
    asked = Chain(model_hash="a" * 64, checked=False)
    answer = portal.get(f"/requests/{desk.submit(new_proposal(chain=asked, study='asked'))}")
    assert "any model in any round" in answer.text


def test_a_request_page_says_that_the_first_round_releases_averages(portal, desk, new_proposal):
    plain = new_proposal()
    centred = replace(plain, model=replace(plain.model, centred=True), nonce="1" * 32)
    sign_in(portal)
    for proposal, said in ((plain, False), (centred, True)):
        page = portal.get(f"/requests/{desk.submit(proposal)}").text
        assert ("The first round sends averages instead" in page) == said
        assert ("round 1 trains nothing" in page) == said


def test_a_request_page_says_what_readers_of_sums_learn_beside_the_charge(desk, new_context, new_proposal):
    figure = SecondFigure(
        kind="sums of 9", epsilon=2.34, delta=1e-5, label="Against readers of sums, 9 of 9 hospitals in each",
        against="everybody but orchestrator and keyholder together",
    )  # fmt: skip
    other = replace(figure, kind="two hospitals", epsilon=6.78, label="For a patient known to two of the hospitals")
    context = new_context(desk)
    preview = replace(context.preview(new_proposal()), second_figures=(figure, other))
    proposal_hash = desk.submit(new_proposal())
    with TestClient(create_portal(replace(context, preview=lambda _: preview)), headers=HTML) as client:
        sign_in(client)
        page = client.get(f"/requests/{proposal_hash}").text
    (row,) = re.findall(r"<tr><th[^>]*>Against readers of sums.*?</tr>", page, re.DOTALL)
    assert "2.34" in row and "everybody but orchestrator and keyholder together" in row
    assert "no budget counts it" in row


def test_two_people_approve_and_one_revokes_with_forms(new_desk, new_context, new_proposal):
    desk = new_desk("[review]\nrequired_reviewers = 2")
    proposal_hash = desk.submit(new_proposal())
    app = create_portal(new_context(desk))
    for name, expected in (("anna", "waiting for a decision"), ("bela", "approved")):
        with TestClient(app, headers=HTML) as client:
            csrf = sign_in(client, name)
            form = {"csrf": csrf, "password": PASSWORD}
            answer = client.post(f"/requests/{proposal_hash}/approve", data=form)
            assert "Signed with your key" in answer.text
            assert expected in answer.text
            if name == "bela":
                form = {"csrf": csrf, "reason": "consent withdrawn"}
                answer = client.post(f"/requests/{proposal_hash}/revoke", data=form)
                assert "The study stops here" in answer.text
                assert "consent withdrawn" in answer.text


def test_a_form_without_its_token_is_refused(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    sign_in(portal)
    answer = portal.post(f"/requests/{proposal_hash}/deny", data={"reason": "no reason at all"})
    assert answer.status_code == 403
    assert desk.store.request(proposal_hash).state == "pending"


def test_a_refused_decision_shows_its_reason_on_the_request(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal(seed=1))
    csrf = sign_in(portal)
    answer = portal.post(f"/requests/{proposal_hash}/approve", data={"csrf": csrf, "password": PASSWORD})
    assert answer.status_code == 403
    assert "from a public seed" in answer.text


def test_a_dry_run_is_started_and_its_result_shown(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    csrf = sign_in(portal)
    page = portal.post(f"/requests/{proposal_hash}/dry-run", data={"csrf": csrf}).text
    if "What would leave in a round" not in page:
        page = _until(portal, proposal_hash, "What would leave in a round")
    assert "float32 [6]" in page
    assert "line one" in page


def test_the_log_of_a_dry_run_grows_on_the_page_while_it_runs(desk, new_context, new_proposal, tmp_path):
    log, go_on = tmp_path / "out.log", threading.Event()
    context = new_context(desk)
    ended = context.dry_run(None, print)

    def slow(_request, watch):
        watch(log)
        log.write_text("step 1\n")
        go_on.wait(300)
        return ended

    proposal_hash = desk.submit(new_proposal())
    with TestClient(create_portal(replace(context, dry_run=slow)), headers=HTML) as portal:
        csrf = sign_in(portal)
        portal.post(f"/requests/{proposal_hash}/dry-run", data={"csrf": csrf})
        assert _until(portal, proposal_hash, "step 1").count("Log so far") == 1
        log.write_text("step 1\nstep 2 <b>\n")
        assert "step 2 &lt;b&gt;" in _until(portal, proposal_hash, "step 2")
        log.unlink()
        go_on.set()
        assert "Log so far" not in _until(portal, proposal_hash, "What would leave in a round")


def _until(portal, proposal_hash: str, text: str) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        page = portal.get(f"/requests/{proposal_hash}").text
        if text in page:
            return page
        time.sleep(0.02)
    raise AssertionError(f"the page never said {text}")


def test_the_request_says_what_its_epsilon_means_and_who_gets_the_model(portal, desk, new_proposal):
    mechanism = replace(
        new_proposal().mechanism,
        losses=LossRelease(every_rounds=2, bound=2.0, noise_multiplier=25.0),
        evaluation=HistogramRelease(every_rounds=5, noise_multiplier=20.0),
    )
    proposal_hash = desk.submit(new_proposal(mechanism=mechanism))
    sign_in(portal)
    page = portal.get(f"/requests/{proposal_hash}").text
    assert "at most 73 % sure, after it at most 98 %; at the cap it is almost certainty" in page
    assert "goes to dr-weber, who may keep it for 365 days (research only).</p><p>Legal basis: DPIA 2026-017" in page
    assert "noised sums of the model&#39;s losses over the patients, in rounds 2 and 4" in page
    assert "64 noised counts of validation patients by score, in round 5" in page


def test_a_study_that_is_approved_already_is_not_counted_twice(desk, new_proposal, tmp_path):
    proposal = new_proposal()
    with closing(Ledger(tmp_path / "ledger.sqlite", Identity.from_seed(b"a" * 32))) as ledger:
        population = ledger.register_dataset("alba-lung", 1, [case_hash(b"k" * 32, f"C{n}") for n in range(20)])
        worst = proposal.mechanism.epsilon(1e-5)
        ledger.set_cap(population, epsilon=1.5 * worst, delta=1e-5, by="owner", reason="room for one study, not two")
        place = SimpleNamespace(population_of=lambda _: population)
        datasite = SimpleNamespace(site="alba", ledger=ledger, datasets=place)
        first = preview(datasite, proposal)
        assert first.fits and not first.reserved and first.before == 0
        reserved = {"study": proposal.study, "proposal_hash": proposal.proposal_hash, "plan": proposal.mechanism}
        ledger.reserve(population, **reserved)
        ledger.charge(proposal.proposal_hash, 1)
        now = preview(datasite, proposal)
        assert now.fits and now.reserved and 0 < now.before <= now.after == pytest.approx(first.after)
        assert "when every approved study has run, this one included" in " ".join(summary(proposal, "alba", now))
        other = preview(datasite, new_proposal(nonce="1" * 32))
        assert not other.fits and other.after > now.after


def test_an_infinite_cost_is_no_bound_in_words():
    cost = CostPreview(
        population="p", delta=1e-5, cap=math.inf, before=1, cost=math.inf, after=math.inf, accountant="RDP", fits=True
    )
    assert "no bound" in meaning(cost)[0]
    assert certainty(0.0) == "50 %"
    assert certainty(math.inf) == "completely"


def test_the_sandbox_is_tried_once_for_everybody_who_looks(desk, new_context):
    tried = []
    context = replace(new_context(desk), layers=lambda: tried.append(1) or {"seccomp": True})
    with TestClient(create_portal(context), headers=HTML) as portal:
        sign_in(portal)
        assert all("seccomp" in portal.get("/policy").text for _ in range(3))
    assert tried == [1]


def test_whoever_reads_may_have_the_reports_written_and_sees_how_it_goes(desk, new_context):
    begun, go_on, problems = [], threading.Event(), [TesseraError("the disk is full")]

    def write() -> None:
        begun.append(1)
        assert go_on.wait(300)
        if problems:
            raise problems.pop()

    def wait() -> None:
        deadline = time.monotonic() + 120
        while portal.app.state.service.writing.state().state == "running":
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with TestClient(create_portal(replace(new_context(desk), write_reports=write)), headers=HTML) as portal:
        csrf = sign_in(portal, "otto")
        assert portal.post("/reports", data={"csrf": "another"}).status_code == 403
        for _ in range(2):  # a double click: one writer, and neither waits for it
            answer = portal.post("/reports", data={"csrf": csrf})
            assert answer.url.path == "/reports" and "are being written since" in answer.text
        go_on.set()
        wait()
        assert "the disk is full" in portal.get("/reports").text
        portal.post("/reports", data={"csrf": csrf})
        wait()
        assert "The reports are those of" in portal.get("/reports").text
    assert begun == [1, 1]


def test_a_second_version_is_compared_with_the_approved_one(portal, desk, new_proposal):
    first = {"plan.toml": b"rate = 1\n"}
    desk.approve(desk.submit(new_proposal(code=first), first))
    second = {"plan.toml": b"rate = 2\n", "more.toml": b"x = 1\n"}
    proposal_hash = desk.submit(new_proposal(code=second, rounds=7), second)
    sign_in(portal)
    page = portal.get(f"/requests/{proposal_hash}").text
    assert '<td class="old">rate = 1</td>' in page
    assert '<td class="new">rate = 2</td>' in page
    assert re.search(r"more\.toml <span[^>]*>added", page)
    assert re.search(r"<code>rounds</code></th><td[^>]*>5</td><td[^>]*>7</td>", page)


def test_the_journal_is_searched_filtered_and_a_broken_chain_is_said(portal, desk):
    sign_in(portal)
    for number in range(60):
        desk.journal.append("sample", {"number": number, "word": "needle" if number == 7 else "hay"})
    assert '<h2 id="entries">1 entry</h2>' in portal.get("/journal?q=needle").text
    page = portal.get("/journal?kind=sample").text
    assert "60 entries" in page
    assert "page=1" in page
    assert "<code>number</code>: 0<br>" in portal.get("/journal?kind=sample&page=1").text
    assert "Verified" in portal.get("/journal?verify=1").text


def test_a_report_is_downloaded_and_nothing_else_is(portal):
    sign_in(portal)
    assert portal.get("/reports/privacy-report.pdf").content.startswith(b"%PDF")
    assert portal.get("/reports/journal.sqlite").status_code == 404
    assert portal.get("/reports/..%2Fjournal.sqlite").status_code == 404


def test_a_fingerprint_is_confirmed_only_for_parties_of_studies_here(portal, desk, new_proposal):
    desk.submit(new_proposal())
    csrf = sign_in(portal)
    answer = portal.post("/fingerprints", data={"csrf": csrf, "public_key": "8" * 64, "password": PASSWORD})
    assert answer.status_code == 400
    assert "8" * 64 not in desk.store.confirmed()


def test_a_steward_invites_and_the_new_person_makes_an_account(portal, desk):
    csrf = sign_in(portal)
    page = portal.post("/people", data={"csrf": csrf, "role": "privacy-officer", "password": PASSWORD}).text
    link = re.search(r'href="(http://testserver/welcome\?token=[^"]+)"', page).group(1)
    token = link.partition("token=")[2]
    with TestClient(portal.app, headers=HTML) as other:
        assert "privacy officer" in other.get(f"/welcome?token={token}").text
        answer = other.post("/welcome", data={"token": token, "name": "dora", "password": PASSWORD})
        assert "Your account is made" in answer.text
        assert "Invite somebody" not in other.get("/people").text
    assert desk.accounts.account("dora").role == "privacy-officer"


def test_a_steward_closes_the_account_of_somebody_who_left(portal, desk):
    csrf = sign_in(portal)
    assert portal.post("/people/close", data={"csrf": csrf, "name": "anna"}).status_code == 403
    page = portal.post("/people/close", data={"csrf": csrf, "name": "bela", "password": PASSWORD}).text
    assert "What they signed stays signed" in page and ">closed<" in page
    assert desk.kinds()[-1] == "account-closed"
    assert portal.post("/login", data={"name": "bela", "password": PASSWORD}).status_code == 403


def test_an_auditor_sees_no_form_to_decide(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    sign_in(portal, "otto")
    page = portal.get(f"/requests/{proposal_hash}").text
    assert "An auditor reads and never decides" in page
    assert "/approve" not in page


def test_the_cookie_is_this_datasites_own_and_closed_to_scripts(portal, desk):
    answer = portal.post("/login", data={"name": "anna", "password": PASSWORD, "to": "/inbox"}, follow_redirects=False)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"tessera-{desk.journal.public_key[:12]}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_side_by_side_rows_line_up():
    rows = side_by_side("a\nb\nc\n", "a\nx\ny\nc\n")
    assert [(r.kind, r.old, r.new) for r in rows] == [
        ("same", "a", "a"),
        ("changed", "b", "x"),
        ("added", "", "y"),
        ("same", "c", "c"),
    ]


def test_long_unchanged_stretches_become_a_gap():
    text = "\n".join(str(i) for i in range(50))
    rows = side_by_side(text, text.replace("25", "x"))
    assert len(rows) == 8
    assert rows[0].kind == "gap"


def test_facts_are_compared_by_dotted_name():
    old, new = {"a": {"b": 1}, "s": [{"name": "x", "v": 1}]}, {"a": {"b": 2}, "s": [{"name": "x", "v": 1}]}
    assert facts_diff(old, new) == (("a.b", "1", "2"),)


def test_pictures_say_their_numbers_and_an_infinite_cost_is_a_word():
    cost = CostPreview(
        population="p", delta=1e-5, cap=8, before=1, cost=float("inf"), after=float("inf"), accountant="x", fits=False
    )
    assert "unbounded after it" in cost_picture(cost)
    assert "the cap is unbounded" in cost_picture(replace(cost, cap=float("inf"), before=float("inf")))
    points = [
        SimpleNamespace(spent=SimpleNamespace(epsilon=float(i)), at=f"2026-03-0{i + 1}T12:00:00+00:00")
        for i in range(5)
    ]
    budget = Budget(population="p", datasets=(), cap=8, delta=1e-5, spent=4, reserved=5)
    picture = timeline_picture(budget, points)
    assert "5 entries: now 4.00 of 8.00" in picture
    assert "1 Mar 2026" in picture and "5 Mar 2026" in picture


def test_a_public_seed_reads_as_no_privacy(new_proposal):
    text = " ".join(summary(new_proposal(seed=7), "alba", None))
    assert "gives no privacy" in text


def test_an_address_shows_no_banner_about_what_did_not_happen(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    csrf = sign_in(portal)
    assert "Denied. The scientist" not in portal.get(f"/requests/{proposal_hash}?notice=deny").text
    form = {"csrf": csrf, "reason": "the legal basis is missing"}
    assert "Denied. The scientist" in portal.post(f"/requests/{proposal_hash}/deny", data=form).text
    assert "Revoked. The study" not in portal.get(f"/requests/{proposal_hash}?notice=revoke").text


def test_a_form_sent_after_the_session_ended_leads_back_to_its_page(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    answer = portal.post(f"/requests/{proposal_hash}/deny", data={"csrf": "x", "reason": "because"})
    assert answer.url.path == "/login"
    data = {"name": "anna", "password": PASSWORD, "to": answer.url.params["to"]}
    back = portal.post("/login", data=data)
    assert back.status_code == 200
    assert back.url.path == f"/requests/{proposal_hash}"


@pytest.mark.parametrize(
    "path", ["/nothing", "/requests/xyz", f"/journal?q={99 * 'x'}", "/people/close", "/requests/%0d"]
)
def test_mistakes_are_said_in_our_own_words(portal, path):
    sign_in(portal)
    page = portal.get(path).text
    assert not re.search("Not Found|Method Not Allowed|String should|Field required|Input should", page)


def test_fifty_sign_at_once_and_fifty_register_at_once(portal, desk, new_proposal, now):
    proposal_hash = desk.submit(new_proposal())
    links = [desk.accounts.invite("auditor", now=now) for _ in range(50)]
    csrf = sign_in(portal)
    answers = []

    def sign():
        answers.append(portal.post(f"/requests/{proposal_hash}/approve", data={"csrf": csrf, "password": PASSWORD}))

    def register(number):
        body = {"token": links[number], "name": f"person-{number}", "password": PASSWORD}
        answers.append(portal.post("/api/register", json=body))

    threads = [threading.Thread(target=sign) for _ in links]
    threads += [threading.Thread(target=register, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(answers) == 100
    assert {answer.status_code for answer in answers} <= {200, 201, 403}
    assert len(desk.accounts.accounts()) == 53
    assert desk.store.request(proposal_hash).state == "approved"
