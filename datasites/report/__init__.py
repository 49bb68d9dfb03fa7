"""The privacy budget audit report of a datasite: built once, written as web page, PDF and JSON.

    >>> report = build_report(site=..., institution=..., records=Records.read(folder, ...), requests=requests)
    >>> write_all(report, folder / "reports")

Drawing and accounting import matplotlib, typst and dp-accounting; only the modules that need them do. Start with
``build.py``.
"""

from datasites.report.build import build_report
from datasites.report.facts import EmpiricalAudit, Report
from datasites.report.records import Records
from datasites.report.writing import json_schema, read_json, write_all, write_html, write_json, write_pdf

__all__ = [
    "EmpiricalAudit",
    "Records",
    "Report",
    "build_report",
    "json_schema",
    "read_json",
    "write_all",
    "write_html",
    "write_json",
    "write_pdf",
]
