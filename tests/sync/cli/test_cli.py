"""The command line, as a user starts it: what it prints, and which exit code it ends with."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from syncblocks.sync.cli.console import Console
from syncblocks.sync.cli.logs import _Handler
from tests.conftest import RunCLI
from tests.sync.cli.cli_pipelines import CUSTOMERS, documents, rows, write_callback, write_shop, write_sqlite


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


@pytest.mark.full
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
        "@callback\ndef tell(*, region, limit, event, execution_partition):\n"
        "    print('got', region, limit, event['file'], execution_partition.split('/')[0])\n",
        "streams: [orders]",
    )
    with (tmp_path / "shop.yaml").open("a") as file:
        file.write("variables: {region: us, limit: 1}\n")
    args = ["run", "--variable", "region=eu", "--variable", "limit=[1, 2]", "--trigger", "207", "--event", "-"]
    done = run_cli(args, tmp_path, stdin='{"file": "x.csv"}')
    assert done.returncode == 0, done.stderr
    assert "got eu [1, 2] x.csv 207" in done.stderr


@pytest.mark.full
def test_callbacks_run_inside_the_engine_for_a_debugger(run_cli: RunCLI, tmp_path: Path) -> None:
    text = "import os\n@callback\ndef tell(stream):\n    open(f'{stream}.pid', 'w').write(str(os.getppid()))\n"
    write_callback(tmp_path, text)
    done = run_cli(["run", "--inline-callbacks"], tmp_path, is_warm=False)
    assert done.returncode == 0, done.stderr
    import os

    assert {path.read_text() for path in tmp_path.glob("*.pid")} == {str(os.getpid())}


@pytest.mark.full
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
    assert "if the pipeline was only renamed, keep its ledger by `pipeline: shop`" in done.stderr


@pytest.mark.full
def test_a_stream_that_fails_shows_its_traceback_to_whoever_debugs(run_cli: RunCLI, tmp_path: Path) -> None:
    fails = "@transformer\ndef fails(df):\n    return {}['no such thing']\n"
    write_shop(tmp_path, extra="transformers: [{file: fails.py}]\n", files={"fails.py": fails})
    assert "Traceback" not in run_cli(["run"], tmp_path).stderr
    for args in (["run", "--debug"], ["run", "--debug", "--json"]):
        done = run_cli(args, tmp_path)
        shown = done.stderr if "--json" not in args else "".join(map(str, documents(done.stdout)))
        assert "Traceback" in shown
        assert "return {}['no such thing']" in shown.replace("\\'", "'")


@pytest.mark.full
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


def test_paths_count_from_the_pipeline_file_wherever_the_command_is_started(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path / "pipelines")
    done = run_cli(["run", "pipelines/shop.yaml"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pipelines"}


def test_a_sqlite_pipeline_runs(run_cli: RunCLI, tmp_path: Path) -> None:
    write_sqlite(tmp_path)
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "select id, name from users order by id") == [(1, "Ada"), (2, "Grace")]


@pytest.mark.full
def test_secrets_are_masked_in_every_output(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(
        tmp_path, "@callback\ndef tell(*, key):\n    print('key is', key)\n    raise ValueError(key)\n", "attempts: 1"
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


@pytest.mark.full
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


def test_without_a_command_the_help_is_shown_and_nothing_else(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli([], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: syncblocks")
    assert "..." not in done.stderr.partition("Commands:")[2]  # no sentence is cut off


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


@pytest.mark.full
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


@pytest.mark.full
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
