# The service runs from .venv-serve, everything else from .venv; nothing is installed outside of them.
PYTHON ?= python3
# An interpreter that is named gets an environment of its own: make test PYTHON=python3.12 makes .venv-3.12.
VENV   := .venv$(if $(filter file,$(origin PYTHON)),,-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SERVED := .venv-serve/.installed
INSTALL := -m pip install --quiet --disable-pip-version-check
UV     := .cache/uv/bin/uv
# The site's tools are in an environment of their own.
DOCS   := .venv-docs
# So are those of a release.
RELEASE := .cache/release
# Each test starts the service or a command, and each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
# Signer plugins, the template of one, and the client, which live here; each is a distribution of its own.
DISTRIBUTIONS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml clients/*/pyproject.toml \
  src/macp_auth/plugin_template/pyproject.toml))

# What these find depends on the machine, so nothing runs beside them.
MEASURED := tests/bench tests/docs/test_performance_docs.py tests/drill tests/rollout tests/soak
# What requests cost says nothing while coverage measures, too.
COSTS := tests/process/test_request_cost.py
# These need a cluster.
ON_A_CLUSTER := tests/cluster
# Where most tests start no process, and those that do are marked.
UNITS := tests/domain tests/application tests/simulation tests/adapters tests/http tests/server tests/audit \
  tests/pictures tests/test_settings.py tests/test_signer_settings.py tests/test_logs.py
# Most tests wait for a process, so more of them than there are cores run at once. One worker runs the tests of a file:
# what they share is started once.
PYTEST := $(if $(COVERAGE),-m coverage run) -m pytest --numprocesses $(or $(JOBS),5) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install serve test test-fast test-slow test-failed coverage test-pythons measure check fmt fuzz rotation-drill rollout-drill soak spire guard bench bench-callers bench-growth bench-page bench-plugins bench-vault runtime cluster docs docs-publish docs-serve generate pictures lock chart dist sbom clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with the locked dependencies (quick when nothing changed)

# Where Debian lacks python3-venv, an environment has a python and no pip.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "macp-auth needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(1)/bin/python && test -x $(1)/bin/pip || $(PYTHON) -m venv $(1)
endef

$(STAMP): requirements/dev.txt pyproject.toml $(DISTRIBUTIONS:=/pyproject.toml)
	$(call environment,$(VENV))
	$(BIN)/python $(INSTALL) --require-hashes -r requirements/dev.txt
	$(BIN)/python $(INSTALL) --no-deps --no-build-isolation --editable . $(addprefix --editable ./,$(DISTRIBUTIONS))
	@touch $@

# What serving needs is a tenth of what the tests need. The lock is complete but for requirements/unused.in, so --no-deps.
$(SERVED): requirements/runtime.txt requirements/build.txt pyproject.toml
	$(call environment,.venv-serve)
	.venv-serve/bin/python $(INSTALL) --no-deps --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	.venv-serve/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

serve: $(SERVED) ## serve on 127.0.0.1:3200 with an ephemeral key
	@.venv-serve/bin/macp-auth serve

test: install ## the tests, but for the slow ones: make test JOBS=1 for one at a time
	$(BIN)/python $(PYTEST) -m "not slow" $(addprefix --ignore ,$(MEASURED) $(ON_A_CLUSTER) $(if $(COVERAGE),$(COSTS)))

test-fast: install ## the unit tests, which start no process
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal -m "not slow and not process" $(UNITS)

test-slow: install ## the slow tests: services of their own, faults, loads, long tables
	$(BIN)/python $(PYTEST) -m slow $(addprefix --ignore ,$(MEASURED) $(ON_A_CLUSTER))

test-failed: install ## those that failed last time, one at a time
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none

coverage: install ## which branches of src both ran: make test test-slow coverage COVERAGE=1
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet --directory .cache/coverage/html --fail-under=0
	$(BIN)/python -m coverage report

test-pythons: install $(UV) ## the unit tests, and a service, on each other supported Python that is found
	$(BIN)/python -m tools.pythons --uv $(UV)

measure: install ## the tests that load the service and measure it: benchmarks, drills, rollouts, soak
	$(BIN)/python -m pytest $(MEASURED)

check: install ## lint, formatting, types, import contracts, stale files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@for distribution in $(filter-out src/%,$(DISTRIBUTIONS)); do $(BIN)/mypy $$distribution || exit 1; done # apart: their tests share module names
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

bench-plugins: install ## what a plugin's own process costs a signature and the start
	$(BIN)/python -m tools.bench.plugins $(BENCH_ARGS)

bench-page: install ## all five, for the figures and charts of docs/performance.md (needs wrk)
	$(BIN)/python -m tools.bench --page docs/performance.md --svg docs/performance.svg
	$(BIN)/python -m tools.bench.growth --page docs/performance.md --svg docs/performance-growth.svg
	$(BIN)/python -m tools.bench.callers --page docs/performance.md
	$(BIN)/python -m tools.bench.vault --page docs/performance.md
	$(BIN)/python -m tools.bench.plugins --page docs/performance.md

bench-vault: install ## vault-transit beside bare hvac calls, on an OpenBao of its own (needs wrk)
	$(BIN)/python -m tools.bench.vault $(BENCH_ARGS)

runtime: install ## build the real macp-runtime for the tests, once, in some minutes (needs cargo and protoc)
	$(BIN)/python -m tools.macp_runtime.build

cluster: install ## the chart on a real Kubernetes, built once in ten minutes: make cluster COMMAND=bash (needs root)
	$(BIN)/python -m tools.cluster $(COMMAND)

$(DOCS)/.installed: requirements/docs.txt requirements/build.txt pyproject.toml
	$(call environment,$(DOCS))
	$(DOCS)/bin/python $(INSTALL) --require-hashes -r requirements/docs.txt -r requirements/build.txt
	$(DOCS)/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Warnings are errors: a broken link or anchor, a page outside of the navigation.
docs: $(DOCS)/.installed ## the documentation site, in .cache/site/html
	@rm -rf .cache/site/html
	$(DOCS)/bin/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --conf-dir docs --doctree-dir .cache/site/doctrees . .cache/site/html

docs-publish: docs ## the site as DOCS_VERSION=0.1 (or dev) into the folder of all versions: DOCS_FOLDER=pages DOCS_BASE=/macp-auth/
	$(DOCS)/bin/python -m tools.site.versions --base $(or $(DOCS_BASE),/) $(DOCS_FOLDER) $(or $(DOCS_VERSION),dev)

docs-serve: $(DOCS)/.installed ## the documentation site on 127.0.0.1:8000, built again when a page changes
	$(DOCS)/bin/sphinx-autobuild --conf-dir docs --doctree-dir .cache/site/doctrees --watch src/macp_auth --ignore '$(CURDIR)/.*' . .cache/site/html

generate: install ## what follows from the declared settings: tables, .env.example, the chart's values
	$(BIN)/python -m tools.generate

pictures: install ## the pictures of the pages about rotation
	$(BIN)/python -m tools.pictures

$(UV):
	$(PYTHON) -m venv .cache/uv && .cache/uv/bin/python $(INSTALL) uv==0.13.9

lock: $(UV) ## lock the dependencies, with hashes and without index addresses
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(LOCK_ARGS) \
	  --override requirements/unused.in -o requirements/runtime.txt pyproject.toml
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(LOCK_ARGS) \
	  -c requirements/runtime.txt -o requirements/dev.txt pyproject.toml --group dev
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(LOCK_ARGS) \
	  -c requirements/dev.txt -o requirements/docs.txt pyproject.toml --extra testing --group docs
	for name in build image release; do $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(LOCK_ARGS) \
	  -c requirements/dev.txt -o requirements/$$name.txt requirements/$$name.in || exit 1; done

chart: ## lint the chart, and package it into dist/ (needs helm)
	$(or $(HELM),helm) lint --strict deploy/helm/macp-auth
	$(or $(HELM),helm) package --destination dist deploy/helm/macp-auth

$(RELEASE)/.installed: requirements/release.txt
	$(call environment,$(RELEASE))
	$(RELEASE)/bin/python $(INSTALL) --require-hashes -r requirements/release.txt
	@touch $@

dist: $(RELEASE)/.installed ## sdists and wheels of the service, the client and the plugins, in dist/
	rm -f dist/*.tar.gz dist/*.whl
	for distribution in . $(filter-out src/%,$(DISTRIBUTIONS)); do \
	  $(RELEASE)/bin/python -m build --no-isolation --outdir dist $$distribution || exit 1; done
	$(RELEASE)/bin/twine check --strict dist/*.tar.gz dist/*.whl

sbom: $(RELEASE)/.installed ## what the service consists of, as CycloneDX: dist/macp-auth.cdx.json
	$(PYTHON) -m venv --clear --without-pip .cache/sbom
	$(RELEASE)/bin/python -m pip --python .cache/sbom/bin/python install --quiet --no-deps --require-hashes -r requirements/runtime.txt
	version=$$(sed -n 's/^__version__ = //p' src/macp_auth/__init__.py) && \
	  sed "s/^dynamic = .*/version = $$version/" pyproject.toml >.cache/sbom/pyproject.toml
	mkdir -p dist && $(RELEASE)/bin/cyclonedx-py environment --pyproject .cache/sbom/pyproject.toml --output-reproducible \
	  --output-file dist/macp-auth.cdx.json .cache/sbom/bin/python

clean: ## remove the environments and caches
	rm -rf .venv .venv-* .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
