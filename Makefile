# Each goal does all its own set-up: it makes .venv, installs with pip, and runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test check bench clean

# The main job: debias the embedded model on the built-in prompts and write runs/demo. A quarter of the test prompts and
# a fifth of the training prompts: three to five minutes on two cores. Without the flags after -- the script uses all of them.
demo: $(STAMP)
	./scripts/run_pure_debiasing.sh smollm2-135m demo -- --overwrite --test_pairs 128 --validation_pairs 64 --max_pairs 96

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	for script in benchmarks/entropy_engine.py benchmarks/same_work.py benchmarks/supervised_step.py \
		benchmarks/growth.py benchmarks/startup.py benchmarks/time_to_target.py; do \
		$(BIN)/python $$script || exit 1; done

$(STAMP): requirements.lock pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs build .pytest_cache .mypy_cache .ruff_cache
