# Two commands do everything on a machine with Python >= 3.11 and make: `make demo` and `make test`.

PYTHON ?= python3
PIP = -m pip install --quiet --disable-pip-version-check

DEMO = .venv/demo
TEST = .venv/test

.PHONY: demo test check format clean

demo: $(DEMO)/.installed
	$(DEMO)/bin/widespectrum demo --out runs/demo

test: check
	$(TEST)/bin/python -m pytest -n 2 --dist loadfile

check: $(TEST)/.installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	$(TEST)/bin/python -m widespectrum.vendor --check

format: $(TEST)/.installed
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .
	$(TEST)/bin/python -m widespectrum.vendor

$(DEMO)/.installed: EXTRA = demo
$(TEST)/.installed: EXTRA = dev
$(DEMO)/.installed $(TEST)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "widespectrum needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(@D) (about a minute)"
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python $(PIP) --editable ".[$(EXTRA)]"
	@touch $@

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
