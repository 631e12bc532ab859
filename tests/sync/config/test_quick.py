"""`sync SRC DST`: what is inferred, what is written down, and that no password ever is."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from syncblocks.sync.config.endpoints import Endpoint, infer, joined
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI

ENVIRON = {"CRM_URL": "postgresql://u:s3cr3t-word@db/crm", "PGPASSWORD": "other-word", "EMPTY": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "customers.csv").write_text("id,name\n1,Ada\n2,Grace\n")
    (tmp_path / "shop" / "orders.csv").write_text("id,total\n1,2.5\n")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.csv").write_text("id\n1\n")
    (tmp_path / "mixed" / "b.jsonl").write_text('{"id": 1}\n')
    for name, member in (("orders.csv.zip", "orders.csv"), ("export.zip", "all/b.jsonl"), ("zips/a.csv.zip", "a.csv")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, "")
            archive.writestr("read.me", "")
    (tmp_path / "broken.zip").write_text("")
    with closing(sqlite3.connect(tmp_path / "odd.data")) as connection, connection:
        connection.execute("create table t (id integer primary key)")
    with duckdb.connect(str(tmp_path / "named.db")):
        pass
    return tmp_path


def inferred(text: str, folder: Path, role: str = "source") -> Endpoint:
    return infer(text, role, folder, ENVIRON)


@pytest.mark.parametrize(
    ("text", "connector", "config"),
    [
        ("postgres://db/crm", "postgres", {"url": "postgres://db/crm"}),
        (
            "postgresql://u@db:5433/crm?sslmode=require",
            "postgres",
            {"url": "postgresql://u@db:5433/crm?sslmode=require"},
        ),
        ("mysql://root@127.0.0.1/shop", "mysql", {"url": "mysql://root@127.0.0.1/shop"}),
        ("mariadb://root@127.0.0.1/shop", "mariadb", {"url": "mariadb://root@127.0.0.1/shop"}),
        ("mssql+pyodbc://db/crm?driver=x", "sqlalchemy", {"url": "mssql+pyodbc://db/crm?driver=x"}),
        ("duckdb:///x.duckdb", "duckdb", {"path": "x.duckdb"}),
        ("sqlite:////abs/x.db", "sqlite", {"path": "/abs/x.db"}),
        ("shop", "csv", {"path": "shop"}),
        ("shop/*.csv", "csv", {"path": "shop/*.csv"}),
        ("s3://bucket/x.json.gz", "json", {"path": "s3://bucket/x.json.gz"}),
        ("shop/orders.csv", "csv", {"path": "shop/orders.csv"}),
        ("csv:mixed", "csv", {"path": "mixed"}),
        ("orders.csv.zip", "csv", {"path": "orders.csv.zip"}),
        ("export.zip", "jsonl", {"path": "export.zip"}),
        ("zips/*.csv.zip", "csv", {"path": "zips/*.csv.zip"}),
        ("odd.data", "sqlite", {"path": "odd.data"}),
        ("named.db", "duckdb", {"path": "named.db"}),
        ("s3://bucket/events/*.parquet", "parquet", {"path": "s3://bucket/events/*.parquet"}),
        ("env:CRM_URL", "postgres", {"url": "{{ env_var('CRM_URL') }}"}),
    ],
)
def test_a_place_says_what_it_is(folder: Path, text: str, connector: str, config: dict[str, str]) -> None:
    found = inferred(text, folder)
    assert (found.connector, found.config, found.environment) == (connector, config, {})


@pytest.mark.parametrize(
    ("text", "connector"),
    [
        ("out.parquet", "parquet"),
        ("x.csv.gz", "csv"),
        ("w.ddb", "duckdb"),
        ("w.sqlite3", "sqlite"),
        ("jsonl:out", "jsonl"),
    ],
)
def test_a_destination_need_not_be_there(folder: Path, text: str, connector: str) -> None:
    assert inferred(text, folder, "destination").connector == connector


@pytest.mark.parametrize(
    ("url", "reference", "variables"),
    [
        # The shell has put a variable's value there: the file gets the variable back.
        ("postgresql://u:s3cr3t-word@db/crm", "{{ env_var('CRM_URL') }}", {}),
        ("postgresql://u:other-word@db/x", "postgresql://u:{{ env_var('PGPASSWORD') }}@db/x", {}),
        (
            "postgresql://u:a%40b@db/x",
            "postgresql://u:{{ env_var('SOURCE_PASSWORD') }}@db/x",
            {"SOURCE_PASSWORD": "a%40b"},
        ),
        ("mysql://u:word:two@db/x", "mysql://u:{{ env_var('SOURCE_PASSWORD') }}@db/x", {"SOURCE_PASSWORD": "word:two"}),
    ],
)
def test_a_password_becomes_a_reference(folder: Path, url: str, reference: str, variables: dict[str, str]) -> None:
    found = inferred(url, folder)
    assert (found.config, found.environment) == ({"url": reference}, variables)


@pytest.mark.parametrize(
    ("text", "role", "hint"),
    [
        ("postgres://u:p/w3rd@db/x", "source", "%2F"),
        ("postgres://u:p@w3rd@x/y@db", "source", "%40"),
        ("postgres://db/x?password=w3rd", "source", "env:NAME"),
        ("s3://key:w3rd@bucket/x.csv", "source", "storage_options"),
        ("-", "source", "standard input is not read: write it to a file"),
        ("warehouse", "destination", "a file (x.csv, x.jsonl, x.parquet, x.duckdb, x.db)"),
        ("out.json", "destination", "x.jsonl"),
        ("json:out", "destination", "x.jsonl"),
        ("https://host/x.parquet?X-Amz-Signature=w3rd", "source", "storage_options"),
        ("postgre:/u:w3rd@db/x", "source", "its kind is unknown"),
        ("postgrse://db/x", "source", "did you mean 'postgres://'?"),
        ("bigquery://project/data", "source", "pip install sqlalchemy-bigquery"),
        ("shp", "source", "did you mean 'shop'?"),
        ("shop/order.csv", "source", "did you mean 'orders.csv'?"),
        ("mixed", "source", "csv:mixed"),
        ("warehouse", "destination", "parquet:warehouse"),
        ("out.tsv", "destination", "csv:folder"),
        ("out.csv.bz2", "destination", "x.csv.gz"),
        ("out.csv.zip", "destination", "x.csv.gz"),
        ("zips", "source", "csv:zips/*.zip"),
        ("book.xlsx", "source", "save the sheet as CSV"),
        ("*.zip", "source", "csv:*.zip"),
        ("broken.zip", "source", "csv:broken.zip"),
        ("my out.csv", "destination", "letters, digits"),
        ("env:CRM", "source", "not set"),
        ("env:PGPASSWORD", "source", "no URL"),
        ("postgres:crm", "source", "takes a URL"),
        ("duckdb://", "destination", "has no path of a file"),
    ],
)
def test_what_cannot_be_inferred_says_how_to_say_it(folder: Path, text: str, role: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        inferred(text, folder, role)
    assert hint in str(caught.value)
    assert "w3rd" not in str(caught.value)


def test_a_glob_that_the_shell_has_opened_is_closed_again(folder: Path) -> None:
    assert joined(["shop/customers.csv", "shop/orders.csv"], folder) == "shop/*.csv"
    with pytest.raises(ConfigError, match="quotes"):
        joined(["shop/customers.csv", "mixed/a.csv"], folder)
    (folder / "shop" / "third.csv").write_text("id\n")
    with pytest.raises(ConfigError, match="quotes"):
        joined(["shop/customers.csv", "shop/orders.csv"], folder)


def test_files_are_synced_and_the_file_does_the_same(run_cli: RunCLI, folder: Path) -> None:
    done = run_cli(["sync", "shop/*.csv", "out.parquet", "--stream", "cust*"], folder)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(folder / "out.parquet").to_pylist()[1] == {"id": 2, "name": "Grace"}
    assert (folder / "_syncblocks_ledger").is_dir()
    assert "wrote shop_to_out.yaml" in done.stdout
    assert run_cli(["run", "shop_to_out.yaml"], folder).returncode == 0
    assert run_cli(["sync", "shop/*.csv", "out.parquet", "--stream", "cust*"], folder).returncode == 0
    before = (folder / "shop_to_out.yaml").read_text()
    done = run_cli(["sync", "shop/*.csv", "out.parquet"], folder)
    assert done.returncode == 2
    assert "--save" in done.stderr
    assert (folder / "shop_to_out.yaml").read_text() == before


@pytest.mark.full
def test_other_places_of_the_same_names_get_a_file_of_their_own(run_cli: RunCLI, folder: Path) -> None:
    def saved(*places: str) -> str:
        done = run_cli(["sync", *places, "--stream", "orders", "--json"], folder)
        assert done.returncode == 0, done.stdout
        return next(Path(line["file"]).name for line in map(json.loads, done.stdout.splitlines()) if "file" in line)

    (folder / "deep").mkdir()
    wanted = {
        "w.duckdb": "shop_to_w.yaml",
        "w.db": "shop_csv_to_w_sqlite.yaml",
        "w.jsonl": "shop_csv_to_w_jsonl.yaml",
        "deep/w.db": "shop_csv_to_w_sqlite_2.yaml",
    }
    # Each goes on from its own file.
    for place in (*wanted, *wanted):
        assert saved("shop", place) == wanted[place]
    # Settings that were added by hand are those of the same pipeline.
    path = folder / "shop_to_w.yaml"
    path.write_text(path.read_text().replace("path: shop", "path: shop\n    delimiter: ','"))
    done = run_cli(["sync", "shop", "w.duckdb", "--stream", "orders"], folder)
    assert (done.returncode, "exists and differs" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["shop", "out.csv"], "--stream"),
        (["shop/orders.csv", "out.csv", "--incremental", "id"], "leave out --incremental"),
        (["shop/orders.csv", "out.csv", "--mode", "append"], "csv:folder"),
        (["shop/orders.csv", "taken.csv"], "--mode replace replaces it, or name another file"),
    ],
)
def test_a_file_as_destination_takes_one_whole_stream(
    run_cli: RunCLI, folder: Path, args: list[str], hint: str
) -> None:
    (folder / "taken.csv").write_text("mine\n1\n")
    before = {path.name for path in folder.iterdir()}
    done = run_cli(["sync", *args], folder)
    assert (done.returncode, hint in done.stderr) == (2, True), done.stderr
    assert {path.name for path in folder.iterdir()} == before
    assert (folder / "taken.csv").read_text() == "mine\n1\n"
    if "taken.csv" in args:
        assert run_cli(["sync", *args, "--mode", "replace"], folder).returncode == 0
        assert (folder / "taken.csv").read_text() == "id,total\n1,2.5\n"


def test_a_file_is_compressed_by_its_name_and_a_folder_stays_one(run_cli: RunCLI, folder: Path) -> None:
    done = run_cli(["sync", "shop/orders.csv", "sub.csv.gz"], folder)
    assert done.returncode == 0, done.stderr
    assert gzip.decompress((folder / "sub.csv.gz").read_bytes()).split() == [b"id,total", b"1,2.5"]
    (folder / "lake.csv").mkdir()
    assert run_cli(["sync", "shop", "lake.csv"], folder).returncode == 0
    assert {path.name for path in (folder / "lake.csv").glob("*.csv")} == {"customers.csv", "orders.csv"}
    assert inferred("s3://bucket/deep/out.jsonl", folder, "destination").config == {"path": "s3://bucket/deep"}


def test_options_are_written_down(run_cli: RunCLI, folder: Path) -> None:
    done = run_cli(
        [
            "sync",
            "shop",
            "w.duckdb",
            "--stream",
            "orders",
            "--incremental",
            "id",
            "--key",
            "id",
            "--save",
            "sub/p.yaml",
        ],
        folder,
    )
    assert done.returncode == 0, done.stderr
    document = yaml.safe_load((folder / "sub" / "p.yaml").read_text())
    assert document["pipeline"] == "p"
    assert document["streams"] == [
        {
            "stream": "orders",
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["id"],
            "key_properties": ["id"],
        }
    ]
    # Relative paths count from the file's folder.
    assert document["source"]["config"]["path"] == str(folder / "shop")
    assert run_cli(["run", "sub/p.yaml"], folder).returncode == 0


def test_a_table_may_have_another_name(run_cli: RunCLI, folder: Path) -> None:
    args = ["sync", "shop", "w.duckdb", "--stream", "orders", "--destination-table", "raw.sales"]
    done = run_cli(args, folder)
    assert done.returncode == 0, done.stderr
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as connection:
        assert connection.sql("from raw.sales").fetchall() == [(1, 2.5)]
    for args, said in (
        (["shop", "x.duckdb"], "name one of them with --stream"),
        (["shop", "x.csv", "--stream", "orders"], "is one file"),
    ):
        done = run_cli(["sync", *args, "--destination-table", "raw.sales"], folder)
        assert (done.returncode, "--destination-table: " in done.stderr, said in done.stderr) == (2, True, True)


def test_what_the_destination_cannot_keep_is_decided_on_the_command_line(run_cli: RunCLI, folder: Path) -> None:
    """There is no file yet in which `on_lossy` could be said."""
    moments = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"at": moments}), folder / "t.parquet")
    done = run_cli(["sync", "t.parquet", "w.duckdb"], folder)
    assert (done.returncode, "say --on-lossy text" in done.stderr) == (2, True), done.stderr
    assert "in this stream" not in done.stderr
    done = run_cli(["sync", "t.parquet", "w.duckdb", "--on-lossy", "text"], folder)
    assert done.returncode == 0, done.stderr
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as connection:
        ((text,),) = connection.sql("from t").fetchall()
    assert text.startswith("2023-11-14T22:13:20.123456789")
    assert run_cli(["run"], folder).returncode == 0


def test_a_table_of_another_program_is_replaced_by_an_option(run_cli: RunCLI, folder: Path) -> None:
    """There is no file yet in which `write_disposition` could be said, and none that `state adopt` could read."""
    with duckdb.connect(str(folder / "named.db")) as connection:
        connection.execute("create table orders as select 7 as id")
    args = ["sync", "shop", "named.db", "--stream", "orders"]
    done = run_cli(args, folder)
    ways = "--mode replace replaces it, or give another table by --destination-table"
    assert (done.returncode, ways in done.stderr, "state adopt" in done.stderr) == (2, True, False), done.stderr
    assert run_cli([*args, "--mode", "replace"], folder).returncode == 0
    with duckdb.connect(str(folder / "named.db"), read_only=True) as connection:
        assert connection.sql("from orders").fetchall() == [(1, 2.5)]


@pytest.mark.parametrize(
    "args",
    [
        ["shop", "w.duckdb", "--stream", "query:select 1"],
        ["shop", "w.duckdb", "--stream", "SELECT * from orders"],
        ["select * from orders", "w.duckdb"],
    ],
)
def test_a_query_in_a_command_is_told_where_it_belongs(run_cli: RunCLI, folder: Path, args: list[str]) -> None:
    done = run_cli(["sync", *args], folder)
    assert (done.returncode, "a query is `query` of a stream in a pipeline file" in done.stderr) == (2, True)


def test_a_mistake_writes_nothing(run_cli: RunCLI, folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    for args in (["shop", "w.duckdb", "--stream", "nothing"], ["shop", "w.duckdb", "--incremental", "at"], ["shop"]):
        assert run_cli(["sync", *args], folder).returncode == 2
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.full
def test_a_typed_password_gets_nowhere(run_cli: RunCLI, folder: Path, postgres_url: str) -> None:
    place = postgres_url.partition("://")[2].rpartition("@")[2]
    typed = f"postgresql://postgres:w0rd-of-mine@{place}"
    run_cli(["sync", "shop", typed], folder)
    done = run_cli(["sync", typed, "copy.duckdb", "--json"], folder)
    assert done.returncode == 0, done.stdout
    saved = next(line for line in map(json.loads, done.stdout.splitlines()) if line["type"] == "saved")
    assert saved["needs_variables"] == ["SOURCE_PASSWORD"]
    held = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"w0rd-of-mine" not in held + (done.stdout + done.stderr).encode()
    with duckdb.connect(str(folder / "copy.duckdb")) as connection:
        assert connection.execute("select count(*) from customers").fetchall() == [(2,)]
    again = run_cli(["run", Path(saved["file"]).name], folder, env={"SOURCE_PASSWORD": "w0rd-of-mine"})
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("args", "typed"),
    [
        (["shop/orders.csv", "w.duckdb", "--key", "nope", "--mode", "merge"], "--key"),
        (["shop/orders.csv", "w.duckdb", "--mode", "merge"], "--key"),
        (["shop/orders.csv", "w.duckdb", "--incremental", "nope"], "--incremental"),
        (["shop", "w.duckdb", "--stream", "nope"], "--stream"),
        (["blank.csv", "w.duckdb"], "SRC"),
        (["postgresql://nobody:w3rd@127.0.0.1:1/x", "w.duckdb", "--key", "id"], None),
    ],
)
def test_before_a_file_is_written_a_mistake_is_that_of_the_command(
    run_cli: RunCLI, folder: Path, args: list[str], typed: str | None
) -> None:
    (folder / "blank.csv").write_text("")
    done = run_cli(["sync", *args], folder)
    assert done.returncode == (1 if typed is None else 2), done.stderr
    assert ".yaml" not in done.stderr
    assert "streams[0]" not in done.stderr
    if typed is not None:
        assert f"]: {typed}: " in done.stderr
    assert not list(folder.glob("*.yaml"))


def test_incremental_without_a_column_names_those_that_may_grow(run_cli: RunCLI, folder: Path) -> None:
    (folder / "a.csv").write_text("id,created_at,name,updated_at\n1,2026-01-01,x,2026-01-02\n")
    (folder / "b.csv").write_text("id,v\n1,2\n")
    for file, said in (("a.csv", "probably updated_at or created_at"), ("b.csv", "there are id, v")):
        done = run_cli(["sync", file, "w.duckdb", "--incremental", "--yes"], folder)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    done = run_cli(["sync", "a.csv", "--incremental", "w.duckdb"], folder)
    assert "'w.duckdb' is taken for the COLUMN of --incremental" in done.stderr
    assert not list(folder.glob("*.yaml"))


def test_a_mistake_of_a_file_that_is_there_is_said_with_its_line(run_cli: RunCLI, folder: Path) -> None:
    args = ["sync", "shop/orders.csv", "w.duckdb", "--incremental", "id"]
    assert run_cli(args, folder).returncode == 0
    (folder / "shop" / "orders.csv").write_text("other\n1\n")
    done = run_cli(args, folder)
    assert done.returncode != 0
    assert "orders_to_w.yaml" in done.stderr + done.stdout
