"""Mistakes of a pipeline file, as the command line tells them: file, line, key and the nearest match."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from syncblocks.sync.cli.errors import describe
from syncblocks.sync.errors import StoreUnreachable
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.file_limit import file_limit
from tests.sync.cli.cli_pipelines import documents, names, write_shop

MISTAKES = {
    "unknown key": ("pipeline: shop", "pipelin: shop", "pipelin"),
    "unknown connector": ("connector: duckdb", "connector: duckdbb", "duckdb"),
    "unknown stream": ("stream: orders", "stream: ordesr", "orders"),
    "unknown column": ("bookmark_properties: [updated_at]", "bookmark_properties: [updated]", "updated_at"),
    "no bookmark": ("    bookmark_properties: [updated_at]\n", "", "bookmark_properties"),
    "no source": ("path: data", "path: dta", "dta"),
    "no callback file": ("pipeline: shop", "callbacks: [{file: nowhere.py}]", "callbacks[0].file"),
    "unresolved": ("path: data", "path: \"{{ env_var('NOT_SET_ANYWHERE') }}\"", "NOT_SET_ANYWHERE"),
    "shared table": ("destination_table: fact_orders", "destination_table: customers", "customers"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_file_exits_with_2_and_creates_nothing(run_cli: RunCLI, tmp_path: Path, mistake: str) -> None:
    right, wrong, named = MISTAKES[mistake]
    file = write_shop(tmp_path)
    text = file.read_text()
    assert right in text
    file.write_text(text.replace(right, wrong))
    before = names(tmp_path)
    done = run_cli(["run", "shop.yaml", "--json"], tmp_path)
    (document,) = documents(done.stdout)
    assert (done.returncode, document["type"], document["exit_code"]) == (2, "error", 2)
    assert document["error"]["code"]
    assert named in json.dumps(document["error"])
    assert names(tmp_path) == before


@pytest.mark.one_of
@pytest.mark.parametrize("command", ["run", "check", "runs list"])
def test_a_run_store_that_cannot_be_reached_is_1_and_one_that_is_named_wrong_is_2(
    run_cli: RunCLI, tmp_path: Path, postgres_url: str, command: str
) -> None:
    (tmp_path / "full").write_text("")
    wrong = postgres_url.rpartition("/")[0] + "/not_there"
    for store, code in (
        ("postgresql://me@127.0.0.1:1/db", 1),
        ("postgresql://me@no-such-host.invalid/db", 1),
        ("sqlite:///full/store.db", 0 if command == "runs list" else 1),  # looking makes no store
        (wrong, 2),
        (f"{postgres_url}?sslmode=never", 2),
    ):
        write_shop(tmp_path, extra=f"store: {json.dumps(store)}\n")
        done = run_cli(command.split(), tmp_path)
        assert (store, done.returncode) == (store, code), done.stderr
        if "full" in store and code:
            assert "/full is no folder: move it away" in done.stderr


def test_a_run_store_without_room_is_no_mistake_of_the_file(tmp_path: Path) -> None:
    with file_limit(8192), pytest.raises(StoreUnreachable) as caught:
        Store.open(f"sqlite:///{tmp_path}/store.db")
    assert describe(caught.value).exit_code == 1


def test_an_error_names_file_line_key_and_the_nearest_match(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_shop(tmp_path)
    file.write_text(file.read_text().replace("stream: orders", "stream: ordesr"))
    error = documents(run_cli(["plan", "--json"], tmp_path).stdout)[0]["error"]
    assert (error["line"], error["key"], error["nearest"]) == (6, "streams[1].stream", "orders")
    assert error["path"].endswith("shop.yaml")
    text = run_cli(["run"], tmp_path).stderr
    assert "\nerror[" in text
    assert "shop.yaml:6: streams[1].stream: " in text
    assert "did you mean 'orders'?" in text
    assert "Traceback" not in text
    assert "Traceback" in run_cli(["plan", "--debug"], tmp_path).stderr


def test_all_streams_that_the_source_lacks_are_told_at_once(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_shop(tmp_path)
    file.write_text(file.read_text().replace("stream: orders", "stream: ordesr") + "  - stream: custmers\n")
    error = documents(run_cli(["plan", "--json"], tmp_path).stdout)[0]["error"]
    assert (error["code"], error["nearest"]) == ("no_stream", "orders")
    assert [each["message"].split()[0] for each in error["others"]] == ["'custmers'"]


def test_mistakes_of_several_streams_have_their_lines_and_nearest_columns(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_shop(tmp_path)
    text = file.read_text().replace(
        "{stream: customers, key_properties: [id]}", "{stream: customers, key_properties: [idd]}"
    )
    file.write_text(text.replace("bookmark_properties: [updated_at]", "bookmark_properties: [update_at]"))
    said = run_cli(["plan"], tmp_path).stderr
    assert "2 streams cannot be synced like this" in said
    assert re.search(r"line 5: stream 'customers': 'idd' is no column .* did you mean 'id'\?", said)
    assert re.search(r"line 8: stream 'orders': 'update_at' is no column .* did you mean 'updated_at'\?", said)


def test_a_stream_behind_the_file_is_told_how_it_is_named(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    for args in (["run", "shop.yaml", "orders"], ["sync", "data", "w.duckdb", "orders"], ["count", "orders"]):
        done = run_cli(args, tmp_path)
        assert (done.returncode, "by --stream" in done.stderr) == (2, True)
    assert "a run is named by --run" in run_cli(["callbacks", "list", "7"], tmp_path).stderr


def test_a_rename_to_a_name_that_is_taken_has_its_place(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_shop(tmp_path)
    file.write_text(file.read_text() + "transformers:\n  - rename: {customer_id: id}\n")
    done = run_cli(["plan"], tmp_path)
    assert done.returncode == 2
    assert "shop.yaml:6: streams[1]: " in done.stderr
    assert "rename gives two columns the name 'id'" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["retry"], "Did you mean 'runs retry'?"),
        (["reset", "orders"], "Did you mean 'state reset'?"),
        (["ingest", "--source-uri", "x"], "Did you mean 'sync'?"),
        (["version"], "Did you mean '--version'?"),
        (["runs", "status"], "There are: cancel, list, prune, retry, show."),
        (["run", "--dry-run"], "`syncblocks plan` shows what a run would do."),
        (["run", "--select", "orders"], "Name streams by --stream."),
        (["run", "--concurrency", "many"], "'many' is not a whole number"),
        (["sync", "csv://data/orders.csv", "x.duckdb"], "did you mean 'csv:data/orders.csv'?"),
        (["run", "meltano.yml"], "`syncblocks init --from-meltano meltano.yml` writes its pipeline files"),
        (["run", "other"], "make one with `syncblocks init --from-meltano other/meltano.yml`"),
        (["run", "metadata.yaml"], "`syncblocks init --from-mage PROJECT` writes its pipeline file"),
        (["run", "pipelines/shop/metadata.yaml"], "`syncblocks init --from-mage .` writes its pipeline file"),
        (["run", "project.yaml"], "`syncblocks init --from-mage .` writes pipeline files"),
        (["run", "io_config.yaml"], "each belongs in the `config` of `source` or `destination`"),
        (["run", "loader.yaml"], "is a block of a Mage pipeline: `syncblocks init --from-mage PROJECT`"),
        (["run", "replication.yaml"], "is a replication of Sling"),
        (["run", "tap-github", "target-jsonl"], "`connector: singer` of a pipeline file"),
        (["run", "-r", "shop.yaml"], "`syncblocks run FILE`"),
        (["run", "--streams", "a"], "Name streams by --stream."),
        (["run", "--threads", "4"], "Did you mean '--concurrency'?"),
        (["conns", "test"], "Did you mean 'check'?"),
        (["add", "extractor", "tap-x"], "Did you mean 'init'?"),
        (["pipeline", "x", "info"], "Did you mean 'state show'?"),
        (["state", "list"], "Did you mean 'show'?"),
        (["state", "clear"], "Did you mean 'reset'?"),
        (["sync", "--dest-uri", "duckdb:///x.duckdb"], "`syncblocks sync SRC DST`"),
        (["sync", "--tgt-conn", "X"], "`syncblocks sync SRC DST`"),
        (["sync", "a", "b", "--source-table", "t"], "Name streams by --stream."),
        (["sync", "a", "b", "--src-stream", "t"], "Name streams by --stream."),
        (["sync", "a", "b", "--dest-table", "t"], "Did you mean '--destination-table'?"),
        (["sync", "a", "b", "--tgt-object", "t"], "Did you mean '--destination-table'?"),
        (["sync", "a", "b", "--primary-key", "id"], "Did you mean '--key'?"),
        (["sync", "a", "b", "--incremental-key", "at"], "Did you mean '--incremental'?"),
        (["sync", "a", "b", "--update-key", "at"], "Did you mean '--incremental'?"),
        (["sync", "a", "b", "--incremental-strategy", "merge"], "Did you mean '--mode'?"),
        (["sync", "a", "b", "--full-refresh"], "`syncblocks run FILE --full-refresh`"),
        (["sync", "a", "b", "--interval-start", "2024-01-01"], "`syncblocks run FILE --interval-start`"),
        (["sync", "a", "b", "--columns", "a:bigint"], "`types` of the stream in the file"),
        (["sync", "a", "b", "--sql-limit", "3"], "`limit` of the stream in the file"),
        (["sync", "a", "b", "--mode", "incremental"], "Use --incremental COLUMN to read only new records"),
        (["sync", "a", "b", "--mode", "full-refresh"], "did you mean 'replace'?"),
        (["sync", "a", "b", "--mode", "upsert"], "did you mean 'merge'?"),
        (["sync", "a", "b", "--mode", "MERGE"], "did you mean 'merge'?"),
        (["sync", "a", "b", "--replace"], "Did you mean '--mode'?"),
        (["sync", "a", "b", "--replication-method", "INCREMENTAL"], "Did you mean '--incremental'?"),
        (["sync", "a", "b", "--schema", "raw"], "`--destination-table SCHEMA.TABLE`"),
        (["sync", "a", "b", "--mode", "scd2"], "did you mean 'history'?"),
        (["sync", "a", "b", "--mode", "delete+insert"], "`write_disposition: replace_range` of a pipeline file"),
    ],
)
def test_words_and_files_of_other_tools_are_answered(
    run_cli: RunCLI, tmp_path: Path, args: list[str], said: str
) -> None:
    (tmp_path / "other").mkdir()
    for name in ("meltano.yml", "other/meltano.yml"):
        (tmp_path / name).write_text("version: 1\nplugins: {extractors: [{name: tap-x}]}\n")
    (tmp_path / "pipelines" / "shop").mkdir(parents=True)
    for name in ("metadata.yaml", "pipelines/shop/metadata.yaml"):
        (tmp_path / name).write_text("type: integration\nblocks: []\n")
    (tmp_path / "project.yaml").write_text("project_type: standalone\nvariables_dir: ~/data\n")
    (tmp_path / "io_config.yaml").write_text("version: 0.1.1\ndefault: {POSTGRES_HOST: db}\n")
    (tmp_path / "loader.yaml").write_text("source: postgresql\nconfig: {host: db}\n")
    (tmp_path / "replication.yaml").write_text("source: A\ntarget: B\nstreams:\n  main.orders:\n")
    done = run_cli(args, tmp_path)
    assert (done.returncode, said in done.stderr or done.stderr) == (2, True)


@pytest.mark.parametrize("command", ["discover", "run"])
@pytest.mark.parametrize("place", ["postgresql://u:w3rd@db/crm", "env:CRM_URL", "shop.db", "shop.duckdb"])
def test_a_place_is_no_pipeline_file(run_cli: RunCLI, tmp_path: Path, command: str, place: str) -> None:
    """The URL was shown as a path that is not there, with its password."""
    (tmp_path / "shop.db").write_bytes(b"SQLite format 3\0\xff")
    done = run_cli([command, place], tmp_path)
    said = "FILE: is data, not a pipeline file: `syncblocks sync SRC DST` shows its streams"
    assert (done.returncode, said in done.stderr or done.stderr, "w3rd" in done.stderr) == (2, True, False)


def test_a_folder_as_the_path_of_a_database_is_a_mistake_of_the_file(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    for connector in ("duckdb", "sqlite"):
        text = "source: {connector: csv, config: {path: data}}\ndestination:\n"
        text += f"  connector: {connector}\n  config: {{path: data}}\nstreams: [{{stream: orders}}]\n"
        (tmp_path / "folder.yaml").write_text(text)
        for command in ("plan", "run"):
            done = run_cli([command, "folder.yaml"], tmp_path)
            place = f"folder.yaml:4: destination.config.path: {tmp_path / 'data'} is a folder"
            assert (done.returncode, place in done.stderr) == (2, True)


def test_a_folder_without_pipeline_points_to_init(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 2
    assert "syncblocks init" in done.stderr


def test_a_misspelt_file_names_the_nearest(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    done = run_cli(["run", "shpo.yaml"], tmp_path)
    assert done.returncode == 2
    assert "did you mean 'shop.yaml'?" in done.stderr


def test_a_missing_folder_is_the_mistake_of_the_block_that_names_it(run_cli: RunCLI, tmp_path: Path) -> None:
    path = write_shop(tmp_path)
    path.write_text(path.read_text().replace("path: data", "path: dta"))
    done = run_cli(["plan"], tmp_path)
    assert done.returncode == 2
    assert "source.config.path" in done.stderr


def test_an_empty_file_is_said_to_be_empty(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path, files={"data/customers.csv": ""})
    done = run_cli(["plan"], tmp_path)
    assert done.returncode == 2
    assert "is it empty?" in done.stderr
