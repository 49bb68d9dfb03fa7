"""The languages of pages and reports: English in the code, German and French in ``de.po`` and ``fr.po``.

A sentence is written in English where it is needed, as ``tr("{count} rounds were charged", count=3)``, and looked up
when it is shown. An error or a finding that is also logged, journaled or answered by the API stays English there: it is
made with :func:`privacy.sentences.say`, and pages print it with :func:`spoken`. Which language is spoken is a property
of the context: :func:`speaking` sets it for a report or an answer. Numbers, dates and lists are written by Babel
(:mod:`datasites.language.formats`). This room is the lowest: it knows nothing about studies.

After a change of a sentence: ``python -m datasites.language.messages`` adds it to the catalogues; then translate it.
A test fails while a translation is missing or marked as fuzzy. Start with ``catalog.py``.
"""

from datasites.language.catalog import (
    LANGUAGES,
    check_language,
    current,
    mark,
    negotiate,
    speaking,
    spoken,
    tr,
    tr_plural,
)

__all__ = ["LANGUAGES", "check_language", "current", "mark", "negotiate", "speaking", "spoken", "tr", "tr_plural"]
