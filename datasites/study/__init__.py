"""What may be asked of a hospital, and what is said in a round.

Values and pure checks only: no file, no socket, no database, no torch, and nothing of the other rooms. The data owner
defines what may be asked, so these values live here and the orchestrator fills them in. Start with ``proposal.py``,
then ``messages.py``.
"""
