"""A study's life as its scientist sees it: propose, submit, run, evaluate, report.

Start with ``proposing/propose.py``, then ``submit.py`` and ``run.py``.
"""
