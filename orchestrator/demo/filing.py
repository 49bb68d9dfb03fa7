"""What the demonstration's own study is filed with: true of synthetic patients and of public cohort tables only."""

from __future__ import annotations

from datasites.study.filing import Filing, Recipient

LEGAL_BASIS = "Demonstration on public or synthetic data; no legal basis needed."
FILING = Filing(
    principal_investigator="Whoever runs this demonstration",
    institution="Study scientists",
    contact="demonstration@tessera.example",
    sponsor="none",
    controller="none: no personal data are processed",
    ethics_vote="",
    no_ethics_vote="No person's data are used: the patients are synthetic, or the tables are public.",
    consent_basis="none needed: no person's data are used",
    dpia="none needed: no personal data are processed",
    data_use=("DUO:0000042",),
    recipients=(Recipient(name="Study scientists", country="ZZ"),),
)
