"""The study's side: rounds, studies, their command line, and the simulation.

Rooms, from the bottom: ``enrolment``, ``objects``, ``rounds``, ``studies``, ``simulation``, ``analytics``,
``dashboard``, ``api``, ``demo``, ``cli``. Nothing here holds a decryption key or a patient's record. Start with
``rounds/runner.py``.
"""
