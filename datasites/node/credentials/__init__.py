"""What proves who somebody is: TLS certificates, request tokens and signatures inside PDF files.

It knows the role's folder (``home.py``) and nothing of a study. Start with ``tokens.py``.
"""
