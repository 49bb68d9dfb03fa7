"""What hospitals have besides tables: SQL queries, OMOP CDM, FHIR Bulk NDJSON, AnnData; each becomes tables of text.

``tessera datasite extract`` writes them into a private folder; ``tessera datasite ingest`` reads that by the schema.
Nothing is interpreted here: a value goes with its unit into its cell, and what was passed over is counted. Start with
``extraction.py``.
"""
