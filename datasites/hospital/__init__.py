"""The hospital's process: it wires the rooms together.

Only its own command line, the demo and tests import it. Start with ``datasite.py`` (the stores), then ``daemon.py``
(the loops) and ``rounds/taking_part.py`` (a round).
"""
