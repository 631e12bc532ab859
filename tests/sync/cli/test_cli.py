"""The command line, as a user starts it: what it prints, and which exit code it ends with."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks.sync.cli.console import Console
from syncblocks.sync.cli.errors import describe
from syncblocks.sync.cli.logs import _Handler
from syncblocks.sync.errors import StoreUnreachable
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.file_limit import file_limit
from tests.sync.cli.cli_pipelines import CUSTOMERS, names, rows, write_callback, write_shop, write_sqlite


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def modules_after(folder: Path, *args: str) -> set[str]:
    """Top-level modules that a command has imported when it ends."""
    code = (
        "import sys; from syncblocks.sync.cli import invoke; invoke(sys.argv[1:]); "
        "print('\\nMODULES', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_help_names_every_command(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli(["--help"], tmp_path)
    assert done.returncode == 0
    for command in (
        "init",
        "run",
        "plan",
        "check",
        "discover",
        "preview",
        "count",
        "verify",
        "runs",
        "state",
        "callbacks",
    ):
        assert f"\n  {command} " in done.stdout
    assert "Exit codes" in done.stdout


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["run", "--help"], ["state", "set", "-h"], ["nonsense"]])
def test_help_and_usage_errors_import_nothing_heavy(tmp_path: Path, args: list[str]) -> None:
    found = modules_after(tmp_path, *args)
    heavy = {"pyarrow", "pandas", "sqlalchemy", "rich", "pydantic", "yaml", "jinja2", "connectors", "callbacks"}
    assert not found & heavy
    assert "click" in found


def test_a_plain_run_imports_no_heavy_library_that_it_does_not_use(tmp_path: Path) -> None:
    write_shop(tmp_path)
    modules_after(tmp_path, "run")  # makes the run store
    found = modules_after(tmp_path, "run")
    assert not found & {"sqlalchemy", "singer_sdk", "distributed", "dask", "rich", "asyncpg", "psycopg", "fsspec"}
    assert "pyarrow" in found  # the probe sees what there is


def test_version_is_that_of_the_package(run_cli: RunCLI, tmp_path: Path) -> None:
    from importlib.metadata import version

    done = run_cli(["--version"], tmp_path, is_warm=False)
    assert (done.returncode, done.stdout) == (0, f"syncblocks {version('syncblocks')}\n")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["runs", "lits"], "Did you mean 'list'?"),
        (["state", "rest"], "Did you mean 'reset'?"),
        (["run", "--strem", "x"], "--stream"),
        (["run", "--concurrency", "0"], "--concurrency"),
        (["run", "--variable", "novalue"], "NAME=VALUE"),
        (["run", "--event", "nowhere.json"], "nowhere.json cannot be read"),
        (["state", "set", "orders"], "COLUMN=VALUE"),
        (["runs", "show", "latest"], "number of a run"),
    ],
)
def test_a_wrong_command_names_what_was_meant_and_exits_with_2(
    run_cli: RunCLI, tmp_path: Path, args: list[str], hint: str
) -> None:
    done = run_cli(args, tmp_path)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("text", ["[1, 2]", "3", "not json"])
def test_an_event_must_be_a_json_object(run_cli: RunCLI, tmp_path: Path, text: str) -> None:
    write_shop(tmp_path)
    done = run_cli(["run", "--event", "-"], tmp_path, stdin=text)
    assert done.returncode == 2
    assert "stdin holds" in done.stderr
    assert not (tmp_path / ".syncblocks").exists()


def test_a_run_copies_every_stream_and_prints_a_summary(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "shop: run 1: success, 2 streams, 5 records" in done.stdout
    assert "event=stream_ended stream=orders status=success records=3" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert rows(tmp_path, "select count(*) from customers") == [(2,)]
    assert rows(tmp_path, "select count(*) from fact_orders") == [(3,)]


def test_a_second_run_reads_only_what_is_new(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    run_cli(["run"], tmp_path)
    with (tmp_path / "data/orders.csv").open("a") as file:
        file.write("4,2,2024-01-04T08:00:00\n")
    done = run_cli(["run", "--json", "--stream", "orders"], tmp_path)
    result = documents(done.stdout)[-1]
    assert [(stream["stream"], stream["records"]) for stream in result["streams"]] == [("orders", 1)]
    assert rows(tmp_path, "select count(*) from fact_orders") == [(4,)]


def test_a_full_refresh_reads_everything_again(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    run_cli(["run"], tmp_path)
    done = run_cli(["run", "--json", "--stream", "ord*", "--full-refresh"], tmp_path)
    assert documents(done.stdout)[-1]["streams"][0]["records"] == 3
    assert rows(tmp_path, "select count(*) from fact_orders") == [(3,)]


def test_json_lines_of_a_run_end_with_its_result(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(tmp_path, "@callback\ndef tell(stream): print('hello', stream)\n")
    done = run_cli(["run", "--json"], tmp_path)
    lines = documents(done.stdout)
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "run_started"
    assert kinds[-1] == "result"
    assert {"stream_started", "stream_progress", "stream_committed", "stream_ended", "callback"} <= set(kinds)
    assert {line["output"] for line in lines if line["type"] == "callback"} == {"hello customers\n", "hello orders\n"}
    result = lines[-1]
    assert (result["status"], result["exit_code"], result["run_id"]) == ("success", 0, 1)
    assert result["callbacks"] == {"due": 0, "done": 2, "dead": 0}
    assert {stream["stream"]: stream["bookmark"] for stream in result["streams"]} == {
        "customers": None,
        "orders": {"updated_at": "2024-01-03T09:15:00"},
    }


def test_what_callbacks_print_is_shown_with_block_and_event(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(tmp_path, "@callback\ndef tell(stream): print('hello', stream)\n")
    done = run_cli(["run"], tmp_path)
    assert "[alerts export:customers] hello customers\n" in done.stderr


def test_variables_event_and_trigger_reach_callbacks(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(
        tmp_path,
        "@callback\ndef tell(region, limit, event, execution_partition):\n"
        "    print('got', region, limit, event['file'], execution_partition.split('/')[0])\n",
        "streams: [orders]",
    )
    with (tmp_path / "shop.yaml").open("a") as file:
        file.write("variables: {region: us, limit: 1}\n")
    args = ["run", "--variable", "region=eu", "--variable", "limit=[1, 2]", "--trigger", "207", "--event", "-"]
    done = run_cli(args, tmp_path, stdin='{"file": "x.csv"}')
    assert done.returncode == 0, done.stderr
    assert "got eu [1, 2] x.csv 207" in done.stderr


def test_callbacks_run_inside_the_engine_for_a_debugger(run_cli: RunCLI, tmp_path: Path) -> None:
    text = "import os\n@callback\ndef tell(stream):\n    open(f'{stream}.pid', 'w').write(str(os.getppid()))\n"
    write_callback(tmp_path, text)
    done = run_cli(["run", "--inline-callbacks"], tmp_path, is_warm=False)
    assert done.returncode == 0, done.stderr
    import os

    assert {path.read_text() for path in tmp_path.glob("*.pid")} == {str(os.getpid())}


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


@pytest.mark.parametrize("command", ["run", "check", "runs list"])
def test_a_run_store_that_cannot_be_reached_is_1_and_one_that_is_named_wrong_is_2(
    run_cli: RunCLI, tmp_path: Path, postgres_url: str, command: str
) -> None:
    (tmp_path / "full").write_text("")
    wrong = postgres_url.rpartition("/")[0] + "/not_there"
    for store, code in (
        ("postgresql://me@127.0.0.1:1/db", 1),
        ("postgresql://me@no-such-host.invalid/db", 1),
        ("sqlite:///full/store.db", 1 if command == "run" else 0),  # looking makes no store
        (wrong, 2),
        (f"{postgres_url}?sslmode=never", 2),
    ):
        write_shop(tmp_path, extra=f"store: {json.dumps(store)}\n")
        done = run_cli(command.split(), tmp_path)
        assert (store, done.returncode) == (store, code), done.stderr


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
        (["runs", "status"], "There are: cancel, list, retry, show."),
        (["run", "--dry-run"], "`syncblocks plan` shows what a run would do."),
        (["run", "--select", "orders"], "Streams are named by --stream."),
        (["run", "--concurrency", "many"], "'many' is not a whole number"),
        (["sync", "csv://data/orders.csv", "x.duckdb"], "did you mean 'csv:data/orders.csv'?"),
        (["run", "meltano.yml"], "`syncblocks init --from-meltano meltano.yml` writes its pipeline files"),
        (["run", "other"], "make one with `syncblocks init --from-meltano other/meltano.yml`"),
        (["run", "metadata.yaml"], "`syncblocks init --from-mage PROJECT` writes its pipeline file"),
        (["run", "pipelines/shop/metadata.yaml"], "`syncblocks init --from-mage .` writes its pipeline file"),
        (["run", "project.yaml"], "`syncblocks init --from-mage .` writes pipeline files"),
        (["run", "io_config.yaml"], "each is here the `config` of `source` or `destination`"),
        (["run", "loader.yaml"], "is a block of a Mage pipeline: `syncblocks init --from-mage PROJECT`"),
        (["run", "replication.yaml"], "is a replication of Sling"),
        (["run", "tap-github", "target-jsonl"], "`connector: singer` of a pipeline file"),
        (["run", "-r", "shop.yaml"], "`syncblocks run FILE`"),
        (["run", "--streams", "a"], "Streams are named by --stream."),
        (["run", "--threads", "4"], "Did you mean '--concurrency'?"),
        (["conns", "test"], "Did you mean 'check'?"),
        (["add", "extractor", "tap-x"], "Did you mean 'init'?"),
        (["pipeline", "x", "info"], "Did you mean 'state show'?"),
        (["state", "list"], "Did you mean 'show'?"),
        (["state", "clear"], "Did you mean 'reset'?"),
        (["sync", "--dest-uri", "duckdb:///x.duckdb"], "`syncblocks sync SRC DST`"),
        (["sync", "--tgt-conn", "X"], "`syncblocks sync SRC DST`"),
        (["sync", "a", "b", "--source-table", "t"], "Streams are named by --stream."),
        (["sync", "a", "b", "--src-stream", "t"], "Streams are named by --stream."),
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
        (["sync", "a", "b", "--mode", "incremental"], "--incremental COLUMN reads only what is new"),
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
    said = "FILE: is a place of data, not a pipeline file: `syncblocks sync SRC DST` shows its streams"
    assert (done.returncode, said in done.stderr or done.stderr, "w3rd" in done.stderr) == (2, True, False)


def test_a_pipeline_is_the_same_by_every_way_to_its_file(run_cli: RunCLI, tmp_path: Path) -> None:
    """The path of a source of files is part of the ledger row: `a/../shop` must not make it another source."""
    write_shop(tmp_path / "shop")
    (tmp_path / "other" / "below").mkdir(parents=True)
    assert run_cli(["run"], tmp_path / "shop").returncode == 0
    ways = (("other", "../shop/shop.yaml"), ("other/below", "../../shop"), (".", "other/../shop/shop.yaml"))
    for folder, way in ways:
        done = run_cli(["run", way], tmp_path / folder)
        assert done.returncode == 0, done.stderr
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")  # link/../.. is not this folder
    (tmp_path / "deep" / "shop.yaml").write_text((tmp_path / "shop" / "shop.yaml").read_text())
    done = run_cli(["plan", "link/../shop.yaml"], tmp_path)
    assert f"{tmp_path / 'deep' / 'data'}: no such file or folder" in done.stderr


def test_a_pipeline_that_was_renamed_is_told_its_former_name(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_shop(tmp_path)
    assert run_cli(["run"], tmp_path).returncode == 0
    file.write_text(file.read_text().replace("pipeline: shop", "pipeline: store"))
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 2
    assert "a pipeline that was only renamed keeps its ledger by `pipeline: shop`" in done.stderr


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


def test_a_stream_that_fails_shows_its_traceback_to_whoever_debugs(run_cli: RunCLI, tmp_path: Path) -> None:
    fails = "@transformer\ndef fails(df):\n    return {}['no such thing']\n"
    write_shop(tmp_path, extra="transformers: [{file: fails.py}]\n", files={"fails.py": fails})
    assert "Traceback" not in run_cli(["run"], tmp_path).stderr
    for args in (["run", "--debug"], ["run", "--debug", "--json"]):
        done = run_cli(args, tmp_path)
        shown = done.stderr if "--json" not in args else "".join(map(str, documents(done.stdout)))
        assert "Traceback" in shown
        assert "return {}['no such thing']" in shown.replace("\\'", "'")


def test_looking_creates_nothing(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    before = names(tmp_path)
    for args in (
        ["plan"],
        ["check"],
        ["discover"],
        ["preview", "--stream", "orders"],
        ["count"],
        ["runs", "list"],
        ["state", "show"],
        ["callbacks", "list"],
        ["callbacks", "retry"],
    ):
        done = run_cli(args, tmp_path)
        assert done.returncode == 0, (args, done.stderr)
        assert names(tmp_path) == before, args


def test_json_is_one_document_even_if_user_code_prints(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(tmp_path, "print('at load')\n@callback\ndef tell(stream): print('hello', stream)\n")
    assert run_cli(["run"], tmp_path).returncode == 0
    for args in (
        ["plan"],
        ["check"],
        ["discover"],
        ["runs", "list"],
        ["runs", "show"],
        ["state", "show"],
        ["callbacks", "list"],
        ["callbacks", "list", "--run", "1"],
        ["callbacks", "retry"],
        ["schema"],
    ):
        done = run_cli([*args, "--json"], tmp_path)
        assert done.returncode == 0, (args, done.stderr)
        assert isinstance(json.loads(done.stdout), dict), args


def test_the_file_may_be_left_out_where_there_is_one_pipeline(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    (tmp_path / "compose.yaml").write_text("services: {db: {image: postgres}}\n")
    assert run_cli(["plan"], tmp_path).returncode == 0
    as_json = json.dumps(yaml.safe_load((tmp_path / "shop.yaml").read_text()))
    (tmp_path / "second.yml").write_text(as_json)
    done = run_cli(["plan"], tmp_path)
    assert done.returncode == 2
    assert "second.yml, shop.yaml" in done.stderr


def test_a_folder_without_pipeline_points_to_init(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 2
    assert "syncblocks init" in done.stderr


def test_a_misspelt_file_names_the_nearest(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    done = run_cli(["run", "shpo.yaml"], tmp_path)
    assert done.returncode == 2
    assert "did you mean 'shop.yaml'?" in done.stderr


def test_paths_count_from_the_pipeline_file_wherever_the_command_is_started(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path / "pipelines")
    done = run_cli(["run", "pipelines/shop.yaml"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pipelines"}


def test_init_writes_a_pipeline_that_runs_at_once(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli(["init"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "syncblocks run" in done.stdout
    assert run_cli(["plan"], tmp_path).stderr == ""
    first = run_cli(["run"], tmp_path)
    assert first.returncode == 0, first.stderr
    assert "success, 2 streams, 6 records" in first.stdout
    assert "last stream of" in first.stderr
    assert "success, 2 streams, 3 records" in run_cli(["run"], tmp_path).stdout
    assert rows(tmp_path, "select count(*) from fact_orders") == [(3,)]


def test_init_never_overwrites(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/orders.csv").write_text("mine")
    done = run_cli(["init"], tmp_path)
    assert done.returncode == 2
    assert "data/orders.csv" in done.stderr
    assert names(tmp_path) == {"data", "data/orders.csv"}
    assert run_cli(["init", "new/place"], tmp_path).returncode == 0
    assert (tmp_path / "new/place/pipeline.yaml").exists()


def test_discover_shows_columns_types_and_keys(run_cli: RunCLI, tmp_path: Path) -> None:
    write_sqlite(tmp_path)
    (stream,) = json.loads(run_cli(["discover", "--json"], tmp_path).stdout)["streams"]
    assert (stream["stream"], stream["key_properties"]) == ("users", ["id"])
    assert [(column["name"], column["nullable"]) for column in stream["columns"]] == [("id", False), ("name", False)]
    done = run_cli(["discover", "--stream", "user"], tmp_path)
    assert done.returncode == 2
    assert "did you mean 'users'?" in done.stderr


def test_a_sqlite_pipeline_runs(run_cli: RunCLI, tmp_path: Path) -> None:
    write_sqlite(tmp_path)
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "select id, name from users order by id") == [(1, "Ada"), (2, "Grace")]


def test_preview_shows_records_as_they_would_arrive(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(
        tmp_path,
        extra="transformers:\n  - {block: up, file: up.py, streams: [customers], rename: {id: customer_id}}\n",
        files={
            "up.py": "@transformer\ndef up(df, stream):\n    return df.assign(name=df['name'].str.upper(), at=stream)\n"
        },
    )
    found = json.loads(run_cli(["preview", "--stream", "customers", "--limit", "1", "--json"], tmp_path).stdout)
    assert found["records"] == [{"customer_id": 1, "name": "ADA", "at": "customers"}]
    assert [column["name"] for column in found["columns"]] == ["customer_id", "name", "at"]
    text = run_cli(["preview", "--stream", "customers"], tmp_path).stdout
    assert "GRACE" in text
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_preview_shows_control_characters_and_sends_none_to_the_terminal(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path, files={"data/customers.csv": "id,name\n1,\x1b[31mred\n"})
    text = run_cli(["preview", "--stream", "customers"], tmp_path).stdout
    assert "\x1b" not in text
    assert "\\x1b[31mred" in text


def test_count_compares_both_sides(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    before = json.loads(run_cli(["count", "--json"], tmp_path).stdout)["streams"]
    assert [(stream["source"], stream["destination"]) for stream in before] == [(2, None), (3, None)]
    run_cli(["run"], tmp_path)
    with (tmp_path / "data/customers.csv").open("a") as file:
        file.write("3,Linus\n")
    after = json.loads(run_cli(["count", "--json"], tmp_path).stdout)["streams"]
    assert [(stream["source"], stream["destination"]) for stream in after] == [(3, 2), (3, 3)]


def test_plan_says_where_each_stream_starts_and_what_changes(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    run_cli(["run"], tmp_path)
    (tmp_path / "data/orders.csv").write_text("id,customer_id,updated_at,note\n9,1,2024-02-01T00:00:00,hi\n")
    planned = {
        stream["stream"]: stream for stream in json.loads(run_cli(["plan", "--json"], tmp_path).stdout)["streams"]
    }
    assert planned["orders"]["bookmark"] == {"updated_at": "2024-01-03T09:15:00"}
    assert planned["orders"]["changes"] == ["add column note"]
    assert planned["customers"]["changes"] == ["replace table"]
    assert "add column note" in run_cli(["plan"], tmp_path).stdout


def test_secrets_are_masked_in_every_output(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(
        tmp_path, "@callback\ndef tell(key):\n    print('key is', key)\n    raise ValueError(key)\n", "attempts: 1"
    )
    with (tmp_path / "shop.yaml").open("a") as file:
        file.write("variables: {key: \"{{ env_var('SHOP_KEY') }}\"}\n")
    env = {"SHOP_KEY": "hunter2-very-secret"}
    for args in (["run"], ["run", "--json"], ["run", "--debug"], ["runs", "show", "--json"]):
        done = run_cli(args, tmp_path, env)
        assert "hunter2" not in done.stdout + done.stderr, args
        if args[0] == "run":
            assert "key is ***" in done.stdout + done.stderr, args


def test_no_name_begins_a_line_of_its_own_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    forged = "stream 'a\nerror: everything is lost'"
    console = Console()
    _Handler(console).emit(logging.makeLogRecord({"msg": forged, "levelname": "WARNING"}))
    console.warn(forged)
    console.fail(ValueError(forged))
    console.echo(forged, err=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 8
    assert [line for line in lines if line.startswith("error: everything")] == []


def test_output_that_nobody_reads_does_not_stop_a_run(tmp_path: Path) -> None:
    write_shop(tmp_path)
    script = str(Path(sys.executable).with_name("syncblocks"))
    with subprocess.Popen([script, "run", "--json"], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0
    assert rows(tmp_path, "select count(*) from customers") == [(CUSTOMERS.count("\n") - 1,)]


@pytest.mark.parametrize(("args", "completion"), [(["--help"], ""), (["--version"], ""), ([], "bash_source")])
def test_help_that_nobody_reads_is_no_error(tmp_path: Path, args: list[str], completion: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = str(Path(sys.executable).with_name("syncblocks"))
    environment = {**os.environ, "_SYNCBLOCKS_COMPLETE": completion}
    with os.fdopen(writing, "wb") as stdout:
        done = subprocess.run([script, *args], env=environment, stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


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


def test_without_a_command_the_help_is_shown_and_nothing_else(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli([], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: syncblocks")
    assert "..." not in done.stderr.partition("Commands:")[2]  # no sentence is cut off


def test_preview_and_debug_show_where_a_function_failed(run_cli: RunCLI, tmp_path: Path) -> None:
    text = "@transformer\ndef clean(df):\n    return df.assign(x=df['nme'])\n"
    extra = "transformers:\n  - {file: clean.py, streams: [customers]}\n"
    write_shop(tmp_path, extra=extra, files={"clean.py": text})
    done = run_cli(["preview", "shop.yaml", "--stream", "customers"], tmp_path)
    assert done.returncode == 1
    assert f"KeyError: 'nme', at {tmp_path}/clean.py:3: return df.assign(x=df['nme']); did you mean 'name'? The" in (
        done.stderr
    )
    assert "The columns are: id, name" in done.stderr
    assert "bug of" not in done.stderr
    for command in (["preview", "shop.yaml", "--stream", "customers"], ["run"]):
        assert "Traceback" in run_cli([*command, "--debug"], tmp_path).stderr


def test_a_failure_is_said_once_with_what_to_do_about_it(run_cli: RunCLI, tmp_path: Path) -> None:
    fails = "@transformer\ndef fails(df):\n    raise ValueError('what is wrong, ' + 'at length, ' * 20)\n"
    write_shop(tmp_path, extra="transformers: [{file: fails.py}]\n", files={"fails.py": fails})
    done = run_cli(["run", "--stream", "orders"], tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("what is wrong") == 2, "the message, and the line of the function"
    for step in ("`syncblocks runs show 1`", "`syncblocks runs retry`"):
        assert step in done.stdout
    assert "`retries:`" not in done.stdout, "nothing repeats a transformer"
    assert max(len(line) for line in done.stdout.splitlines() if "what is wrong" not in line) <= 80


def test_a_command_that_is_shown_names_the_pipeline_file_where_it_has_to(run_cli: RunCLI, tmp_path: Path) -> None:
    home, shop = tmp_path / "on call", tmp_path / "on call" / "the shop"
    fails = "@transformer\ndef fails(df):\n    raise ValueError('no')\n"
    write_shop(shop, extra="transformers: [{file: fails.py}]\n", files={"fails.py": fails})
    away = tmp_path / "away"
    away.mkdir()
    for folder, file, shown in (
        (home, "the shop/shop.yaml", " 'the shop/shop.yaml'"),
        (away, str(shop / "shop.yaml"), f" '{shop / 'shop.yaml'}'"),
        (shop, "shop.yaml", ""),
    ):
        done = run_cli(["run", file, "--stream", "orders"], folder)
        assert f"`syncblocks runs show{shown} " in done.stdout
        assert f"`syncblocks runs retry{shown}`" in done.stdout
        assert f"`syncblocks run{shown}` carries this out" in run_cli(["plan", file], folder).stdout
    write_shop(shop, files={"other.yaml": (shop / "shop.yaml").read_text()})
    assert "`syncblocks run shop.yaml` carries" in run_cli(["plan", "shop.yaml"], shop).stdout, "one of two files"


def test_a_run_says_at_once_what_it_does_and_at_its_end_how_long_it_took(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    done = run_cli(["run"], tmp_path)
    assert "reading the catalog" in done.stderr.splitlines()[0]
    assert done.stdout.splitlines()[-1].startswith("shop: run 1: success, 2 streams, 5 records, ")
    assert done.stdout.splitlines()[-1].endswith(" s")


def test_preview_without_a_stream_shows_the_only_one_or_lists_them(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    done = run_cli(["preview"], tmp_path)
    assert (done.returncode, "There are: customers, orders" in done.stderr) == (2, True), done.stderr
    (tmp_path / "data" / "orders.csv").unlink()
    (tmp_path / "shop.yaml").write_text(
        (tmp_path / "shop.yaml").read_text().partition("streams:")[0] + "streams: [{stream: '*'}]\n"
    )
    assert "Ada" in run_cli(["preview"], tmp_path).stdout


def test_a_difference_names_the_repair(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    run_cli(["run"], tmp_path)
    (tmp_path / "data/customers.csv").write_text(CUSTOMERS.replace("Ada", "Eva"))
    done = run_cli(["verify"], tmp_path)
    assert (done.returncode, done.stdout.count("`syncblocks verify --repair`")) == (1, 1), done.stdout
    assert "--repair" not in run_cli(["verify", "--stream", "orders"], tmp_path).stdout


def test_a_difference_of_a_range_names_what_mends_it(run_cli: RunCLI, tmp_path: Path) -> None:
    range_of_ids = "  - {stream: customers, key_properties: [id], write_disposition: replace_range, range_column: id}"
    file = write_shop(tmp_path)
    file.write_text(file.read_text().partition("streams:")[0] + f"streams:\n{range_of_ids}\n")
    run_cli(["run"], tmp_path)
    (tmp_path / "data/customers.csv").write_text(CUSTOMERS.replace("Ada", "Eva"))
    done = run_cli(["verify"], tmp_path)
    assert "next: customers: a run writes the records of each id that it reads anew" in done.stdout, done.stdout
    assert "--repair" not in done.stdout


def test_plan_says_what_becomes_of_files_and_objects(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/events.jsonl").write_text('{"id": 1, "a": {"b": 1}}\n')
    document = {
        "source": {"connector": "jsonl", "config": {"path": "in"}, "nested": {"flatten": 2}},
        "destination": {"connector": "csv", "config": {"path": "out", "partition_by": ["id"], "file_records": 1000}},
        "streams": [{"stream": "*"}],
    }
    (tmp_path / "files.yaml").write_text(json.dumps(document))
    done = run_cli(["plan", "files.yaml"], tmp_path)
    shown = done.stdout
    assert done.returncode == 0, done.stderr
    assert "the destination's files: a folder for each id (`partition_by`); at most 1,000 records in each" in shown, (
        shown
    )
    assert "events: the values of objects are columns, down to 2 levels" in shown
    found = json.loads(run_cli(["plan", "files.yaml", "--json"], tmp_path).stdout.splitlines()[-1])
    assert found["files"] == {"partition_by": ["id"], "file_records": 1000}
    assert found["streams"][0]["nested"] == 2


@pytest.mark.parametrize(
    "written", ["write_disposition: history", "write_disposition: replace_range, range_column: name"]
)
def test_what_a_run_alone_mends_is_told_of_no_repair(written: str, run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_sqlite(tmp_path)
    file.write_text(file.read_text().replace("stream: users", f"stream: users, {written}"))
    assert run_cli(["run"], tmp_path).returncode == 0
    with closing(sqlite3.connect(tmp_path / "crm.sqlite")) as crm, crm:
        crm.execute("insert into users values (3, 'Linus')")
    done = run_cli(["verify"], tmp_path)
    assert (done.returncode, "--repair" in done.stdout) == (1, False), done.stdout
    assert "next: users: " in done.stdout


def test_a_tag_chooses_streams_in_every_command_that_takes_streams(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_sqlite(tmp_path)
    with closing(sqlite3.connect(tmp_path / "crm.sqlite")) as crm, crm:
        crm.execute("create table orders (id integer primary key, note text, total integer)")
        crm.execute("insert into orders values (1, 'x', 5)")
    entries = "[{stream: users}, {stream: orders, tags: [hourly], columns: {include: [total, id]}}]"
    file.write_text(file.read_text().replace("[{stream: users}]", entries))
    for command in ("plan", "count", "run"):
        done = run_cli([command, "crm.yaml", "--tag", "hourly", "--json"], tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])["streams"]
        assert [each["stream"] for each in found] == ["orders"]
    assert rows(tmp_path, "select * from orders") == [(5, 1)]
    for command in ("run", "plan", "verify", "count"):
        done = run_cli([command, "crm.yaml", "--tag", "hourli"], tmp_path)
        assert done.returncode == 2
        assert "'hourli' is the tag of no selected stream" in done.stderr
        assert "did you mean 'hourly'?" in done.stderr


def test_the_execution_date_can_be_said(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("id\n1\n")
    (tmp_path / "p.yaml").write_text(
        "source: {connector: csv, config: {path: in}}\n"
        "destination: {connector: duckdb, config: {path: warehouse.duckdb}}\n"
        "streams: [{stream: a, add_columns: {_at: '{{ ds }} {{ hr }} {{ execution_partition }}'}}]\n"
    )
    done = run_cli(["run", "--execution-date", "2024-02-29T06:30+02:00", "--trigger", "nightly"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "select _at from a") == [("2024-02-29 04 nightly/20240229T043000",)]
    wrong = run_cli(["plan", "--execution-date", "yesterday"], tmp_path)
    assert wrong.returncode == 2
    assert "'yesterday' is no time: write 2024-01-31" in wrong.stderr
