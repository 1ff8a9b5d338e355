# The two commands to begin with: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
LINT := .venv-lint/bin

.PHONY: help setup demo test judges lint format bench docs pictures lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready  ## build .venv from the pinned versions

.venv/ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c '' || { echo "$(PYTHON) does not run: install Python 3.11 or newer, or name it: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, and $(PYTHON) is `$(PYTHON) -V 2>&1`: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@echo "building .venv (once) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv-lint/ready: requirements/lint.txt
	@$(PYTHON) -m venv .venv-lint
	@$(LINT)/pip install --quiet --disable-pip-version-check -r requirements/lint.txt
	@touch $@

judges: .venv-deploy/ready  ## what judges the deployment files, for make test

.venv-deploy/ready: requirements/deploy.txt
	@$(PYTHON) -m venv .venv-deploy
	@.venv-deploy/bin/pip install --quiet --disable-pip-version-check -r requirements/deploy.txt
	@if command -v npm >/dev/null; then npm install --silent --no-save --prefix .venv-deploy dclint@3.1.0 pg@8.16.3; else echo "no npm here: dclint and pg are left out"; fi
	@touch $@

demo: .venv/ready  ## 2,000 mails, two workers, one of them killed: see what becomes of them
	@$(BIN)/python -m lab.demo

test: .venv/ready  ## all tests, on services that they start themselves
	@$(BIN)/python -m pytest

lint: .venv/ready .venv-lint/ready  ## style, strict types, import layers, SQL layout
	@$(LINT)/ruff format --check --quiet . && $(LINT)/ruff check --quiet .
	@$(LINT)/mypy --python-executable $(BIN)/python
	@PYTHONPATH=. $(LINT)/lint-imports --no-logo
	@$(LINT)/sqlfluff lint --disable-progress-bar -q sql

format: .venv-lint/ready  ## put Python and SQL into shape
	@$(LINT)/ruff check --quiet --fix . ; $(LINT)/ruff format --quiet . && $(LINT)/sqlfluff fix -q sql

bench: .venv/ready  ## the table of speeds (about 15 minutes; BENCH="--quick" for a look)
	@$(BIN)/python -m lab.bench $(BENCH)

docs: .venv/ready  ## write the documents that are generated
	@$(BIN)/email-worker config --format env > .env.example
	@$(BIN)/email-worker config --format markdown > docs/configuration.md
	@$(BIN)/python -m lab.dashboards

pictures: .venv/ready  ## draw docs/pictures from the dashboards' questions after a real run (4 minutes; needs prometheus)
	@$(BIN)/python -m lab.dashboard_pictures

lock: .venv-lint/ready  ## pin the newest versions that fit
	@$(LINT)/uv pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate --extra dev pyproject.toml -o requirements/dev.txt
	@$(LINT)/uv pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate requirements/lint.in -o requirements/lint.txt
	@$(LINT)/uv pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate pyproject.toml -o requirements/production.txt
	@$(LINT)/uv pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate requirements/deploy.in -o requirements/deploy.txt

clean:  ## remove what make built
	@rm -rf .venv .venv-lint .venv-deploy demo-mails
