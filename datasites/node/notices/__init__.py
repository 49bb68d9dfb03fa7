"""Notices: what waits for a person reaches them by e-mail (SMTP) and webhook, with retries, reminders and delegates.

Start with ``settings.py``, which reads ``notices.toml`` of a role's folder; ``outbox.py`` keeps what is to be sent, and
``delivery.py`` sends it.
A notice names a study, a hospital and an address, and never a patient or a number about patients.
"""
