"""Statistics of patients: under the ledger by ``hub.analytics(...)``, simulated by ``tessera.analytics(...)``.

Start reading at :mod:`tessera.statistics.asking`.
"""
