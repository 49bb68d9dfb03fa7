"""From a scientist's wishes to a signed proposal: settings, schedules, calibrated noise, own code, what is filed.

It imports nothing of the study's later life. Start with ``settings.py``, then ``propose.py``.
"""
