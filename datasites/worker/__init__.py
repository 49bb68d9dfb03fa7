"""The sandboxed process in which training runs: a job goes in, a result comes out.

The only room with fork, resource limits, seccomp and Landlock. Foreign code runs here and nowhere else. Imports
``training``, ``data``, ``review`` and what lies below them. Start with ``job.py``, then ``pool.py``.
"""
