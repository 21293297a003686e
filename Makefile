# Each goal does all its own set-up: it makes .venv, installs with pip, and runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test test-quick test-extras floor check bench torture clean

# The main job: debias the embedded model on the built-in prompts and write runs/demo. A quarter of the test prompts and
# a fifth of the training prompts: five to eight minutes on two cores. Without the flags after -- the script uses all of them.
# The target is 0.02 nats, half of the gap: so few prompts cannot decide about 0.01 (docs/limits.md).
demo: $(STAMP)
	./scripts/run_pure_debiasing.sh smollm2-135m demo 0.02 -- --overwrite --test_pairs 128 --validation_pairs 64 --max_pairs 96 \
		--stop_margin 0.25 --until_decided 336

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Without the slow tests.
test-quick: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# What `make test` skips where these packages are missing; they live in an environment of their own, on top of the locked one.
test-extras: $(STAMP)
	test -d $(VENV)-extras || $(PYTHON) -m venv $(VENV)-extras
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$($(VENV)-extras/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/locked.pth
	$(VENV)-extras/bin/pip install --quiet --disable-pip-version-check "setuptools>=77" wandb trackio lm_eval
	$(VENV)-extras/bin/pip install --quiet --disable-pip-version-check --no-build-isolation deepspeed
	$(VENV)-extras/bin/python -m pytest -n 2 tests/training/test_trackers.py tests/training/test_distributed.py \
		tests/commands/test_ability.py -k "wandb or trackio or zero or harness"

# A selection of the tests on the lowest versions that pyproject.toml admits, on Python 3.10 where there is one.
FLOOR_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3 /usr/bin/python3.10) $(PYTHON))
floor: $(VENV)-floor/installed
	$(VENV)-floor/bin/python -m pytest -n 2 tests/entropy tests/models tests/responses tests/measure tests/report \
		tests/commands/test_measure.py tests/commands/test_train.py::test_the_run_folder_is_complete \
		tests/commands/test_train.py::test_lora_saves_an_adapter_and_the_merged_model

$(VENV)-floor/installed: requirements.floor pyproject.toml
	test -d $(VENV)-floor || $(FLOOR_PYTHON) -m venv $(VENV)-floor
	$(VENV)-floor/bin/pip install --quiet --disable-pip-version-check --no-compile "setuptools>=77" -r requirements.floor
	$(VENV)-floor/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(VENV)-floor/installed

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	for script in benchmarks/entropy_engine.py benchmarks/same_work.py benchmarks/supervised_step.py \
		benchmarks/growth.py benchmarks/startup.py benchmarks/time_to_target.py benchmarks/tokens.py; do \
		$(BIN)/python $$script || exit 1; done

# Trainings that are killed, or die at one operation on a file, and are resumed: about two minutes for each ten of the two numbers.
KILLS ?= 20
CRASH_POINTS ?= 20
SEED ?= 0
torture: $(STAMP)
	$(BIN)/python benchmarks/torture.py --kills $(KILLS) --crash_points $(CRASH_POINTS) --seed $(SEED)

$(STAMP): requirements.lock pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(VENV)-extras $(VENV)-floor runs build .pytest_cache .mypy_cache .ruff_cache
