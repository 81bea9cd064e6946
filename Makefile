# Two commands: `make demo` runs the main job on real images, `make test` passes the tests. Both set up .venv first.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup demo test test-all check unit coverage compile results picture images stack stack-down clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m morphad.report.plots_template .dvc/plots.html
	$(BIN)/dvc config --local --quiet plots.html_template plots.html
	touch $@

# `make demo SOURCE=s3://bucket/prefix` puts the images into a bucket (AWS_* in the environment) and reads them from there.
demo: setup
	$(if $(SOURCE),$(BIN)/morphad demo --source $(SOURCE))
	PATH="$(CURDIR)/$(BIN):$$PATH" DVC_NO_ANALYTICS=1 dvc repro
	$(BIN)/morphad summary

test: check unit

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One more at once than there are cores, for tests wait for servers a third of their time; each with one thread. The tests
# of a file share what they set up.
WORKERS = $(shell $(BIN)/python -c "import os; print((os.cpu_count() or 1) + 1)")
PYTEST = PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

unit: setup
	$(PYTEST)

# As `make test`, and every case where that takes a few of many alike: each call at which a process may be killed.
test-all: check
	MORPHAD_TEST_EXHAUSTIVE=1 $(PYTEST)

# All tests, and how much of src they reach, branches counted, in percent; docs/results/coverage.md gets the figure.
coverage: setup
	$(PYTEST) --cov --cov-report=
	$(BIN)/python docs/coverage_page.py

compile: setup
	env -u MORPHAD_IMAGE $(BIN)/morphad pipeline compile

# docs/results/results.md from the runs in benchmarks/results.
results: setup
	$(BIN)/python -m benchmarks.results

# docs/images/page.png: the head of a line's page as it is today. Fits a small model first; needs chromium.
picture: setup
	$(BIN)/python docs/picture.py

# The images cpu, cuda and serve, with docker or podman. Options are explained in docker/build:
# make images TARGETS="cpu serve" IMAGE_BUILD_ARGS="--build-arg EXTRAS=demo"
images:
	docker/build

# PostgreSQL, an S3 server and MLflow on this machine, with their data in .stack/. Other ports:
# make stack STACK="--mlflow-port 15001" (python -m stack up --help).
stack: setup
	$(BIN)/python -m stack up $(STACK)

stack-down: setup
	$(BIN)/python -m stack down

# Images, models, reports and the registry stay.
clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dvc_plots pipeline-runs
