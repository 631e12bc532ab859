"""Commands that look and run nothing: init, discover, preview, count, plan, verify."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import RunCLI
from tests.sync.cli.cli_pipelines import CUSTOMERS, names, rows, write_shop, write_sqlite


@pytest.mark.full
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


@pytest.mark.full
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


def test_json_escapes_what_controls_a_terminal_or_ends_a_line(run_cli: RunCLI, tmp_path: Path) -> None:
    name = "\x7f\x85\x9b31mred\u200e\u202e\u2028\u2029\u2066é💥"
    write_shop(tmp_path, files={"data/customers.csv": f"id,name\n1,{name}\n"})
    text = run_cli(["preview", "--stream", "customers", "--json"], tmp_path).stdout
    assert json.loads(text)["records"] == [{"id": 1, "name": name}]
    assert text.removesuffix("\n").isprintable()
    assert "é💥" in text


@pytest.mark.full
def test_count_compares_both_sides(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    before = json.loads(run_cli(["count", "--json"], tmp_path).stdout)["streams"]
    assert [(stream["source"], stream["destination"]) for stream in before] == [(2, None), (3, None)]
    run_cli(["run"], tmp_path)
    with (tmp_path / "data/customers.csv").open("a") as file:
        file.write("3,Linus\n")
    after = json.loads(run_cli(["count", "--json"], tmp_path).stdout)["streams"]
    assert [(stream["source"], stream["destination"]) for stream in after] == [(3, 2), (3, 3)]


@pytest.mark.full
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


def test_preview_without_a_stream_shows_the_only_one_or_lists_them(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    done = run_cli(["preview"], tmp_path)
    assert (done.returncode, "There are: customers, orders" in done.stderr) == (2, True), done.stderr
    (tmp_path / "data" / "orders.csv").unlink()
    (tmp_path / "shop.yaml").write_text(
        (tmp_path / "shop.yaml").read_text().partition("streams:")[0] + "streams: [{stream: '*'}]\n"
    )
    assert "Ada" in run_cli(["preview"], tmp_path).stdout


@pytest.mark.full
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


@pytest.mark.one_of
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
