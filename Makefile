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
#: What `make quick` leaves out beside the marked tests: folders and files below tests/ that run many processes or whole pipelines.
LONG := faults fuzz golden benchmarks contracts interop sync/cli sync/integrations sync/run sync/state sync/verify connectors/singer \
	connectors/checksums/test_sample.py connectors/duckdb/test_pieces.py connectors/duckdb/test_primary_key.py \
	connectors/duckdb/test_types.py connectors/duckdb/test_unfinished.py connectors/files/test_commits.py \
	connectors/files/test_csv_wide.py connectors/files/test_parquet_memory.py connectors/files/test_read_list.py \
	connectors/incremental/test_bookmark_indexes.py connectors/mysql/test_horizon.py connectors/mysql/test_quiet.py \
	connectors/postgres/test_horizon.py connectors/postgres/test_standby.py connectors/sql/test_computed_keys.py \
	connectors/sql/test_history.py connectors/sqlalchemy/test_not_null.py sync/config/test_quick.py sync/plan/test_advice.py \
	sync/plan/test_column_notices.py sync/plan/test_ignored_columns.py sync/plan/test_new_schemas.py sync/flow/test_memory.py \
	sync/session/test_ledgerless.py sync/store/test_machine.py sync/store/test_processes.py sync/store/test_simulation.py \
	callbacks/test_isolation.py test_daily_files.py test_deleted_records.py test_extras.py test_hashing_personal_data.py \
	test_json_page.py test_packaging.py test_recipes.py test_reload_a_range.py test_sample_configs.py test_slowly_changing.py

#: What `make faults` runs, in how many processes, and which part of it.
FAULTS := tests/faults tests/fuzz tests/connectors/duckdb/test_unfinished.py tests/sync/store/test_simulation.py \
	$(shell grep -rl --include='test_*.py' 'mark\.thinned' tests | grep -v '^tests/faults/')
WORKERS ?= auto
SHARD ?= 1/1

.PHONY: demo test quick lint docs check bench faults faults-sum interop locked lock clean

demo: $(READY)  ## three streams from CSV files into DuckDB, with a callback after each
	$(BIN)/syncblocks run sample_configs/quickstart.yaml

test: $(READY)  ## every test but the benchmarks; T=path for some of them
	$(BIN)/pytest -n auto --dist worksteal $(T)

quick: $(READY)  ## units that need no server; T=path for some of them
	$(BIN)/pytest -n auto --dist worksteal -m "not postgres and not mariadb and not slow" $(LONG:%=--ignore=tests/%) $(T)

lint: $(READY)  ## everything that reads the code without running it
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  ## the documentation as a site in site/; fails at a broken link
	@if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python --group docs; \
	else $(BIN)/python -m pip install --quiet --group docs; fi
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --clean

check: lint test docs  ## what CI runs

faults: $(READY)  ## the full set of injected faults, hours; SHARD=3/20 for one part of it, `make faults-sum` adds them up
	SYNCBLOCKS_FAULTS=full SYNCBLOCKS_SHARD=$(SHARD) $(BIN)/pytest -n $(WORKERS) --dist worksteal $(FAULTS)

faults-sum: $(READY)  ## injected faults and violations of all parts of the full set
	$(BIN)/python -m tests.faults.shards

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
