"""What people who decide read of a study that begins with constants of public tables."""

from __future__ import annotations

from datasites.language import tr
from datasites.study.schema.public_constants import PublicConstants


def constants_sentences(constants: PublicConstants) -> tuple[str, ...]:
    """Return where the constants come from, and what is checked of them."""
    about = {"patients": constants.patients, "source": constants.source.rstrip(".")}
    first = (
        tr("The study begins with averages and weights from tables of {patients} public patients: {source}.", **about)
        if constants.weights
        else tr("The study begins with averages from tables of {patients} public patients: {source}.", **about)
    )
    return (
        first,
        tr(
            "This hospital checks that the model holds these constants and that none is too large. Whoever has the "
            "tables can make them again and compare: tables {tables}, constants {constants}.",
            tables=constants.tables_hash[:16],
            constants=constants.constants_hash[:16],
        ),
    )
