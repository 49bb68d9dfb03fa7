"""What a role that only keeps the books or reads a proposal must not wait for."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_mechanism_imports_neither_torch_nor_an_accountant() -> None:
    heavy = "('torch', 'opacus', 'dp_accounting', 'numpy')"
    code = f"import sys, privacy.dp.mechanism; print([n for n in {heavy} if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_keeping_the_books_imports_neither_torch_nor_the_accountant() -> None:
    heavy = "{'torch', 'dp_accounting', 'scipy'}"
    code = f"import sys, privacy.ledger.ledger, privacy.ledger.verification; print({heavy} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_a_hospitals_process_and_the_status_command_start_without_an_accountant() -> None:
    heavy = "{'torch', 'dp_accounting', 'scipy', 'matplotlib', 'typst'}"
    modules = "datasites.hospital.daemon, orchestrator.studies.status, orchestrator.cli.main"
    code = f"import sys, {modules}; print({heavy} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_asking_for_the_status_imports_neither_a_database_nor_a_ledger() -> None:
    code = "import sys, orchestrator.studies.status; print({'sqlalchemy', 'privacy.ledger.ledger'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
