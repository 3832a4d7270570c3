# What one does with Switchyard. `make` lists it.

PORT ?= 8000
DATA ?= .switchyard
ARGS ?=
# Our modules have generic names: the checkout comes first on the path of our own code and of nothing else.
RUN := PYTHONPATH="$(CURDIR)" .venv/bin/python
COMPILE := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate $(ARGS)

ifdef PYTHON
export PYTHON
endif

.DEFAULT_GOAL := help
.PHONY: help run test lint schema baseline bench fuzz lock venv-run venv-dev

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: venv-run ## Start everything on this machine: make run PORT=8100 DATA=some/folder
	@PYTHONPATH="$(CURDIR)" exec .venv/bin/python cli.py run --port "$(PORT)" --data "$(DATA)"

test: venv-dev ## Run the tests: make test ARGS="tests/unit -k settings"
	$(RUN) -m pytest $(ARGS)

lint: venv-dev ## Check style, types, imports, schema.graphql and migrations, as CI does
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy .
	PYTHONPATH="$(CURDIR)" .venv/bin/lint-imports
	$(RUN) cli.py schema --check
	$(RUN) cli.py migrate --check

schema: venv-run ## Write schema.graphql and .env.example from the code
	$(RUN) cli.py schema > schema.graphql.new && mv schema.graphql.new schema.graphql
	$(RUN) cli.py settings > .env.example.new && mv .env.example.new .env.example

baseline: venv-dev ## Write models/baseline.sql, after a migration was added
	$(RUN) -m tests.harness.schema_dump

bench: venv-dev ## Measure: make bench ARGS="--help"
	$(RUN) -m tests.bench $(ARGS)

fuzz: venv-dev ## Ask the API for everything that is odd: make fuzz ARGS="--examples 50"
	$(RUN) -m tests.fuzz $(ARGS)

lock: venv-dev ## Lock the dependencies again: make lock ARGS=--upgrade
	$(COMPILE) pyproject.toml --group dev -o requirements-dev.lock
	$(COMPILE) pyproject.toml --constraint requirements-dev.lock -o requirements.lock
	echo uv | $(COMPILE) - -o requirements-uv.lock

venv-run:
	@.ci/venv run

venv-dev:
	@.ci/venv dev
