# `make help` lists the targets. Only Python 3.11+, make and (for `setup`) a package index are needed; no root, no Docker.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
STATE ?= .sandbox
CLUSTERS ?= east,west
KUBERNETES ?= standin
DATABASE ?= sqlite
EXECUTOR ?= local
ORDER ?= delete_first
LOCK_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
UV_PIN := $(shell sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements-dev.txt)
VARIANT = --kubernetes $(KUBERNETES) --database $(DATABASE) --executor $(EXECUTOR)
REAL_KUBERNETES = tests/standins/test_kubernetes_*.py tests/sandbox/test_kubernetes_*.py tests/sandbox/test_faults_kubernetes*.py
# Processes of tests that wait for servers of their own, or for imports: two cores are busy with four. The matrix waits less.
WAITING := 4
CHECKED := dags include plugins standins sandbox tests $(wildcard benchmarks)

export PYTHONPATH := $(CURDIR):$(CURDIR)/plugins
# Where a shell forbids Python its bytecode (images of containers do), each process of Airflow compiles all that it imports:
# 12 s instead of 5 s of a core.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: audit bench bench-quick chaos chaos-real check check-connections clean demo down down-compose format help lint lock mutants nightly sbom setup status test test-airflow test-all test-browser test-clickhouse test-compose test-kubernetes test-long test-matrix test-real test-sandbox test-standins test-unit test-versions test-whole ui up up-compose
COMPOSE := docker compose -f docker-compose.yaml -f docker-compose.stack.yaml --profile celery
COMPOSE_STATE := .sandbox/compose


help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(STAMP) ## virtual environment with exactly the locked packages

$(STAMP): requirements.lock | $(BIN)/uv
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	touch $(STAMP)

# uv by pip, once; every other package by uv, from the lock. A virtual environment that was begun and not finished is
# finished.
$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python -a -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV_PIN)

demo: $(STAMP) ## sandbox up, one real cleanup, the table of removed rows (ORDER=reindex_first, KUBERNETES=real, DATABASE=postgres EXECUTOR=celery)
	$(BIN)/python -m sandbox.demo --state $(STATE) --order $(ORDER) $(VARIANT)

up: $(STAMP) ## sandbox only, until Ctrl-C (STATE=.sandbox, CLUSTERS=east,west)
	$(BIN)/python -m sandbox.stack up --state $(STATE) --clusters $(CLUSTERS) $(VARIANT)

down: $(STAMP) ## end a running sandbox, also one whose owner was killed
	$(BIN)/python -m sandbox.stack down --state $(STATE)

status: $(STAMP) ## what runs in the sandbox
	$(BIN)/python -m sandbox.stack status --state $(STATE)

check: lint test-unit test-airflow ## after every edit: style, types, import directions, unit and Airflow tests

test: check test-matrix test-sandbox ## lint, types, and all tests but those of minutes, which are test-whole

test-all: test test-whole test-standins test-long bench-quick ## everything

test-unit: $(STAMP) ## pure code, no Airflow
	$(BIN)/pytest tests/unit -n logical --maxprocesses 8

test-airflow: $(STAMP) ## triggers, operators, DAG files
	$(BIN)/pytest tests/airflow -n $(WAITING)

test-matrix: $(STAMP) ## what a user can choose, pair by pair, over the stand-ins
	$(BIN)/pytest tests/matrix -n 3 --dist worksteal --durations 10

test-standins: $(STAMP) ## the stand-ins alone; a green run is noted for .ci/run
	$(BIN)/pytest tests/standins -m "not chaos" -n logical --maxprocesses 4 --dist loadfile --durations 20
	.ci/standins tested

test-long: $(STAMP) ## the five runs of docs/first-runs.md, in a sandbox of their own
	$(BIN)/pytest tests/sandbox -m long -n 0

test-clickhouse: $(STAMP) ## what is relied on in ClickHouse, against the cluster at CLICKHOUSE_URL (CLICKHOUSE_USER, _PASSWORD, _CLUSTER), else the stand-in
	$(BIN)/pytest tests/standins/test_clickhouse_contract.py -rs

test-kubernetes: $(STAMP) ## the tests of Kubernetes' stand-in and of the product, against a real control plane (built with Go)
	$(BIN)/python -m standins.controlplane.build
	SANDBOX_KUBERNETES=real $(BIN)/pytest $(REAL_KUBERNETES) -n 2 --dist loadfile --timeout 300 --durations 20

test-real: $(STAMP) ## the main job on PostgreSQL and Celery, two of each (skipped without postgresql, redis-server)
	$(BIN)/pytest tests/sandbox/test_real_parts.py -m "real and not chaos" -rs --durations 5

chaos-real: $(STAMP) ## faults over PostgreSQL and Celery, then twenty over a real control plane, too: killed, frozen, restarted (long)
	$(BIN)/python -m standins.controlplane.build
	$(BIN)/pytest tests/sandbox/test_real_parts.py -m "real and chaos" -s -rs

# One process has the one running stack and all tests of it, the other one everything else. A second stack beside it makes
# both slower than one after the other: an Airflow that waits takes a third of a core (tried).
test-whole: $(STAMP) ## what a user can do, through a running Airflow: demo, REST API, command, browser (skipped without Chromium)
	$(BIN)/pytest tests/sandbox tests/browser -m "whole and not chaos" -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --durations 20

