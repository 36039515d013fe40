# Two commands do everything on a machine with Python >= 3.11 and make: `make demo` and `make test`.
# `make test-openclip` runs the few tests that need open_clip and torchvision, in an environment of their own.

PYTHON ?= python3
PIP = -m pip install --quiet --disable-pip-version-check
PINNED = $(PIP) --constraint ci/constraints.txt

DEMO = .venv/demo
TEST = .venv/test
OPENCLIP = .venv/openclip

# Two test processes share two cores: torch must not start a thread per core in each.
PYTEST = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest

.PHONY: demo test test-openclip check format clean

demo: $(DEMO)/.installed
	$(DEMO)/bin/widespectrum demo --out runs/demo

test: check
	$(call PYTEST,$(TEST)) -n 2 --dist loadfile

test-openclip: $(OPENCLIP)/.installed
	$(call PYTEST,$(OPENCLIP)) tests/openclip

check: $(TEST)/.installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	$(TEST)/bin/python -m widespectrum.vendor --check

format: $(TEST)/.installed
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .
	$(TEST)/bin/python -m widespectrum.vendor

define ENVIRONMENT
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "widespectrum needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(@D) (a minute or two)"
	$(PYTHON) -m venv --clear $(@D)
endef

$(DEMO)/.installed: pyproject.toml
	$(ENVIRONMENT)
	$(@D)/bin/python $(PIP) --editable ".[demo]"
	@touch $@

# Of open_clip these tests want CLIP's vocabulary only. It lies beside the environment and not in it, because open_clip
# needs torchvision, and everything that finds a torchvision built for CUDA beside a torch for CPUs fails.
$(TEST)/.installed: pyproject.toml ci/constraints.txt
	$(ENVIRONMENT)
	$(@D)/bin/python $(PINNED) torch
	$(@D)/bin/python $(PINNED) --editable ".[dev]"
	$(@D)/bin/python $(PINNED) --no-deps --target $(@D)/share/open_clip open_clip_torch
	@touch $@

$(OPENCLIP)/.installed: pyproject.toml ci/constraints.txt
	$(ENVIRONMENT)
	$(@D)/bin/python $(PINNED) torch
	$(@D)/bin/python $(PINNED) --editable ".[open-clip]" pytest transformers
	@touch $@

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
