"""Where blobs lie besides the orchestrator's folder: an S3-compatible store. Knows no study and no round.

The only importer of obstore. Start with ``bucket.py``.
"""
