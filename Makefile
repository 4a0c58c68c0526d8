# lokket. Everything is installed into this folder: .venv, .venv-bare and the node_modules of tests/interop.
#   make demo    a relay, two people and a first message, on this machine
#   make test    lint, types and every test
# `make help` lists the rest.

PYTHON ?= python3
JOBS ?= 2
SEED ?= 0
KILLS ?= 3000
MINUTES ?= 5
SECONDS ?= 60
SIZES ?= 10 100 1000 10000
WORLDS ?= 50
SCHEDULES ?= 1000
ROUNDS ?= 7
SAMPLE ?= 600

VENV := .venv
BARE := .venv-bare
ifeq ($(OS),Windows_NT)
BIN := Scripts
else
BIN := bin
endif
RUN := $(VENV)/$(BIN)
PIP := -m pip --disable-pip-version-check --require-virtualenv install --quiet
PEERS := tests/interop/libsignal tests/interop/mls

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: interop $(shell awk -F ':' '/^[a-z-]+:.*## / { print $$1 }' $(MAKEFILE_LIST))

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.stamp-run ## a throwaway relay, two people and a first message; then you type
	@$(RUN)/lokket demo

setup: $(VENV)/.stamp-dev ## the environment for working on lokket

test: $(VENV)/.stamp-dev $(BARE)/.stamp interop lint types ## everything: lint, types, house rules, all tests
	@$(RUN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(VENV)/.stamp-dev ## ruff: rules and format
	@$(RUN)/ruff check --quiet .
	@$(RUN)/ruff format --quiet --check . || { echo "Run 'make format'."; exit 1; }

format: $(VENV)/.stamp-dev ## let ruff sort and format everything
	@$(RUN)/ruff check --quiet --fix .
	@$(RUN)/ruff format .

types: $(VENV)/.stamp-dev ## mypy --strict over the package
	@$(RUN)/mypy

test-unit: $(VENV)/.stamp-dev ## the quick tests alone
	@$(RUN)/python -m pytest -n $(JOBS) tests/unit tests/vectors tests/house

test-mls-vectors: $(VENV)/.stamp-dev ## every MLS vector of every suite, of which `make test` takes samples
	@MLS_VECTORS_WHOLE=1 $(RUN)/python -m pytest tests/vectors/mls

test-interop: $(VENV)/.stamp-dev interop ## live sessions against libsignal-client, ts-mls, mls-rs and OpenMLS
	@$(RUN)/python -m pytest tests/interop

sim: $(VENV)/.stamp-dev ## one seeded world: make sim SEED=7
	@$(RUN)/python -m tests.sim --seed $(SEED)

models: $(VENV)/.stamp-dev ## the models of models/ with large bounds, and their runs with the code (needs spin)
	@LOKKET_MODELS=large $(RUN)/python -m pytest -s tests/models

mls-worlds: $(VENV)/.stamp-dev ## many worlds of MLS clients: make mls-worlds SEED=0 WORLDS=50
	@$(RUN)/python -m tests.support.mls_world --seed $(SEED) --worlds $(WORLDS)
differential: $(VENV)/.stamp-dev interop ## random schedules with ourselves and libsignal: SCHEDULES=10000 SEED=7
	@LOKKET_SCHEDULES=$(SCHEDULES) $(RUN)/python -m pytest -s --hypothesis-seed=$(SEED) tests/property/test_schedules.py \
	  tests/interop/test_live_schedules.py

sim-many: WORLDS = 10000
sim-many: $(VENV)/.stamp-dev ## many worlds, going on where it stopped: make sim-many WORLDS=10000 SEED=0 JOBS=2
	@$(RUN)/python -m tests.sim.campaign --worlds $(WORLDS) --seed $(SEED) --jobs $(JOBS) \
	  --state .sim-worlds-$$(git rev-parse --short HEAD)

kill: $(VENV)/.stamp-dev ## kill -9 of sender, reader, daemon and relay: make kill KILLS=3000 SEED=0
	@$(RUN)/python -m tests.e2e.kills --kills $(KILLS) --seed $(SEED)

abuse: $(VENV)/.stamp-dev ## hostile load on a relay beside honest people: their p99 without and with it
	@$(RUN)/python -m tests.e2e.abuse

soak: $(VENV)/.stamp-dev ## a relay and three daemons talk; what grows is measured: make soak MINUTES=5 SEED=0
	@$(RUN)/python -m tests.reliability.soak --minutes $(MINUTES) --seed $(SEED)

powercut: $(VENV)/.stamp-dev ## 4,000 power cuts under the relay's data and under vaults
	@$(RUN)/python -m tests.reliability powercut-relay --seeds 0:2000
	@$(RUN)/python -m tests.reliability powercut-vault --seeds 0:200

diskfaults: $(VENV)/.stamp-dev ## every operation of the disk fails in turn, under relay and client
	@$(RUN)/python -m tests.reliability diskfaults-relay --seeds 0:50
	@$(RUN)/python -m tests.reliability diskfaults-client --seeds 0:20

corrupt: $(VENV)/.stamp-dev ## 1,000 damages of a vault, 2,000 of a relay; 200 salvaged vaults go on
	@$(RUN)/python -m tests.reliability corruption --seeds 0:1000
	@$(RUN)/python -m tests.reliability corruption-relay --seeds 0:2000
	@$(RUN)/python -m tests.reliability salvage --seeds 0:200

fuzz: $(VENV)/.stamp-fuzz ## fuzz one decoder: make fuzz NAME=tls SECONDS=60; without NAME, list them
	@$(RUN)/python fuzz/run.py $(NAME) --seconds $(SECONDS)

fuzz-all: $(VENV)/.stamp-fuzz ## fuzz every decoder in turn: make fuzz-all SECONDS=600; NAMES="tls decrypt" for some
	@$(RUN)/python fuzz/campaign.py --seconds $(SECONDS) $(NAMES)

mutation: $(VENV)/.stamp-mutation ## what changes of the protocol library do its tests notice: SAMPLE=600 SEED=0 JOBS=2
	@$(RUN)/python -m tests.mutation --sample $(SAMPLE) --seed $(SEED) --jobs $(JOBS)

bench-pairwise: $(VENV)/.stamp-bench interop ## lokket beside libsignal-client, vodozemac, doubleratchet: ROUNDS=7
	@$(RUN)/python -m bench.pairwise --rounds $(ROUNDS)

bench-groups: $(VENV)/.stamp-dev interop ## lokket beside mls-rs and ts-mls, groups of 10 to 10,000: SIZES="10 100"
	@$(RUN)/python -m bench.groups --sizes $(SIZES)

docs: $(VENV)/.stamp-dev ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(RUN)/python -m mkdocs build --strict --quiet && echo "build/site/index.html"

lock: $(VENV)/.stamp-lock ## make requirements/*.lock anew from pyproject.toml
	@$(RUN)/python requirements/lock.py

bare: $(BARE)/.stamp ## an environment with `cryptography` alone, for the protocol library's test

clean: ## remove all that was installed or built here
	rm -rf $(VENV) $(BARE) $(addsuffix /node_modules,$(PEERS)) dist build mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests fuzz bench -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the targets stand on ---

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "lokket needs Python 3.11 or newer; '$(PYTHON) --version' says: $$($(PYTHON) --version 2>&1)" ; \
	  echo "Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" ; exit 1 ; }
	@test -x $(RUN)/python || { echo "Making $(VENV)" ; $(PYTHON) -m venv $(VENV) ; } || { \
	  rm -rf $(VENV) ; echo "$(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv" ; exit 1 ; }
	@touch $@

