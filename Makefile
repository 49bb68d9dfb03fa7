# Every target first makes .venv; `setup` costs nothing when it is up to date.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Nothing is installed that has no hash in constraints-hashed.txt, and nothing is built from source but ourselves.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
HASHED := $(PIP) --require-hashes --only-binary :all: -c constraints-hashed.txt

.PHONY: setup lock wheel sbom demo test test-unit thorough check bench chaos tables docker charts objects audit results

setup: $(STAMP)

# An older pip takes no hashes from constraints, so ours comes first.
$(VENV)/.pip: constraints-hashed.txt .ci/locked.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python .ci/locked.py pinned pip > $(VENV)/pip.txt
	$(PIP) --require-hashes -r $(VENV)/pip.txt
	touch $@

# torch goes first: only then does pip take a wheel without CUDA that lies in its folder.
$(STAMP): pyproject.toml $(VENV)/.pip
	$(BIN)/python .ci/locked.py torch > $(VENV)/torch.txt
	$(HASHED) -r $(VENV)/torch.txt
	$(BIN)/python .ci/locked.py requirements dev > $(VENV)/dev.txt
	$(HASHED) -r $(VENV)/dev.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# What `make lock`, `make sbom` and `make audit` use beside it.
$(VENV)/.supply: pyproject.toml $(VENV)/.pip
	$(BIN)/python .ci/locked.py requirements supply > $(VENV)/supply.txt
	$(HASHED) -r $(VENV)/supply.txt
	touch $@

# After a change of constraints.txt: asks the package index for the hashes of every file of every version named there.
lock: $(VENV)/.pip
	$(HASHED) uv
	$(BIN)/python .ci/locked.py write

# The same bytes from the same commit, wherever and whenever it is built.
wheel: setup
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel -d dist
	cd dist && sha256sum *.whl

# Software bill of materials (CycloneDX) of what a role runs: build/sbom.cdx.json.
sbom: setup $(VENV)/.supply
	$(BIN)/python .ci/sbom.py build/sbom.cdx.json

demo: setup
	$(BIN)/tessera demo

# Whole consortia run beside all other tests: half the time they wait for processes and deadlines. So do browsers,
# servers and workers, which is why there are more workers than the two cores that this is made for; set JOBS to change
# it. Both halves always run, and what consortia print follows when both have ended.
JOBS ?= 3
CONSORTIA := build/consortia.txt
test test-unit thorough: export OMP_NUM_THREADS = 1
test test-unit thorough: export PYTHONDONTWRITEBYTECODE =

test: setup
	@mkdir -p build; \
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not thorough" tests/consortium > $(CONSORTIA) 2>&1 & consortia=$$!; \
	trap 'kill $$consortia; exit 130' INT TERM HUP; \
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not thorough" tests/unit tests/component tests/attacks; \
	first=$$?; wait $$consortia; second=$$?; \
	cat $(CONSORTIA); test $$first = 0 -a $$second = 0

# The sweeps that `make test` leaves half done: every fault at every write, ten thousand mutated uploads, more kills.
thorough: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m thorough tests/unit tests/component tests/attacks tests/consortium

# What needs no process and no socket: about a minute.
test-unit: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/unit

# Helm's own code and the schemas of Kubernetes, which nothing else needs.
charts: setup
	$(BIN)/python .ci/locked.py requirements charts > $(VENV)/charts.txt
	$(HASHED) -r $(VENV)/charts.txt
	$(BIN)/python -m pytest -n 0 -q tests/component/test_deployment.py

# Blobs in a bucket: the library for it, and a server that speaks S3, which nothing else needs. Nothing is resolved:
# botocore says that it wants an older python-dateutil than ours, and works with it.
OBJECTS := obstore moto boto3 botocore s3transfer jmespath responses xmltodict py-partiql-parser \
	flask flask-cors werkzeug blinker itsdangerous
objects: setup
	$(BIN)/python .ci/locked.py pinned $(OBJECTS) > $(VENV)/objects.txt
	$(PIP) --require-hashes --only-binary :all: --no-deps -r $(VENV)/objects.txt
	$(BIN)/python -m pytest -n 0 -q tests/component/orchestrator/rounds/test_objects.py

# compose.yaml on a real Docker engine: builds the image, trains with three hospitals, takes everything down.
docker: setup
	$(BIN)/python -m pytest -m docker tests/docker

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Known vulnerabilities in what is installed; without advisories (no index that gives them) it says so and ends well.
audit: setup $(VENV)/.supply
	$(BIN)/python .ci/audit.py

bench: setup
	$(BIN)/python benchmarks/encryption.py --parameters 1000000 --sites 10 --json
	$(BIN)/python benchmarks/round.py --json
	$(BIN)/python benchmarks/round.py --parameters 700000 --sites 9 --no-training --json
	$(BIN)/python benchmarks/dp_sgd.py --json
	$(BIN)/python benchmarks/uploads.py --sites 50 --json

# Ten thousand made-up hospital tables are read: no value, label or patient may be lost in silence (ten minutes).
tables: setup
	$(BIN)/python benchmarks/hospital_tables.py --tables 10000 --json

# Two hundred processes of a consortium with two orchestrators on one PostgreSQL are killed; about an hour on two cores.
chaos: setup
	$(BIN)/python benchmarks/chaos.py --kills 200 --seed 1 --standby --json

# Writes docs/results-tables.md and build/results.html (plots); a measurement that has its JSON is not repeated.
results: setup
	$(BIN)/python benchmarks/results.py --data ../shared/data/tcga
