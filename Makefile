# Everything a person or CI runs. Needs Python >= 3.11 and make; the rest is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help setup system-packages run test test-long lint format lock bench bench-crl bench-signing bench-bulk compliance clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Quash needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

setup: $(STAMP) ## the virtual environment with .venv/bin/quash

run: setup ## the whole system; ARGS='...' are passed on, Ctrl-C stops it
	$(BIN)/quash up $(ARGS)

system-packages: ## the Debian packages that tests use
	@tools/install-debian softhsm2:softhsm2-util gnutls-bin:ocsptool openssl:openssl

lint: setup ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## ruff's formatter and its safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup system-packages lint ## lint, types, contracts and every test of normal length
	$(BIN)/pytest -q -n 2 -m "not long"

test-long: test ## the long tests as well
	$(BIN)/pytest -q -n 2 -m long

lock: setup ## requirements.lock anew: every pin with its hashes, no address of any index
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --extra dev -o requirements.lock pyproject.toml

bench: setup ## revoke -> visible over 200 revocations of a running system
	$(BIN)/python -m loadtest.revocations $(ARGS)

bench-crl: setup ## CRLs of 10,000 to 1,000,000 entries against pyca and openssl; takes half an hour
	$(BIN)/python -m loadtest.crl --write docs/performance.md $(ARGS)

bench-ocsp: setup ## OCSP answers per request against nginx and constant octets; ARGS=--write into docs/performance.md
	@tools/install-debian wrk:wrk nginx:nginx util-linux:taskset
	$(BIN)/python -m loadtest.ocsp $(ARGS)

bench-signing: setup ## records signed per second against a bare sign loop
	$(BIN)/python -m loadtest.signing $(ARGS)

compliance: setup ## docs/compliance.md from the ids that code and tests cite; fails on an unknown one
	$(BIN)/python tools/compliance

bench-bulk: setup ## a large import until it is answered, and single revocations beside it
	$(BIN)/python -m loadtest.bulk $(ARGS)

clean: ## what the other targets made, the state folder apart
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
