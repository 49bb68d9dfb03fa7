"""From noised histograms to figures: AUROC, calibration, concordance, with intervals that include the noise.

Pure post-processing of released sums; it imports nothing of the round's machinery. Start with ``dp_evaluation.py``.
"""
