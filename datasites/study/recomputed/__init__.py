"""What every party computes again from public numbers: plans, means, weights, next models, the chain.

Pure functions over the values beside this folder; numpy only. The orchestrator computes them first, each hospital
computes them again and compares. Start with ``planning.py``, then ``next_model.py`` and ``chain.py``.
"""