$(VENV)/.stamp-run: requirements/run.lock pyproject.toml $(VENV)/.stamp-venv
	@echo "Installing what requirements/run.lock names into $(VENV)"
	@$(RUN)/python $(PIP) --require-hashes -r requirements/run.lock
	@$(RUN)/python $(PIP) --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.stamp-dev: requirements/dev.lock $(VENV)/.stamp-run
	@echo "Installing what requirements/dev.lock names into $(VENV)"
	@$(RUN)/python $(PIP) --require-hashes -r requirements/dev.lock
	@touch $@

$(VENV)/.stamp-fuzz: requirements/fuzz.lock $(VENV)/.stamp-run
	@$(RUN)/python $(PIP) --require-hashes -r requirements/fuzz.lock
	@touch $@

$(VENV)/.stamp-mutation: requirements/mutation.lock $(VENV)/.stamp-dev
	@$(RUN)/python $(PIP) --require-hashes -r requirements/mutation.lock
	@touch $@

$(VENV)/.stamp-bench: requirements/bench.lock $(VENV)/.stamp-run
	@$(RUN)/python $(PIP) --require-hashes -r requirements/bench.lock && touch $@ || \
	  echo "Not all of requirements/bench.lock can be installed here: the table will say what is missing."

$(VENV)/.stamp-lock: requirements/lock.lock $(VENV)/.stamp-venv
	@$(RUN)/python $(PIP) --require-hashes -r requirements/lock.lock
	@touch $@

$(BARE)/.stamp: requirements/bare.lock $(VENV)/.stamp-venv
	@echo "Installing what requirements/bare.lock names into $(BARE)"
	@rm -rf $(BARE) && $(RUN)/python -m venv $(BARE)
	@$(BARE)/$(BIN)/python $(PIP) --require-hashes -r requirements/bare.lock
	@touch $@

interop:
	@if ! command -v node >/dev/null || ! command -v npm >/dev/null ; then \
	  echo "No node and npm here: the tests against libsignal-client and ts-mls will skip." ; exit 0 ; fi ; \
	for peer in $(PEERS) ; do \
	  if [ -e $$peer/node_modules/.package-lock.json ] && \
	      [ ! $$peer/package-lock.json -nt $$peer/node_modules/.package-lock.json ] ; then continue ; fi ; \
	  echo "Installing what $$peer/package-lock.json names" ; \
	  (cd $$peer && npm ci --no-fund --no-audit --loglevel=error && touch node_modules/.package-lock.json) || { \
	    echo "npm could not install the other party; without it those tests skip." ; test -z "$$CI" || exit 1 ; } ; \
	done
