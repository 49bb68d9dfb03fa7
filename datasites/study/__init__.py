"""What may be asked of a hospital, and what is said in a round.

Values and pure functions only: no file, no socket, no database, no torch. Of the other rooms it imports ``strategy``
alone. The data owner defines what may be asked, so these values live here and the orchestrator fills them in; the next
plan and the next model follow from public numbers (``recomputed/``), so that every party can compute
them. Start with ``proposal.py``, then ``messages.py``.
"""
