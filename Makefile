# Each target does its own set-up: `make demo` or `make test` on a clean clone is enough.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUTPUT ?= outputs/demo
SEED ?= 0
RUNS ?= 1000
MINUTES ?= 30
TEST_PROCESSES ?= 2

.PHONY: help install demo ui test chaos lint format sbom lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## make .venv from the lock

$(STAMP): requirements.lock pyproject.toml
	@bash infra/system_packages.sh
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV) (about 3 minutes, 7 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: install ## raw footage -> dataset -> both stages -> a refined video, through a local Ray
	@$(BIN)/python jobs/demo.py --out $(OUTPUT)

ui: install ## serve MLflow with the demo's runs on loopback
	@$(BIN)/python jobs/ui.py --output $(OUTPUT)

test: install ## every test
	@bash infra/system_packages.sh tests
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES)

chaos: install ## jobs disturbed at random for half an hour (SEED=0 MINUTES=30)
	@$(BIN)/python -m tests.chaos.long --runs $(RUNS) --seed $(SEED) --minutes $(MINUTES)

lint: install ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

sbom: install ## outputs/sbom: what is installed (CycloneDX), and under which licences
	@$(BIN)/python infra/sbom.py

lock: ## write requirements.lock from a fresh resolution of pyproject.toml
	@bash infra/lock.sh

clean: ## remove what the demo and the tools wrote (not .venv)
	@rm -rf outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis
