"""Ways to drive a study on one machine, for benchmarks and tests: its processes, its proposal, the same in the clear.

Start with :mod:`harness.consortium`. A script in ``benchmarks/`` imports this package from its own folder; tests get
it from ``tests/support/benchmarks.py``.
"""
