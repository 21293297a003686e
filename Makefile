# Every target does its own set-up: a fresh machine needs python3 (3.10 or later), make and PyPI.
PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready

.PHONY: demo test check bench clean

# Debias the embedded model: runs/demo/report.html shows what came of it.
demo: $(READY)
	./scripts/run_pure_debiasing.sh smollm2-135m demo -- --overwrite

test: $(READY)
	$(PY) -m pytest

check: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# The clock and the memory, one after the other; figures go to benchmarks/results/. The other scripts there are studies
# of the method: each says at its top how it is run and what it needs.
bench: $(READY)
	set -e; for name in startup entropy_engine same_work time_to_target supervised_step growth; do \
	  echo "== $$name"; $(PY) benchmarks/$$name.py; \
	done

# Removes what the targets above made, the run of `make demo` included. Other runs stay.
clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist runs/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first, with what it asks for (on a GPU machine: the CUDA libraries); then all the rest, at exact versions.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
