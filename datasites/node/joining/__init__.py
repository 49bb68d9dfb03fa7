"""How a party joins a consortium: a signed invitation, its answer, and every roster as a signed edition.

    tessera invite hospital-d --institution 'Hospital D' --out d.invitation --qr d.png   # the operator
    tessera join d.invitation --home HOME                                              # the hospital
    tessera admit hospital-d                                                           # the operator, after a call

The operator's side is :mod:`orchestrator.enrolment`. Start with ``entering.py``, then ``documents.py``.
"""
