"""A study's life as its scientist sees it: propose, submit, run, evaluate, report.

Start with ``propose.py``, then ``submit.py`` and ``run.py``.
"""
