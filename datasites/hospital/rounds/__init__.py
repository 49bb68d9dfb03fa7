"""What a hospital does in a round: it attests, trains, charges, encrypts, uploads, signs and checks.

It may use every room below ``hospital``, and of the hospital's own modules ``thread.py`` alone. Start with
``taking_part.py``.
"""
