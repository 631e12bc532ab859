# One environment, made here: uv where it is found, else venv and pip. Nothing is installed outside of .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := .[all]
#: What CI installs: exact versions with the hashes of their files. `make lock` renews both.
LOCKS := .ci/build.lock .ci/environment.lock
LOCKED := $(VENV)/.locked

#: `make test T=tests/sync/store`: only these.
T ?= tests
#: What `make faults` runs, in how many processes, and which part of it.
FAULTS := tests/faults tests/fuzz tests/connectors/duckdb/test_unfinished.py tests/sync/store/test_simulation.py \
	tests/sync/serve/test_simulated_day.py tests/connectors/postgres/log/test_decoder.py \
	$(shell grep -rl --include='test_*.py' -E 'mark\.(thinned|only_faults)' tests | grep -v '^tests/faults/')
WORKERS ?= auto
SHARD ?= 1/1
#: Which places `make mutants` changes, and how many.
SEED ?= 1
COUNT ?= 400

.PHONY: demo test test-rest test-all lint docs check bench faults faults-sum mutants interop locked lock clean

demo: $(READY)  ## three streams from CSV files into DuckDB, with a callback after each
	$(BIN)/syncblocks run sample_configs/quickstart.yaml

test: $(READY)  ## the fast tier: what costs little, on real databases; T=path for some of it
	$(BIN)/pytest -n auto --dist worksteal -m "not full" $(T)

test-rest: $(READY)  ## what `make test` leaves out
	$(BIN)/pytest -n auto --dist worksteal -m full $(T)

test-all: $(READY)  ## every test
	$(BIN)/pytest -n auto --dist worksteal $(T)

lint: $(READY)  ## everything that reads the code without running it
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  ## the documentation as a site in site/; fails at a broken link
	@if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python --group docs; \
	else $(BIN)/python -m pip install --quiet --group docs; fi
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --clean

check: lint docs test  ## before each push; CI runs this and `make test-rest`

faults: $(READY)  ## the full set of injected faults, hours; SHARD=3/20 for one part of it, `make faults-sum` adds them up
	SYNCBLOCKS_FAULTS=full SYNCBLOCKS_SHARD=$(SHARD) $(BIN)/pytest -n $(WORKERS) --dist worksteal $(FAULTS)

faults-sum: $(READY)  ## injected faults and violations of all parts of the full set
	$(BIN)/python -m tests.faults.shards

mutants: $(READY)  ## changes the code at COUNT places, one at a time, and reports which changes the tests find; SEED=2 for other places
	$(BIN)/python -m tests.mutants --seed $(SEED) --count $(COUNT)

interop: $(READY)  ## other people's plugins, object stores, sftp, installations; I="tap-jsonl s3" for some of them
	$(BIN)/python -m tests.interop $(I)

bench: $(READY)  ## ratios against the limits measured in the same run; then the figures and the plot in docs/
	@if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python --group bench; \
	else $(BIN)/python -m pip install --quiet --group bench; fi
	@$(BIN)/python -m compileall -q syncblocks sync connectors callbacks
	$(BIN)/python -m tests.benchmarks --publish

$(READY): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing $(VENV) && uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '$(EXTRAS)' --group dev; \
	else \
	  $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
	  $(BIN)/python -m pip install --quiet -e '$(EXTRAS)' --group dev; \
	fi
	@# An editable install compiles nothing, and where PYTHONDONTWRITEBYTECODE is set no run would either.
	@$(BIN)/python -m compileall -q syncblocks sync connectors callbacks
	@touch $@

locked: $(LOCKED)  ## .venv as CI has it: nothing is installed whose hash does not stand in .ci/*.lock

# The build tools first: what comes as source only is built with them, in the environment and not in one of its own.
$(LOCKED): pyproject.toml $(LOCKS)
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing $(VENV); pip="uv pip install --quiet --python $(BIN)/python"; \
	else \
	  $(PYTHON) -m venv $(VENV); pip="$(BIN)/python -m pip install --quiet"; \
	fi && \
	$$pip --require-hashes --only-binary :all: -r .ci/build.lock && \
	$$pip --require-hashes --no-build-isolation -r .ci/environment.lock && \
	$$pip --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q syncblocks sync connectors callbacks
	@touch $(READY) $@

lock: $(READY)  ## the newest versions that pyproject.toml allows, with the hashes of all their files, for every platform
	@command -v uv >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --group lock
	@uv=$$(command -v uv || echo $(BIN)/uv) && \
	compile="$$uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade" && \
	export UV_CUSTOM_COMPILE_COMMAND="make lock" && \
	$$compile --group build -o .ci/build.lock && \
	$$compile pyproject.toml --extra all --group dev --group docs -c .ci/build.lock -o .ci/environment.lock

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
