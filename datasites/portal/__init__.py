"""The data owner's web pages and the JSON beside them.

It decides nothing: it shows what ``review``, ``report`` and the hospital's process know and passes on what a person
does. Of the hospital's rooms only this one has page templates. Start with ``app.py``, then ``service.py``.
"""