test-sandbox: $(STAMP) ## the product against the stand-ins with their faults, and a window through a running Airflow
	$(BIN)/pytest tests/sandbox -m "not whole and not chaos and not real and not long" -n $(WAITING) --dist loadgroup --no-loadscope-reorder --durations 10

test-browser: $(STAMP) ## Airflow's pages in Chromium alone
	$(BIN)/pytest tests/browser

check-connections: $(STAMP) ## a table of every connection, right and version: what works, what not, how to mend it
	$(BIN)/python -W ignore -m backfill.check

# Interpreters that uv finds on this machine (or can fetch, where it may). The lock is one for all of them.
VERSIONS ?= 3.11 3.12 3.13
test-versions: $(STAMP) ## unit and Airflow tests on each Python of VERSIONS with the locked packages (long)
	for version in $(VERSIONS); do \
		env=.sandbox/versions/$$version; \
		$(BIN)/uv venv --quiet --clear --python $$version $$env \
			&& $(BIN)/uv pip sync --quiet --python $$env/bin/python --require-hashes requirements.lock \
			&& $$env/bin/python -m pytest tests/unit tests/airflow -q || exit 1; \
	done

# What would be installed today: the newest of everything that pyproject.toml allows, with the tools of the lock.
nightly: $(STAMP) ## unit and Airflow tests with the newest packages that the project allows, not the locked ones (long)
	$(BIN)/uv venv --quiet --clear .sandbox/versions/newest
	sed 's/==.*//' requirements-dev.txt requirements.txt | grep -v '^-r' | sed 's/^celery$$/celery<5.7/' > .sandbox/versions/newest.txt
	$(BIN)/uv pip install --quiet --python .sandbox/versions/newest/bin/python -r .sandbox/versions/newest.txt
	$(BIN)/uv pip freeze --python .sandbox/versions/newest/bin/python | diff - <(sed -n 's/^\([^ ]*==[^ ]*\).*/\1/p' requirements.lock) || true
	.sandbox/versions/newest/bin/python -m pytest tests/unit tests/airflow -q

audit: $(STAMP) ## the lock and what is installed, as far as that can be judged without a network
	$(BIN)/python docs/bill.py --audit

sbom: $(STAMP) ## bill of materials of everything that is locked (CycloneDX), to .sandbox/sbom.cdx.json
	mkdir -p .sandbox
	$(BIN)/python docs/bill.py --sbom > .sandbox/sbom.cdx.json

# With LocalExecutor in .env or without: the stack is the celery profile.
up-compose: export AIRFLOW_EXECUTOR := CeleryExecutor
up-compose: ## the whole stack in containers: Airflow on Celery, ClickHouse, Temporal, k3s, data (needs docker and .env)
	mkdir -p $(COMPOSE_STATE)/images
	$(COMPOSE) build
	docker save --output $(COMPOSE_STATE)/images/reindexer.tar scorecard-backfill-reindexer:0.1.0
	$(COMPOSE) up --detach --wait --wait-timeout 900

test-compose: $(STAMP) up-compose ## the same, one real cleanup through the REST API against the truth, and down again
	$(BIN)/python -m sandbox.data --cluster sandbox-east --state $(COMPOSE_STATE) --seed 1
	set +e; ( set -a; . ./.env; set +a; $(BIN)/python -m sandbox.accept --url http://127.0.0.1:$${AIRFLOW_PORT:-8080} \
		--dag scorecard_backfill__sandbox-east --truth $(COMPOSE_STATE)/truth/sandbox-east.json ); \
	code=$$?; $(MAKE) --no-print-directory down-compose; exit $$code

down-compose: ## end it and remove its volumes
	$(COMPOSE) down --volumes

lint: $(STAMP) ## ruff, mypy, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: ## build the operator's page (ui/) into the plugin; needs Node.js 20 or newer
	cd ui && npm ci --silent && npm run --silent build

# BENCH_ARGS='--parts waiting --windows 10 100' and the like; python -m benchmarks --help lists them.
BENCH_ARGS ?=
bench: $(STAMP) ## what it costs, beside what people use instead: docs/benchmarks.md (about an hour)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-quick: $(STAMP) ## the same in small sizes, in under five minutes: it works; the figures are not kept
	$(BIN)/python -m benchmarks --quick

# MUTANTS=12000 is all of them: hours. MODULES: patterns divided by commas, also below plugins/backfill/.
SEED ?= 1
MUTANTS ?= 300
MODULES ?= include/scorecard_backfill/*
mutants: $(STAMP) ## which changes of the rules no unit test notices: a sample (SEED=1 MUTANTS=300 MODULES='include/scorecard_backfill/*')
	$(BIN)/python -m tests.kit.mutants --seed $(SEED) --number $(MUTANTS) --only '$(MODULES)'

chaos: $(STAMP) ## randomised killing of parts (long)
	$(BIN)/pytest tests/standins tests/sandbox -m "chaos and not real"

lock: | $(BIN)/uv ## resolve requirements*.txt into requirements.lock (LOCK_ARGS=--upgrade: newer transitive ones)
	$(BIN)/uv pip compile requirements-dev.txt --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-emit-index-url --quiet --custom-compile-command "make lock" $(LOCK_ARGS) --output-file requirements.lock

clean: ## remove caches, the virtual environment and the sandbox's state
	test ! -e $(STATE)/stack.lock || { test -x $(BIN)/python && $(BIN)/python -m sandbox.stack down --state $(STATE); }
	rm -rf $(STATE) $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
