# Everything runs from .venv; nothing is installed outside it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SERVED := $(VENV)/.served
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV     := uv==0.13.9
# Each test starts the service or a command, and each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
# Signer plugins and the client, which live here; each is a distribution of its own.
DISTRIBUTIONS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml clients/*/pyproject.toml))

# What these find depends on the machine, so nothing runs beside them.
MEASURED := tests/bench tests/docs/test_performance_docs.py tests/drill tests/rollout tests/soak
# These need a cluster.
ON_A_CLUSTER := tests/cluster

.DEFAULT_GOAL := help
.PHONY: help install serve test measure check fmt fuzz rotation-drill rollout-drill soak spire guard bench bench-callers bench-growth bench-page bench-vault runtime cluster generate lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with the locked dependencies (quick when nothing changed)

# What serving needs is a tenth of what the tests need.
$(SERVED): requirements/runtime.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "macp-auth needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMP): $(SERVED) requirements/dev.txt $(DISTRIBUTIONS:=/pyproject.toml)
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation $(addprefix --editable ./,$(DISTRIBUTIONS))
	@touch $@

serve: $(SERVED) ## serve on 127.0.0.1:3200 with an ephemeral key
	@$(BIN)/macp-auth serve

test: install ## the tests, a few at a time, for most of them wait: make test JOBS=1 for one
	$(BIN)/python -m pytest --numprocesses $(or $(JOBS),4) --dist worksteal $(addprefix --ignore ,$(MEASURED) $(ON_A_CLUSTER))

measure: install ## the tests that load the service and measure it: benchmarks, drills, rollouts, soak
	$(BIN)/python -m pytest $(MEASURED)

check: install ## lint, formatting, types, import contracts, stale files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@for distribution in $(DISTRIBUTIONS); do $(BIN)/mypy $$distribution || exit 1; done # apart: their tests share module names
	$(BIN)/lint-imports
	$(BIN)/python -m tools.generate --check

fmt: install ## format, and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: install ## generated bodies for as long as asked, then raw connections: make fuzz SECONDS=600 CONNECTIONS=100000
	$(BIN)/python -m tools.fuzz --seconds $(or $(SECONDS),60)
	$(BIN)/python -m tools.fuzz.raw --connections $(or $(CONNECTIONS),20000)

rotation-drill: install ## 100,000 tokens over many rotations, judged by real verifiers: some minutes
	$(BIN)/python -m tools.drill $(DRILL_ARGS)

rollout-drill: install ## replicas behind HAProxy are replaced under load: make rollout-drill ROUNDS=20 (needs haproxy)
	$(BIN)/python -m tools.rollout --rounds $(or $(ROUNDS),20)

soak: install ## steady load, and nothing may grow; then 500 slow sockets: make soak SECONDS=600
	$(BIN)/python -m tools.soak --seconds $(or $(SECONDS),600)

spire: install ## a real SPIRE rotates SVIDs and authorities under load (needs its programs: tools/spire)
	$(BIN)/python -m tools.spire --seconds $(or $(SECONDS),240)

guard: install ## instructions of our own code for a token: it may not take many more (needs valgrind)
	$(BIN)/python -m tools.bench.guard

bench: install ## a token's cost beside a bare signature, and beside any --peer: make bench BENCH_ARGS=--help (needs wrk)
	$(BIN)/python -m tools.bench $(BENCH_ARGS)

bench-growth: install ## how that grows with keys, scopes, connections, versions and plugins (needs wrk)
	$(BIN)/python -m tools.bench.growth $(BENCH_ARGS)

bench-callers: install ## what a callers file costs, with up to 100,000 grants
	$(BIN)/python -m tools.bench.callers $(BENCH_ARGS)

bench-page: install ## all four, for the figures and charts of docs/performance.md (needs wrk)
	$(BIN)/python -m tools.bench --page docs/performance.md --svg docs/performance.svg
	$(BIN)/python -m tools.bench.growth --page docs/performance.md --svg docs/performance-growth.svg
	$(BIN)/python -m tools.bench.callers --page docs/performance.md
	$(BIN)/python -m tools.bench.vault --page docs/performance.md

bench-vault: install ## vault-transit beside bare hvac calls, on an OpenBao of its own (needs wrk)
	$(BIN)/python -m tools.bench.vault $(BENCH_ARGS)

runtime: install ## build the real macp-runtime for the tests, once, in some minutes (needs cargo and protoc)
	$(BIN)/python -m tools.macp_runtime.build

cluster: install ## the chart on a real Kubernetes, built once in ten minutes: make cluster COMMAND=bash (needs root)
	$(BIN)/python -m tools.cluster $(COMMAND)

generate: install ## what follows from the declared settings: tables, .env.example, the chart's values
	$(BIN)/python -m tools.generate

lock: ## lock the dependencies anew, with hashes and without index addresses
	$(PYTHON) -m venv .cache/lock && .cache/lock/bin/pip install --quiet $(UV)
	.cache/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(LOCK_ARGS) \
	  -o requirements/runtime.txt pyproject.toml
	.cache/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(LOCK_ARGS) \
	  -c requirements/runtime.txt -o requirements/dev.txt pyproject.toml --group dev
	for name in build image; do .cache/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(LOCK_ARGS) \
	  -c requirements/dev.txt -o requirements/$$name.txt requirements/$$name.in || exit 1; done

clean: ## remove .venv and caches
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
