# Everything a person or CI runs. Needs Python >= 3.11 and make; the rest is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help setup system-packages run test test-normal test-long fuzz load lint format lock bench bench-visible bench-crl bench-origin bench-ocsp bench-signing bench-bulk bench-mass bench-issuance compliance clean

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

system-packages: setup ## the Debian packages that tests use
	@tools/install-debian softhsm2:softhsm2-util opensc:pkcs11-tool gnutls-bin:ocsptool openssl:openssl wrk:wrk util-linux:taskset iproute2:ip systemd:systemd-analyze
	@tools/install-zlint $(BIN)/zlint

lint: setup ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## ruff's formatter and its safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup system-packages ## lint, types, contracts and every test of normal length
	@$(MAKE) -j2 lint test-normal  # side by side: one uses one core, the other often waits

test-normal: setup
	$(BIN)/pytest -q -n 2 -m "not long"

test-long: test ## the long tests as well
	$(BIN)/pytest -q -n 2 -m long

fuzz: setup ## the request parser and the fast path, five minutes each; ARGS='--seconds 3600 --keep' for longer
	$(BIN)/python -m tests.fuzz.run $(ARGS)

lock: setup ## requirements.lock anew: every pin with its hashes, no address of any index
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --extra dev -o requirements.lock pyproject.toml

load: setup ## users that verify, on a new system; ARGS='--load spike --users 20 --run-time 60', exit status 1: a goal missed
	$(BIN)/python -m loadtest.traffic $(ARGS)

bench: bench-visible bench-ocsp ## the two that users feel: until a revocation is seen, and OCSP answers against their peers

bench-visible: setup ## revoke -> visible over 200 revocations of a running system
	$(BIN)/python -m loadtest.revocations $(ARGS)

bench-crl: setup ## CRLs of 10,000 to 1,000,000 entries against pyca and openssl; ARGS=--full takes more rounds
	$(BIN)/python -m loadtest.crl --write docs/performance.md $(ARGS)

bench-origin: setup ## the CRL origin against nginx: whole CRLs and 304s
	@tools/install-debian wrk:wrk nginx:nginx util-linux:taskset
	$(BIN)/python -m loadtest.origin --write docs/performance.md $(ARGS)

bench-ocsp: setup ## OCSP answers per request against nginx, openssl, cfssl and constant octets; writes docs/performance.md
	@tools/install-debian wrk:wrk nginx:nginx apache2-utils:ab iproute2:ip util-linux:taskset
	$(BIN)/python -m loadtest.ocsp --write $(ARGS)

bench-signing: setup ## the signing plane: records per second against a bare sign loop, then all of bench-mass
	$(BIN)/python -m loadtest.signing --write
	$(BIN)/python -m loadtest.mass --write docs/performance.md $(ARGS)

compliance: setup ## docs/compliance.md from the ids that code and tests cite; fails on an unknown one
	$(BIN)/python tools/compliance

bench-mass: setup ## a mass revocation, every stage timed; ARGS='--count N', by default the 3,048,289 of March 2020
	$(BIN)/python -m loadtest.mass --write docs/performance.md $(ARGS)

bench-issuance: setup ## DV certificates per second, linted, with three local logs; ARGS='--count N --clients N'
	$(BIN)/python -m loadtest.issuance $(ARGS)

bench-bulk: setup ## a large import until it is answered, and single revocations beside it
	$(BIN)/python -m loadtest.bulk $(ARGS)

clean: ## what the other targets made, the state folder apart
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
