# Every target first makes .venv; `setup` costs nothing when it is up to date.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-unit thorough check bench chaos docker audit results

setup: $(STAMP)

# torch goes first and exactly pinned: an open range would pull gigabytes of CUDA libraries.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/tessera demo

# Both halves always run. Whole consortia come last, two at a time: half the time they wait for processes and deadlines.
test test-unit thorough: export OMP_NUM_THREADS = 1
test test-unit thorough: export PYTHONDONTWRITEBYTECODE =

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not thorough" tests/unit tests/component tests/attacks; first=$$?; \
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not thorough" tests/consortium && exit $$first

# The sweeps that `make test` leaves half done: every fault at every write, ten thousand mutated uploads, more kills.
thorough: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m thorough tests/unit tests/component tests/attacks tests/consortium

# What needs no process and no socket: about a minute.
test-unit: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/unit

# compose.yaml on a real Docker engine: builds the image, trains with three hospitals, takes everything down.
docker: setup
	$(BIN)/python -m pytest -m docker tests/docker

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Known vulnerabilities in what is installed; without advisories (no index that gives them) it says so and ends well.
audit: setup
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	$(BIN)/python .ci/audit.py

bench: setup
	$(BIN)/python benchmarks/encryption.py --parameters 1000000 --sites 10 --json
	$(BIN)/python benchmarks/round.py --json
	$(BIN)/python benchmarks/round.py --parameters 700000 --sites 9 --no-training --json
	$(BIN)/python benchmarks/dp_sgd.py --json
	$(BIN)/python benchmarks/uploads.py --sites 50 --json

# Two hundred processes of a consortium are killed; about half an hour on two quiet cores.
chaos: setup
	$(BIN)/python benchmarks/chaos.py --kills 200 --seed 1 --json

# Writes docs/results-tables.md and build/results.html (plots); a measurement that has its JSON is not repeated.
results: setup
	$(BIN)/python benchmarks/results.py --data ../shared/data/tcga
