"""What stands behind the accounts of one datasite: rows, passwords, sessions and tokens, attempts, and who vouches.

:class:`datasites.review.accounts.AccountStore` puts these together; nothing else imports the rows.
Start with ``rows.py``, then ``passwords.py``.
"""
