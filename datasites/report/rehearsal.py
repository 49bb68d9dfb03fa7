"""Write a report of nothing once, so that the next one of this process takes a fraction of a second.

The first report of a process takes seconds: it imports matplotlib, typst, pyHanko and dp-accounting, reads the letters
of every font, and compiles its templates. A process that reports will be forked from does all that in advance. It sets
no PDF: typst would start threads, and a fork, which has none of them, would wait for them for ever.
"""

from __future__ import annotations

import datetime as dt
import importlib
import tempfile
from pathlib import Path

from datasites.language import LANGUAGES, speaking
from datasites.node.web.charts import Bar, plot_bars, plot_steps
from datasites.report.build import build_report
from datasites.report.facts import ChainLine
from datasites.report.records import Records
from datasites.report.writing import write_html, write_json
from datasites.review.environment import current_environment
from privacy.identity import Identity

_LATER = (
    "alembic.migration",
    "alembic.operations",
    "privacy.dp.two_hospitals",
    "pyhanko.pdf_utils.incremental_writer",
    "pyhanko.sign.fields",
    "pyhanko.sign.signers",
    "typst",
)


def rehearse() -> None:
    """Write the pages of a hospital without studies in every language, into a folder that is deleted."""
    for name in _LATER:
        importlib.import_module(name)
    now = dt.datetime.now(dt.UTC)
    chain = ChainLine(
        file="",
        entries=0,
        head="",
        signature="",
        public_key="",
        last_entry="",
        holds=True,
        problems=(),
        countersigned_heads=0,
    )
    records = Records(
        at=now,
        public_key=Identity.generate().public_key,
        ledger=(),
        journal=(),
        accounts=(),
        timelines={},
        chains=(chain, chain),
    )
    with tempfile.TemporaryDirectory() as folder:
        for language in LANGUAGES:
            with speaking(language):
                _draw(now)
                report = build_report(
                    site="rehearsal",
                    institution="",
                    records=records,
                    environment=current_environment(),
                    language=language,
                )
                write_html(report, Path(folder) / "page.html", ())
                write_json(report, Path(folder) / "facts.json")


def _draw(now: dt.datetime) -> None:
    times, values = [now, now + dt.timedelta(minutes=1)], [0.0, 1.0]
    plot_steps(times, [("", values), (" ", values)], unit="", axis="")
    plot_bars([Bar(name="", value=1.0, whole=2.0, text="")], unit="")
