"""What a study may choose: weights, blending, proximity.

Pure functions over public numbers. Imports ``datasites.study`` and ``datasites.training``. Start with
``planning.py``.
"""
