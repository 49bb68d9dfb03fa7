"""What every role's process is made of.

Role folder, roster, TLS, tokens, HTTP client, life and death of a process, and the memory that notices a restored
backup. It knows no room but ``study``. Start with ``home.py``, then ``process.py``.
"""
