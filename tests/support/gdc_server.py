"""A GDC API in miniature on this machine, for tests: it replays documented answers and misbehaves on demand.

Search endpoints answer ``{"data": {"hits", "pagination"}, "warnings"}`` page by page; ``/data/<id>`` serves bytes and
understands ``Range``.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HEADER = "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\ttpm_unstranded"
GENES = ("TSPAN6", "TP53", "CDH1", "ESR1")


def star_counts(seed: int) -> bytes:
    """Return a STAR-counts file: a comment, the header, four summary rows, genes."""
    lines = ["# gene-model: GENCODE v36", HEADER + "\tfpkm_unstranded\tfpkm_uq_unstranded"]
    lines += [
        f"{name}\t\t\t{seed}\t{seed}\t{seed}\t\t\t"
        for name in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
    ]
    for i, gene in enumerate(GENES):
        lines.append(f"ENSG0000000000{i}.{i + 3}\t{gene}\tprotein_coding\t9\t4\t5\t{seed + i}.5\t1.0\t1.0")
    lines.append("ENSG00000000009.1\tTP53\tprotein_coding\t9\t4\t5\t100.0\t1.0\t1.0")
    lines.append("ENSG00000000001.4_PAR_Y\tTP53\tprotein_coding\t9\t4\t5\t7777.0\t1.0\t1.0")
    lines.append("ENSG00000000008.1\tMIR1-1\tmiRNA\t9\t4\t5\t3.0\t1.0\t1.0")
    return ("\n".join(lines) + "\n").encode()


def case(number: int, stage: str | None = "Stage IIA") -> dict[str, Any]:
    """Return one hit of ``/cases``."""
    return {
        "id": str(uuid.UUID(int=number)),
        "submitter_id": f"TCGA-BH-A{number:03d}",
        "project": {"project_id": "TCGA-BRCA"},
        "demographic": {
            "age_at_index": 50 + number % 40,
            "gender": "female",
            "race": "white",
            "ethnicity": "not hispanic or latino",
            "vital_status": "Alive",
        },
        "diagnoses": [
            {
                "primary_diagnosis": "Metastasis",
                "classification_of_tumor": "metastasis",
                "ajcc_pathologic_stage": "Stage IV",
            },
            {
                "ajcc_pathologic_stage": stage,
                "ajcc_pathologic_t": "T2",
                "ajcc_pathologic_n": "N1",
                "ajcc_staging_system_edition": "6th",
                "classification_of_tumor": "primary",
                "primary_diagnosis": "Infiltrating duct carcinoma, NOS",
                "prior_malignancy": "no",
                "prior_treatment": "No",
                "tumor_grade": "Not Reported",
                "year_of_diagnosis": 2009,
            },
        ],
        "exposures": [{"pack_years_smoked": None, "tobacco_smoking_status": "Lifelong Non-Smoker"}],
    }


def listing(number: int, body: bytes, *, sample: str = "01A", **changes: Any) -> dict[str, Any]:
    """Return one hit of ``/files``."""
    barcode = f"TCGA-BH-A{number:03d}"
    return {
        "id": str(uuid.UUID(int=1000 + number)),
        "file_id": str(uuid.UUID(int=1000 + number)),
        "file_name": f"{uuid.UUID(int=2000 + number)}.rna_seq.augmented_star_gene_counts.tsv",
        "md5sum": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        "file_size": len(body),
        "access": "open",
        "state": "released",
        "cases": [{"submitter_id": barcode, "samples": [{"submitter_id": f"{barcode}-{sample}"}]}],
        **changes,
    }


class GdcServer:
    """The server; ``troubles`` is a list of what the next answers of ``/data`` or the search do instead.

    ``withheld`` maps ids of files that are never given to the status of that answer.

    A trouble is ``("status", 503, {"Retry-After": "0"})``, ``("cut", bytes_sent)`` or ``("ignore-range",)``.
    """

    def __init__(self, page: int = 2) -> None:
        self.cases: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []
        self.bodies: dict[str, bytes] = {}
        self.troubles: list[tuple[Any, ...]] = []
        self.withheld: dict[str, int] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.page = page
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(("POST", self.path, None))
                if server._in_trouble(self, b""):
                    return
                hits = {"/cases": server.cases, "/files": server.files}[self.path]
                start, size = question["from"], min(question["size"], server.page)
                page = hits[start : start + size]
                pagination = {
                    "count": len(page),
                    "total": len(hits),
                    "size": size,
                    "from": start,
                    "sort": "",
                    "page": 1,
                }
                body = json.dumps({"data": {"hits": page, "pagination": pagination}, "warnings": {}}).encode()
                server._send(self, 200, body, {"Content-Type": "application/json"})

            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.requests.append(("GET", self.path, wanted))
                file_id = self.path.rsplit("/", 1)[1]
                if file_id in server.withheld:
                    server._send(self, server.withheld[file_id], b"", {})
                    return
                body = server.bodies[file_id]
                if server._in_trouble(self, body):
                    return
                if wanted is None:
                    server._send(self, 200, body, {"Content-Disposition": "attachment; filename=x.tsv"})
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
                server._send(self, 206, body[start:], headers)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> GdcServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def publish(self, number: int, body: bytes | None = None, **changes: Any) -> None:
        """Offer one case with its file."""
        content = star_counts(number) if body is None else body
        self.cases.append(case(number))
        hit = listing(number, content, **changes)
        self.files.append(hit)
        self.bodies[hit["file_id"]] = content

    def _in_trouble(self, handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        if not self.troubles:
            return False
        kind, *rest = self.troubles.pop(0)
        if kind == "status":
            self._send(handler, rest[0], b"", rest[1])
        elif kind == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[: rest[0]])
            handler.close_connection = True
        elif kind == "ignore-range":
            self._send(handler, 200, body, {})
        return True

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
