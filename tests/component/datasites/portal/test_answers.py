"""The request page answers before the signature: every epsilon named, who learns what, the dataset, the purpose."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from fastapi.testclient import TestClient
from support.review_desk import PASSWORD

from datasites.data.dataset import Part, Schema, write_dataset
from datasites.data.glance import TERMS, glance, read_terms
from datasites.data.missing import MISSING
from datasites.portal.app import create_portal
from datasites.portal.shown.answers import benefit, epsilons, left_over
from datasites.report.words import certainty
from datasites.study.filing import Filing, Recipient
from privacy.dp.two_hospitals import epsilon_at_two_hospitals
from privacy.errors import InvalidInput

FILING = Filing(
    principal_investigator="Prof. Ada Weber",
    institution="University of Northtown",
    contact="weber@northtown.example",
    sponsor="Northtown Cancer Fund",
    controller="University of Northtown",
    ethics_vote="2026-114 (Northtown)",
    no_ethics_vote="",
    consent_basis="broad consent, version 1.6",
    dpia="DPIA-2026-017",
    data_use=("DUO:0000006",),
    recipients=(Recipient(name="University of Northtown", country="DE"),),
)
SCHEMA = Schema(
    name="alba-lung",
    version=1,
    institution="Hospital Alba",
    cohort="LUSC",
    cohorts=("LUSC",),
    task="early-late",
    classes=2,
    modalities=("clinical",),
    features={"clinical": ("age", "smoker")},
    preprocessing={"clinical": "fixed encodings"},
    source="made up",
)


@pytest.fixture
def dataset(tmp_path):
    rows = [[61.5, 1.0], [47.25, 0.0]]
    private = Part(
        cases=("PRIVATE-1", "PRIVATE-2"),
        cohorts=("LUSC", "LUSC"),
        labels=(0, 1),
        inputs={"clinical": (("PRIVATE-1", "PRIVATE-2"), np.array(rows, dtype="float32"))},
    )
    write_dataset(tmp_path / "dataset", SCHEMA, private)
    return tmp_path / "dataset"


@pytest.fixture
def page_of(desk, new_context, dataset):
    def show(proposal, *, terms: str = "") -> str:
        (dataset / TERMS).write_text(terms)
        context = replace(new_context(desk), glance=lambda _: glance(dataset, 190))
        with TestClient(create_portal(context), headers={"accept": "text/html"}) as client:
            answer = client.post("/login", data={"name": "anna", "password": PASSWORD})
            csrf = re.search(r'name="csrf" value="([^"]+)"', answer.text).group(1)
            hashed = desk.submit(proposal)
            form = {"csrf": csrf, "password": PASSWORD}
            page = client.get(f"/requests/{hashed}").text
            answer = client.post(f"/requests/{hashed}/approve", data=form)
            return unescape(page), answer

    return show


def test_everything_that_was_filed_stands_on_the_page(page_of, new_proposal):
    page, _ = page_of(new_proposal(filing=FILING))
    for text in dict(FILING.lines()).values():
        assert text in page
    assert "names nobody who answers for it" not in page
    assert "names nobody who answers for it" in page_of(new_proposal())[0]


def test_a_purpose_outside_the_terms_blocks_the_signature_and_one_inside_does_not(page_of, new_proposal, desk):
    page, answer = page_of(new_proposal(filing=FILING), terms='data_use = ["DUO:0000011"]')
    assert "the data may be used for ancestry research; the study asks for health" in page
    assert "It cannot be approved: its purpose does not fit the terms of the dataset" in page
    assert answer.status_code == 403
    page, answer = page_of(
        new_proposal(filing=FILING, nonce="1" * 32), terms='data_use = ["DUO:0000006", "DUO:0000021"]'
    )
    assert "The purpose fits the terms of the dataset" in page
    assert answer.url.query == b"notice=signed"
    page, answer = page_of(new_proposal(nonce="2" * 32), terms='data_use = ["DUO:0000006", "DUO:0000021"]')
    assert "the data require an ethics approval; the study names none" in page
    assert answer.status_code == 403


def test_every_epsilon_has_a_name_and_says_against_whom(page_of, desk, new_proposal, new_context):
    proposal = new_proposal()
    cost = new_context(desk).preview(proposal)
    found = {line.name: line for line in epsilons(proposal, cost)}
    assert len(found) == 5
    alone = found["This study alone, at its worst"]
    assert alone.epsilon.value == proposal.mechanism.epsilon(cost.delta)
    twice = found["This study, for a patient known to two of its hospitals"]
    assert twice.epsilon.value == epsilon_at_two_hospitals(proposal.mechanism, cost.delta)
    assert twice.epsilon.value > alone.epsilon.value
    page, _ = page_of(proposal)
    table = page[page.index("Which epsilon") : page.index("What is left for later studies")]
    for line in found.values():
        assert line.name in table
        assert line.text in table
        assert line.epsilon.against in table
    shared = new_proposal(noise="shared", min_sites=3)
    names = [line.name for line in epsilons(shared, cost)]
    assert "This study, if no hospital works with others against one" in names


def test_the_page_says_who_learns_what_alone_and_together_and_what_is_left(page_of, new_proposal, desk, new_context):
    proposal = new_proposal()
    page, _ = page_of(proposal)
    assert "Orchestrator and keyholder together" in page
    assert "(Notary office) alone" in page
    cost = new_context(desk).preview(proposal)
    assert left_over(cost) in page
    assert "60 % of epsilon is left" in left_over(cost)
    assert "no cap" in left_over(replace(cost, cap=float("inf")))
    assert certainty(cost.after) in page


def test_the_benefit_is_what_was_measured_with_its_caveat(new_proposal):
    first, _, caveat = benefit(new_proposal())
    assert re.search(r"local noise at epsilon \d+ .* The mean AUROC was \.?0\.\d{3}", first)
    assert "a simulation" in caveat
    assert benefit(new_proposal(task="ordinal")) == ()


def test_the_dataset_is_shown_without_a_value_of_its_patients(page_of, new_proposal):
    terms = 'inclusion = "adults with lung cancer"\nperiod = "2015 to 2024"\nmissing = "one in ten has no slide"'
    page, _ = page_of(new_proposal(), terms=terms)
    glance_of = page[page.index("The dataset at a glance") : page.index("What the machine found")]
    for text in ("adults with lung cancer", "2015 to 2024", "one in ten has no slide", "about 190", "smoker", "mock"):
        assert text in glance_of
    for private in ("PRIVATE-1", "61.5", "47.2"):
        assert private not in page


def test_the_portal_refuses_inputs_that_are_scaled_by_the_hospitals_own_patients(page_of, new_proposal, dataset):
    model = replace(new_proposal().model, self_scaled=("clinical",))
    page, answer = page_of(new_proposal(model=model))
    assert "It cannot be approved: it breaks this hospital's policy" in page
    assert "no epsilon can be stated" in page and answer.status_code == 403
    assert "scales its values by statistics of its own patients" in unescape(answer.text)
    schema = json.loads((dataset / "schema.json").read_text())
    (dataset / "schema.json").write_text(json.dumps(schema | {"self_scaled": ["clinical"]}))
    page, answer = page_of(new_proposal(nonce="3" * 32))  # the request says nothing of it
    assert "It cannot be approved: clinical: the dataset's values are scaled" in page
    assert answer.status_code == 403 and "which the request does not say" in unescape(answer.text)


def test_what_is_missing_is_shown_to_the_hospitals_own_people(page_of, new_proposal, dataset):
    page, _ = page_of(new_proposal())
    part = page[page.index('id="missing"') : page.index("Some rows of the mock")]
    assert "never released" in part
    assert re.search(r"clinical.*?>2<.*?>0<.*?not known", part, re.DOTALL)
    changes = {"since": 1, "added": 3, "changed": 2, "withdrawn": 5, "same": 30}
    missing = {"clinical": {"patients": 190, "of": 200, "variables": {"age": 19, "smoker": 1}}}
    (dataset / MISSING).write_text(json.dumps({"modalities": missing, "changes": changes}))
    page, _ = page_of(new_proposal(nonce="1" * 32))
    part = page[page.index('id="missing"') : page.index("Some rows of the mock")]
    assert re.search(r"clinical.*?>190<.*?>10<.*?age</code>\s10 %.*?smoker</code>\sbelow 1 %", part, re.DOTALL)
    assert "compared with version 1: 3 added, 2 changed, 5 withdrawn, 30 as before" in part


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_use = 3", "list of codes"),
        ('data_use = ["DUO:1"]', "Data Use Ontology"),
        ('colour = "red"', "unknown field"),
        ("period = 2015", "expected texts"),
        ("data_use = [", "could not read"),
    ],
)
def test_terms_that_make_no_sense_are_refused(tmp_path, text, message):
    (tmp_path / TERMS).write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_terms(tmp_path)
