# Every command of the repository. A fresh machine needs only make and Python 3.11 to 3.13 with venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first interpreter that the package supports; `make setup PYTHON=/path/to/python` names another.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	if $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	then echo $$name; break; fi; done)
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml

# The tests of a file share servers; most of their time is waiting, so there may be more processes than cores.
SPREAD := --dist loadfile

SOURCES := $(wildcard core api client worker operator cli migrations)

# The peers that benchmarks compare with; their pins do not agree with ours.
PEERS := .venv-bench
BENCH_LOCK := $(subst pyproject.toml,benchmarks/peers/requirements.in,$(LOCK))

.PHONY: help setup up demo test test-faults test-e2e test-compose env image bench bench-api soak lint types format lock clean openapi crd test-cluster audit test-chart chart-table bench-operator test-monitoring

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv and install the locked dependencies (once, and again when the lock changes)

up: setup ## Run the whole platform on this machine, without Docker or Kubernetes
	$(BIN)/taskflow up

demo: setup ## Start a platform, run one task of each type, show the results, stop it
	$(BIN)/taskflow demo --embedded

test: setup ## Run every test that needs no cluster and no Docker, a file at a time in four processes
	$(BIN)/pytest $(SPREAD) -n 4

test-faults: setup ## Kill, freeze, cut off and overload the platform; ends with a table of figures (5 to 8 minutes, Linux)
	$(BIN)/pytest tests/faults $(SPREAD) -n 2

test-e2e: setup ## Install the platform on the cluster of KUBECONFIG (or kind's) and break it there
	$(BIN)/pytest tests/e2e

test-compose: setup ## Run the images and the stack of docker compose, on the images of STAND_INS=1 make image
	$(BIN)/pytest tests/compose

env: ## Write .env with new secrets for docker compose
	hack/env.sh

image: ## Build both images and the one of the cluster's tests
	hack/images.sh

test-monitoring: setup ## Try alerts with promtool, and every query with a real Prometheus (Debian: apt-get install prometheus)
	PROMETHEUS_BIN=$$(hack/prometheus.sh) $(BIN)/pytest tests/monitoring

test-cluster: setup ## Run the operator's tests against a real Kubernetes API server, from KUBEBUILDER_ASSETS
	$(BIN)/pytest tests/cluster

test-chart: setup ## Render, install, upgrade and remove the Helm chart: on an API server and the cluster of KUBECONFIG
	$(BIN)/pytest tests/chart

chart-table: setup ## Write the table of values into the chart's README
	$(BIN)/python tests/chart/values_table.py

bench: setup ## Measure throughput, latency, memory and growth beside the peers; writes benchmarks/RESULTS.md
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	$(BIN)/python benchmarks/run.py --peers $(PEERS)/bin

bench-api: setup ## Measure the API beside a Node server and a synchronous endpoint; writes benchmarks/API.md
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	$(BIN)/python benchmarks/run.py --api --peers $(PEERS)/bin

bench-operator: setup ## Measure one operator over 500 clusters with 10,000 pods; writes benchmarks/OPERATOR.md (KUBEBUILDER_ASSETS)
	PYTHONPATH=tests $(BIN)/python benchmarks/clusters.py

soak: setup ## A steady load for half an hour beside an idle transaction; writes benchmarks/SOAK.md
	$(BIN)/python benchmarks/soak.py

lint: setup ## Check style, formatting, the directions of imports and the Dockerfiles
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile tests/images/*Dockerfile

types: setup ## Check the types, tests included
	$(BIN)/mypy

format: setup ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: setup ## Look for unsafe code (bandit) and for known holes of what images hold (pip-audit; asks a service)
	$(BIN)/uv tool run --quiet bandit@1.9.4 --quiet --configfile pyproject.toml --recursive $(SOURCES)
	@$(BIN)/uv tool run --quiet pip-audit@2.10.1 --strict --disable-pip --require-hashes \
		$(foreach lock,platform operator,--requirement requirements/$(lock).txt) || { \
		echo "make audit: pip-audit names holes above, or could not reach its service: then NOTHING is known about them" >&2; exit 1; }

openapi: setup ## Write docs/openapi.json from the code
	$(BIN)/python -m taskflow_api.document > docs/openapi.json

crd: setup ## Generate the CustomResourceDefinition and the operator's RBAC from the code
	$(BIN)/python -m taskflow_operator.crd > charts/taskflow/files/crd.yaml
	$(BIN)/python -m taskflow_operator.rbac > charts/taskflow/files/rbac.yaml

lock: setup ## Renew the locked dependencies within the bounds of pyproject.toml
	$(LOCK) --upgrade --extra embedded --extra operator --extra dev --output-file requirements/dev.txt
	$(LOCK) --upgrade --output-file requirements/platform.txt --constraints requirements/dev.txt
	$(LOCK) --upgrade --extra operator --output-file requirements/operator.txt --constraints requirements/dev.txt
	echo 'hatchling>=1.27' | $(subst pyproject.toml,-,$(LOCK)) --upgrade --output-file requirements/build.txt \
		--constraints requirements/dev.txt
	$(BENCH_LOCK) --upgrade --output-file requirements/bench.txt

clean: ## Remove what the commands made (.venv, caches, builds); keeps .taskflow, the platform's data
	rm -rf $(VENV) $(PEERS) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 to 3.13 found; install one, or: make setup PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) cannot create environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
