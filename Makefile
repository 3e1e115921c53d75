# Everything a newcomer, a developer and CI need; `make` alone lists the targets.
# Needs make and Python 3.11 or newer. Nothing is installed outside .venv, but for `make guests` as root.

VENV ?= .venv
BIN := $(VENV)/bin
KERNELS := 6.1 6.12 7.3
DEMO := tests/fixtures/7.3.kdump
GUEST_PACKAGES := qemu-system-x86 busybox-static gcc libc6-dev xfsprogs
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
PIP = $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-whole lint types format docs guests guest-packages test-guests silence packages site bench bench-quick bench-big bench-growth bench-scale fixtures \
	pictures lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

demo: $(VENV)/.runtime ## check the captured vmcore of a 7.3 kernel
	@echo
	@echo 'A vmcore of a Linux 7.3 kernel, captured while some 160 processes held memory in every way there is.'
	@echo 'Folioscope rebuilds all mapping counts from the page tables and compares them with what the kernel stored:'
	@echo
	@echo '  $$ $(BIN)/folioscope -c $(DEMO) check'
	@echo
	@$(BIN)/folioscope -c $(DEMO) check
	@echo
	@echo 'Next, try: $(BIN)/folioscope -c $(DEMO) ps'

test: $(VENV)/.dev ## run the quick tests: everything once; no guest, no root, no network
	$(BIN)/python -m pytest -q -n auto -m 'not guest and not bench and not long and not whole'

test-all: $(VENV)/.dev ## run all tests that need no guest: every fault on every kernel, at depth
	$(BIN)/python -m pytest -q -n auto --hypothesis-profile deep -m 'not guest and not bench and not whole'

test-whole: $(VENV)/.dev ## all views of all folios with each fault on each kernel, one worker and several (an hour and a half)
	$(BIN)/python -m pytest -q -n auto --hypothesis-profile deep -m whole

lint: $(VENV)/.dev ## style, layers between modules, dead code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/vulture inspector tui tests scripts --min-confidence 80 --ignore-names trace

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

guests: $(VENV)/.dev guest-packages ## boot real kernels and dump them, at rest and busy (minutes; cached)
	$(BIN)/python -m tests.guests build $(KERNELS) --debug-info

guest-packages:
	@missing=; for name in $(GUEST_PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$name"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "guests need packages: apt-get install$$missing" >&2; exit 1; fi; \
	echo "apt-get install$$missing"; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing

test-guests: $(VENV)/.dev ## run the tests on the guests that make guests built
	$(BIN)/python -m pytest -q -m 'guest and not race'

silence: $(VENV)/.dev guest-packages ## check racing guests at 20 random moments each (half an hour)
	$(BIN)/python -m pytest -q -m race
	$(BIN)/python -m tests.guests silence $(KERNELS) --runs 20

docs: $(VENV)/.dev ## make the pages under docs/ and the transcripts anew from the code, and the site
	$(BIN)/python -m tests.arch.docs
	$(BIN)/python -m tests.arch.site site

site: $(VENV)/.dev ## the documentation as a site in site/, links checked
	$(BIN)/python -m tests.arch.site site

packages: $(VENV)/.dev ## build wheel and sdist, install them with pip, pipx and uv, and run them
	$(BIN)/python -m tests.packages

bench: $(VENV)/.dev ## measure each question beside its floor and its peers: on the large guest or CORE=...
	$(BIN)/python -m tests.bench $(if $(CORE),--core $(CORE))
	$(BIN)/python -m tests.bench.tui

bench-quick: $(VENV)/.dev ## the same on a guest of make guests, compared with tests/bench/baseline.json
	$(BIN)/python -m tests.bench --core $$($(BIN)/python -m tests.guests path 7.3)/rest.elf --baseline tests/bench/baseline.json \
	  --questions info,page,folio,rmap,va,vmas,check

bench-big: $(VENV)/.dev guest-packages ## build the big guest: 12 GB or MEGABYTES=..., 2,000 address spaces (minutes; cached)
	$(BIN)/python -m tests.bench.guest $(if $(MEGABYTES),--megabytes $(MEGABYTES))

bench-growth: $(VENV)/.dev guest-packages ## measure machines of 1 GB to 1 TB into docs/growth.md (builds what is missing)
	$(BIN)/python -m tests.bench.growth

bench-scale: $(VENV)/.dev guest-packages ## measure many processes of one parent, and many VMAs in one process
	$(BIN)/python -m tests.bench.scale

fixtures: $(VENV)/.dev ## make tests/fixtures anew from the guests
	$(BIN)/python -m tests.fixtures

pictures: $(VENV)/.dev ## make tui/pictures and the pictures that tests compare screens with anew
	$(BIN)/python -m tests.tui
	$(BIN)/python -m pytest -q tests/tui/test_looks.py --snapshot-update

lock: $(VENV)/.dev ## take the newest versions of all dependencies into the lock files
	$(PIP) install uv
	printf 'setuptools>=80\ncython>=3.1\n' > $(VENV)/build.in
	$(BIN)/uv pip compile -q -U pyproject.toml $(VENV)/build.in $(LOCK) -o requirements.lock
	$(BIN)/uv pip compile -q -U pyproject.toml $(VENV)/build.in --extra dev $(LOCK) -o requirements-dev.lock
LOCK := --universal --generate-hashes --no-emit-index-url --no-header --no-annotate

clean: ## remove what these targets made, but for the guests
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist site
	rm -f inspector/_loops.c inspector/_loops.*.so
	find inspector tests tui -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@[ -n '$(PYTHON)' ] || { echo 'Python 3.11 or newer is needed; name it with PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@
