# Python 3.11+ and make are all that a machine must have: every target makes what it needs in .venv.
PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
DATA   ?=
ROWS   ?=
STORE  ?=
CYCLES ?= 100
ARGS   ?=
DEMO    = $(BIN)/python -m shop.demo $(if $(DATA),--data '$(DATA)') $(if $(ROWS),--rows $(ROWS)) $(if $(STORE),--store $(STORE)) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup gen check lint mypy pyright shape up-to-date test demo run bench torture clean

help: ## Print this help
	@echo 'ceqs: event-centric gRPC services from protobuf contracts.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'First time here? Try: make demo'

setup: $(READY) ## Make .venv with everything that the other targets need (they do it themselves)

gen: $(READY) ## Generate generated/python from proto/
	$(BIN)/ceqs gen

check: lint up-to-date test ## Everything that CI checks: lint, generated code up to date, tests

lint: $(READY) ## Format check, ruff, mypy, pyright, import-linter, layout, buf lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target --keep-going mypy pyright shape

mypy pyright: $(READY)
	$(BIN)/$@

shape: $(READY)
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m ceqs.cli._layout .
	$(BIN)/buf format proto --diff --exit-code
	$(BIN)/python -m ceqs.codegen --image .ceqs/image.binpb && $(BIN)/buf lint .ceqs/image.binpb

up-to-date: gen
	@git diff --exit-code --stat generated/ && test -z "$$(git ls-files --others --exclude-standard generated/)" \
	  || { echo 'generated/ is not what proto/ says: commit the output of `make gen`.' >&2; exit 1; }

test: $(READY) ## Run the tests; ARGS='-k name' picks some
	$(BIN)/pytest -n 3 --dist worksteal $(ARGS)

demo: $(READY) ## Run two services on real processes and verify the books: DATA=transactions.csv ROWS=2000 STORE=postgres
	$(DEMO)

run: $(READY) ## The demo, left running: prints what to try; Ctrl-C ends it
	$(DEMO) --keep

bench: $(READY) ## Measure commands, queries and reads, each beside its floor
	$(BIN)/python -m tests.bench $(ARGS)

torture: $(READY) ## Kill and ruin everything, read what was written, cancel streams, again and again: CYCLES=1000 STORE=sqlite ARGS='--seed 7'
	$(BIN)/python -m tests.torture --cycles $(CYCLES) $(if $(STORE),--store $(STORE)) $(ARGS)
	$(BIN)/python -m tests.torture.chaos --cycles $$(( $(CYCLES) / 2 )) $(if $(STORE),--store $(STORE)) $(ARGS)
	$(BIN)/python -m tests.torture.written --rounds $$(( $(CYCLES) * 10 )) $(if $(STORE),--store $(STORE)) $(ARGS)
	CEQS_EXAMPLES=$(CYCLES) CEQS_STREAMS=$$(( $(CYCLES) * 100 )) $(BIN)/pytest -q -s --timeout 0 tests/torture/test_command_machine.py \
	  tests/torture/test_log_machine.py tests/flow/test_many_streams.py

clean: ## Delete .venv, caches and what `ceqs dev` wrote here
	rm -rf .venv .ceqs dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo 'ceqs needs Python 3.11 or newer and finds no $(PYTHON).' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and \
	  "ceqs needs Python 3.11 or newer; $(PYTHON) is " + v + ". Choose another one: make PYTHON=python3.12 ...")'
	@echo 'Making .venv (once, about a minute) ...'
	@$(PYTHON) -m venv .venv || { echo 'No venv: on Debian and Ubuntu, apt install python3-venv.' >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable '.[server,embedded]' --group dev
	@touch $@
