"""Published tables on disk, and the way from a source to them.

A dataset is a schema, a private part and a mock part. Imports ``review``, ``node``, ``study`` and the packages below.
Start with ``dataset.py``; ``tcga/`` says what the TCGA tables mean, ``convert/`` reads what the GDC and cBioPortal
hand out.
"""
