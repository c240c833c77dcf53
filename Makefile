# The same words everywhere: README, CONTRIBUTING and the CI use these and nothing else.
#   make test ARGS="tests/core -k energy"    hands ARGS to pytest
#   make setup PYTHON=/path/to/python3       chooses the interpreter

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?=
ARGS ?=

.PHONY: setup demo test soak lint bench results docs clean

setup: $(STAMP)

# The stamp holds what was installed for, so that a touched file alone asks nothing of the network.
# torch goes first, by its pin alone: nothing after it may choose another build.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	wanted="$$(cat pyproject.toml constraints.txt | cksum)"; \
	if [ "$$(cat $@ 2>/dev/null)" != "$$wanted" ]; then \
		if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
				if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
					found=$$candidate; break; \
				fi; \
			done; \
			if [ -z "$$found" ]; then \
				echo "groundstate needs Python 3.11 or newer with its venv module: install one (on Debian and Ubuntu" \
					"python3 and python3-venv) or name one, make setup PYTHON=/path/to/python3" >&2; \
				exit 1; \
			fi; \
			echo "making $(VENV) with $$($$found --version)"; \
			$$found -m venv --clear $(VENV); \
		fi; \
		echo "installing groundstate and what it needs into $(VENV)"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'; \
		echo "$$wanted" > $@; \
	fi; \
	touch $@

demo: setup
	$(BIN)/groundstate train examples/drsae-digits.toml

# Two workers: most of the suite waits for processes that it starts.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# What takes minutes: sweeps that are killed and go on.
soak: setup
	$(BIN)/python -m pytest -m soak $(ARGS)

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: setup
	@set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

# Figures from real runs, into examples/RESULTS.md: make results NAME=drsae-mnist ARGS="--data FOLDER --seeds 3"
results: setup
	$(BIN)/python examples/results/measure.py $(NAME) $(ARGS)

# The reference is made from the code; the site on top of it needs the extra: pip install -e '.[docs]'
docs: setup
	$(BIN)/python docs/generate.py
	@if $(BIN)/python -c 'import mkdocs' 2>/dev/null; then $(BIN)/python -m mkdocs build --strict --quiet && echo "site/index.html"; \
	else echo "the pages are in docs/; for the site as well: $(BIN)/python -m pip install -c constraints.txt -e '.[docs]'"; fi

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
