"""Singer plugins of other people: each tap into DuckDB, the records into each target, and read back."""

from __future__ import annotations

import csv
import json
import sqlite3
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import duckdb

from tests import services

from .stage import NAMES, RECORDS, Stage, http_folder, records_source, write_csv, write_json

#: Rows of a target, as its own readers give them: the values of `name`, in the order of `id`.
ReadBack = Callable[[Stage], Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One plugin at one version."""

    pip: str
    #: `tap` or `target`.
    role: str
    run: Callable[[Stage, str], str]
    #: Why it cannot work, where that is known: then a failure is what is expected.
    known: str = ""


def tap(
    stage: Stage, pip: str, config: Mapping[str, Any], stream: str, *, names: Sequence[str] = NAMES, **settings: Any
) -> str:
    """Sync one stream of a tap twice into DuckDB, and compare the names."""
    entry = {"stream": stream, "destination_table": "items", **settings.pop("entry", {})}
    stage.write(
        {
            "source": {"connector": "singer", "config": {"pip": pip, "config": dict(config), **settings}},
            "destination": {"connector": "duckdb", "config": {"path": "items.duckdb"}},
            "streams": [entry],
        }
    )
    for _ in range(2):
        stage.sync()
        with duckdb.connect(str(stage.folder / "items.duckdb"), read_only=True) as connection:
            rows = connection.execute("select name from items order by try_cast(id as double)").fetchall()
        stage.check([row[0] for row in rows], names, "names")
    lost = "" if names == NAMES else f"; the tap makes {names[1]!r} of {NAMES[1]!r}"
    return f"3 records, twice{lost}"


def target(stage: Stage, pip: str, config: Mapping[str, Any], read: ReadBack, **settings: Any) -> str:
    """Send the records to a target, run again with nothing new, and read its own form back."""
    entry = {"stream": "items", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    stage.write(
        {
            "source": records_source(),
            "destination": {"connector": "singer", "config": {"pip": pip, "config": dict(config), **settings}},
            "streams": [entry],
        }
    )
    for _ in range(2):
        stage.sync()
        stage.check(read(stage), NAMES, "names")
    return "3 records, and as many after a run without new ones"


# -- taps --------------------------------------------------------------------------------------------------------------


def _tap_postgres(stage: Stage, pip: str) -> str:
    import psycopg

    with services.fresh_postgres_database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("create table items (id int primary key, name text, amount numeric(12,2))")
            rows = [(record["id"], record["name"], record["amount"]) for record in RECORDS]
            connection.cursor().executemany("insert into items values (%s, %s, %s)", rows)
        config = {**_parts(url), "database": urlsplit(url).path[1:], "filter_schemas": ["public"]}
        entry = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
        return tap(stage, pip, config, "public-items", entry=entry)


def _tap_mysql(stage: Stage, pip: str) -> str:
    import pymysql

    with services.fresh_mariadb_database() as url:
        place = urlsplit(url)
        database = place.path[1:]
        options: dict[str, Any] = {"host": place.hostname, "port": place.port or 3306, "user": place.username}
        password = place.password or ""
        with closing(pymysql.connect(**options, password=password, database=database)) as connection:
            with connection.cursor() as cursor:
                cursor.execute(
                    "create table items (id int primary key, name text character set utf8mb4, amount decimal(12,2))"
                )
                rows = [(record["id"], record["name"], record["amount"]) for record in RECORDS]
                cursor.executemany("insert into items values (%s, %s, %s)", rows)
            connection.commit()
        config = {**options, "port": str(options["port"]), "password": password, "database": database}
        config["filter_dbs"] = database
        # Both ask the server for texts of at most three bytes a character.
        names = [name.replace("😀", "?") for name in NAMES]
        return tap(stage, pip, config, f"{database}-items", names=names, entry={"replication_method": "FULL_TABLE"})


def _tap_jsonl(stage: Stage, pip: str) -> str:
    write_json(stage.folder / "data" / "items.jsonl", lines=True)
    return tap(stage, pip, {"path": "data/items.jsonl", "stream_name": "items"}, "items")


def _tap_jsonfile(stage: Stage, pip: str) -> str:
    write_json(stage.folder / "data" / "items.json", lines=False)
    return tap(stage, pip, {"paths": ["data/items.json"], "stream_name": "items"}, "items")


def _tap_csv_folder(stage: Stage, pip: str) -> str:
    write_csv(stage.folder / "data" / "items.csv")
    config = {"path": "data", "filesystem": "local", "read_mode": "one_stream_per_file"}
    return tap(stage, pip, config, "items")


def _tap_spreadsheets(stage: Stage, pip: str) -> str:
    write_csv(stage.folder / "data" / "items.csv")
    file = {
        "path": "data/items.csv",
        "format": "csv",
        "worksheet": "items",
        "table_name": "items",
        "primary_keys": ["id"],
    }
    return tap(stage, pip, {"files": [file]}, "items")


def _tap_rest(stage: Stage, pip: str) -> str:
    write_json(stage.folder / "web" / "items.json", lines=False)
    with http_folder(stage.folder / "web") as url:
        stream = {"name": "items", "path": "/items.json", "records_path": "$[*]", "primary_keys": ["id"]}
        return tap(stage, pip, {"api_url": url, "streams": [stream]}, "items")


def _tap_dbf(stage: Stage, pip: str) -> str:
    (stage.folder / "data").mkdir()
    (stage.folder / "data" / "items.dbf").write_bytes(_dbf(["a", "b", "c"]))
    config = {"path": "data/*.dbf", "fs_root": f"file://{stage.folder}/"}
    stage.write(
        {
            "source": {"connector": "singer", "config": {"pip": pip, "config": config}},
            "destination": {"connector": "duckdb", "config": {"path": "items.duckdb"}},
            "streams": [{"stream": "*", "destination_table": "items"}],
        }
    )
    stage.sync()
    with duckdb.connect(str(stage.folder / "items.duckdb"), read_only=True) as connection:
        rows = connection.execute('select "NAME" from items order by 1').fetchall()
    stage.check([row[0].strip() for row in rows], ["a", "b", "c"], "names")
    return "3 records"


def _dbf(names: Sequence[str]) -> bytes:
    """Return a dBase III file with one text column."""
    head = struct.pack("<BBBBIHH20x", 3, 124, 1, 1, len(names), 32 + 32 + 1, 1 + 10)
    column = struct.pack("<11sc4xBB14x", b"NAME", b"C", 10, 0)
    return head + column + b"\r" + b"".join(b" " + name.encode().ljust(10) for name in names) + b"\x1a"


def _tap_sftp(stage: Stage, pip: str) -> str:
    from .servers import sftp_folder

    write_csv(stage.folder / "remote" / "items.csv")
    with sftp_folder(stage.folder / "remote") as server:
        table = {
            "table_name": "items",
            "search_prefix": "/",
            "search_pattern": "items\\.csv$",
            "key_properties": ["id"],
            "delimiter": ",",
        }
        config = {**server, "private_key_file": "", "tables": [table], "start_date": "2020-01-01T00:00:00Z"}
        return tap(stage, pip, config, "items")


def _tap_s3_csv(stage: Stage, pip: str) -> str:
    from .servers import KEYS, s3_store

    with s3_store(stage) as store:
        write_csv(stage.folder / "items.csv")
        store.put("bucket", "in/items.csv", (stage.folder / "items.csv").read_bytes())
        table = {
            "table_name": "items",
            "search_prefix": "in/",
            "search_pattern": "items\\.csv$",
            "key_properties": "id",
            "delimiter": ",",
        }
        config = {
            "bucket": "bucket",
            "start_date": "2020-01-01T00:00:00Z",
            "account_id": "123456789012",
            "external_id": "x",
            "role_name": "r",
            "tables": json.dumps([table]),
        }
        return tap(stage, pip, config, "items", env={**KEYS, "AWS_ENDPOINT_URL": store.url})


# -- targets -----------------------------------------------------------------------------------------------------------


def _json_lines(pattern: str) -> ReadBack:
    def read(stage: Stage) -> Sequence[Any]:
        found = []
        for path in sorted(stage.folder.glob(pattern)):
            for line in path.read_text(encoding="utf-8").splitlines():
                message = json.loads(line)
                found.append(message.get("record", message))
        return [record["name"] for record in sorted(found, key=lambda each: each["id"]) if "name" in record]

    return read


def _csv_files(pattern: str) -> ReadBack:
    def read(stage: Stage) -> Sequence[Any]:
        found: list[dict[str, str]] = []
        for path in sorted(stage.folder.glob(pattern)):
            with path.open(newline="", encoding="utf-8") as file:
                found += csv.DictReader(file)
        return [record["name"] for record in sorted(found, key=lambda each: int(each["id"]))]

    return read


def _target_jsonl(stage: Stage, pip: str) -> str:
    (stage.folder / "out").mkdir()
    config = {"destination_path": "out", "do_timestamp_file": False}
    return target(stage, pip, config, _json_lines("out/*.jsonl"))


def _target_csv(stage: Stage, pip: str) -> str:
    (stage.folder / "out").mkdir()
    return target(stage, pip, {"destination_path": "out"}, _csv_files("out/*.csv"))


def _target_csv_meltano(stage: Stage, pip: str) -> str:
    (stage.folder / "out").mkdir()
    config = {"output_path": "out", "file_naming_scheme": "{stream_name}-{timestamp}.csv"}
    return target(stage, pip, config, _csv_files("out/*.csv"))


def _target_sqlite(stage: Stage, pip: str) -> str:
    def read(stage: Stage) -> Sequence[Any]:
        with closing(sqlite3.connect(stage.folder / "x.db")) as connection:
            return [row[0] for row in connection.execute("select name from items order by id")]

    return target(stage, pip, {"database": "x.db"}, read)


def _target_duckdb(stage: Stage, pip: str) -> str:
    def read(stage: Stage) -> Sequence[Any]:
        with duckdb.connect(str(stage.folder / "x.duckdb"), read_only=True) as connection:
            return [row[0] for row in connection.execute("select name from main.items order by id").fetchall()]

    config = {"path": "x.duckdb", "filepath": "x.duckdb", "default_target_schema": "main"}
    return target(stage, pip, config, read)


def _target_json(stage: Stage, pip: str) -> str:
    return target(stage, pip, {"destination_path": "."}, _json_lines("items*.json*"))


def _target_singer_jsonl(stage: Stage, pip: str) -> str:
    config = {"destination": "local", "local": {"folder": "out", "recursive": True}}
    return target(stage, pip, config, _json_lines("out/**/*.jsonl"))


def _postgres_target(schema: str, config: Callable[[str], Mapping[str, Any]]) -> Callable[[Stage, str], str]:
    def run(stage: Stage, pip: str) -> str:
        import psycopg

        with services.fresh_postgres_database() as url:

            def read(_: Stage) -> Sequence[Any]:
                with psycopg.connect(url) as connection:
                    return [row[0] for row in connection.execute(f"select name from {schema}.items order by id")]  # type: ignore[arg-type, unused-ignore]

            return target(stage, pip, config(url), read)

    return run


def _parts(url: str) -> dict[str, Any]:
    place = urlsplit(url)
    return {
        "host": place.hostname,
        "port": place.port or 5432,
        "user": place.username,
        "password": place.password or "x",
    }


def _target_mysql(stage: Stage, pip: str) -> str:
    import pymysql

    with services.fresh_mariadb_database() as url:
        place = urlsplit(url)
        options: dict[str, Any] = {"host": place.hostname, "port": place.port or 3306, "user": place.username}
        database, password = place.path[1:], place.password or ""

        def read(_: Stage) -> Sequence[Any]:
            with closing(pymysql.connect(**options, password=password, database=database)) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("select name from items order by id")
                    return [row[0] for row in cursor.fetchall()]

        config = {
            **options,
            "password": password,
            "database": database,
            "dbname": database,
            "default_target_schema": database,
        }
        return target(stage, pip, config, read)


def _target_s3(
    config: Callable[[str], Mapping[str, Any]], names: Callable[[bytes], Sequence[Any]]
) -> Callable[[Stage, str], str]:
    def run(stage: Stage, pip: str) -> str:
        from .servers import KEYS, s3_store

        with s3_store(stage) as store:

            def read(_: Stage) -> Sequence[Any]:
                return [name for key in store.keys("bucket") for name in names(store.get("bucket", key))]

            env = {**KEYS, "AWS_ENDPOINT_URL": store.url}
            return target(stage, pip, config(store.url), read, env=env)

    return run


def _names_of_lines(data: bytes) -> Sequence[Any]:
    return [json.loads(line)["name"] for line in data.decode().splitlines()]


def _names_of_csv(data: bytes) -> Sequence[Any]:
    return [record["name"] for record in csv.DictReader(data.decode().splitlines())]


_S3 = {"s3_bucket": "bucket", "aws_access_key_id": "testing", "aws_secret_access_key": "testing"}

PLUGINS: tuple[Plugin, ...] = (
    Plugin(pip="meltanolabs-tap-postgres==0.10.0", role="tap", run=_tap_postgres),
    Plugin(pip="pipelinewise-tap-mysql==1.6.0", role="tap", run=_tap_mysql),
    Plugin(pip="tap-mysql==1.17.7", role="tap", run=_tap_mysql),
    Plugin(pip="tap-rest-api-msdk==1.4.2", role="tap", run=_tap_rest),
    Plugin(pip="tap-jsonl==0.3.1", role="tap", run=_tap_jsonl),
    Plugin(pip="tap-jsonfile==0.1.2", role="tap", run=_tap_jsonfile),
    Plugin(
        pip="tap-csv-folder==0.0.1a1",
        role="tap",
        run=_tap_csv_folder,
        known="with its newest singer-sdk it fails at any catalog: `primary_keys` has no setter",
    ),
    Plugin(pip="tap-spreadsheets==1.1.2", role="tap", run=_tap_spreadsheets),
    Plugin(pip="tap-dbf==0.1.25", role="tap", run=_tap_dbf),
    Plugin(pip="tap-sftp==1.3.0", role="tap", run=_tap_sftp),
    Plugin(pip="tap-s3-csv==2.3.1", role="tap", run=_tap_s3_csv),
    Plugin(
        pip="meltanolabs-target-postgres==0.8.1",
        role="target",
        run=_postgres_target("public", lambda url: {"sqlalchemy_url": url, "default_target_schema": "public"}),
    ),
    Plugin(
        pip="pipelinewise-target-postgres==2.1.2",
        role="target",
        run=_postgres_target(
            "loaded", lambda url: {**_parts(url), "dbname": urlsplit(url).path[1:], "default_target_schema": "loaded"}
        ),
    ),
    Plugin(
        pip="target-postgres==1.1.3",
        role="target",
        run=_postgres_target(
            "public",
            lambda url: {
                **{
                    f"postgres_{key}" if key != "user" else "postgres_username": value
                    for key, value in _parts(url).items()
                },
                "postgres_database": urlsplit(url).path[1:],
                "postgres_schema": "public",
                "disable_collection": True,
            },
        ),
    ),
    Plugin(pip="target-jsonl==0.1.4", role="target", run=_target_jsonl),
    Plugin(
        pip="target-csv==0.3.0",
        role="target",
        run=_target_csv,
        known="it takes `collections.MutableMapping`, which Python has no more since 3.10",
    ),
    Plugin(pip="meltanolabs-target-csv==0.5.0", role="target", run=_target_csv_meltano),
    Plugin(
        pip="target-sqlite==0.2.0",
        role="target",
        run=_target_sqlite,
        known="its SQLAlchemy takes `collections.MutableMapping`, which Python has no more since 3.10",
    ),
    Plugin(pip="target-duckdb==0.8.0", role="target", run=_target_duckdb),
    Plugin(pip="target-json==0.0.11 pytz", role="target", run=_target_json),
    Plugin(pip="target-singer-jsonl==0.1.0", role="target", run=_target_singer_jsonl),
    Plugin(pip="target-mysql==0.8.0", role="target", run=_target_mysql),
    Plugin(
        pip="target-s3-jsonl==2.0.1",
        role="target",
        run=_target_s3(
            lambda url: {**_S3, "path_template": "out/{stream}.jsonl", "aws_endpoint_url": url}, _names_of_lines
        ),
    ),
    Plugin(
        pip="pipelinewise-target-s3-csv==2.0.0",
        role="target",
        run=_target_s3(lambda url: {**_S3, "aws_endpoint_url": url}, _names_of_csv),
    ),
)
