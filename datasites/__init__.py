"""The hospital's side, and what every role is made of.

Rooms, from the bottom: ``language`` (translations), ``strategy`` (the rules a study may choose), ``study`` (what may be
asked), ``node`` (what a role's process is made of), ``review`` (people and their decisions), ``data`` and ``training``,
``worker``, ``report`` and ``keyholder``, ``portal`` and ``syft``, ``helper``, and ``hospital``, which wires them
together. A room imports rooms below it, ``privacy`` and ``models``; import-linter checks it. Start with
``study/proposal.py``.
"""
