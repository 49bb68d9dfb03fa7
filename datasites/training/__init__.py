"""One round at one hospital, in memory: train, clip, add noise, round, release.

No process and no disk: the sandboxed worker and the simulation both call these functions. Imports ``study``,
``privacy`` and ``models``. Start with ``site.py``.
"""
