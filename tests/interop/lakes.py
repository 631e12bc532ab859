"""Delta tables in an object store: killed at each commit, answers lost, and read by other people's readers."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from syncblocks.connectors.programs.environments import installed

from .servers import KEYS, Store, s3_store
from .stage import Act, Failed, Stage

RECORDS = 1000

#: The newest DuckDB whose reader of Delta tables is a package, in an environment of its own.
DUCKDB = ("duckdb==1.4.4", "duckdb-ext-delta==1.4.4.20260205")

#: Reads a table by DuckDB; its extension is loaded from the package.
READ_BY_DUCKDB = """
import json, sys
from importlib.metadata import files
import duckdb
(extension,) = (each.locate() for each in files("duckdb-ext-delta") if each.name == "delta.duckdb_extension")
connection = duckdb.connect()
connection.execute(f"load '{extension}'")
connection.execute("set TimeZone = 'UTC'")
rows = connection.execute(f"select columns(*)::varchar from delta_scan('{sys.argv[1]}') order by id").fetchall()
print(json.dumps(rows))
"""


def _options(url: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
    }


def _pipeline(stage: Stage, mode: str, url: str, lake: str) -> None:
    records = [{"id": number, "name": f"täg {number}"} for number in range(RECORDS)]
    tables = {"items": {"columns": {"id": "int64", "name": "string"}, "key": ["id"], "records": records}}
    size = RECORDS // 10
    entry: dict[str, Any] = {"stream": "items", "write_disposition": mode}
    if mode != "replace":
        entry |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    stage.write(
        {
            "pipeline": lake,
            "store": f"sqlite:///{lake}.db",
            "source": {
                "connector": "memory",
                "config": {"tables": tables, "batch_size": size, "checkpoint_records": size},
            },
            "destination": {
                "connector": "delta",
                "config": {"path": f"s3://bucket/{lake}", "storage_options": _options(url)},
            },
            "streams": [entry],
        }
    )


def _held(url: str, lake: str) -> list[int]:
    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(f"s3://bucket/{lake}/items", storage_options=_options(url))
    found = pa.table(QueryBuilder().register("t", table).execute("select id from t"))
    return sorted(found.column("id").to_pylist())


def _unnamed(store: Store, lake: str) -> list[str]:
    """Return the data files that no commit names."""
    keys = store.keys("bucket", lake)
    log = b"".join(store.get("bucket", key) for key in keys if "_delta_log" in key and key.endswith(".json"))
    return [key for key in keys if key.endswith(".parquet") and key.rpartition("/")[2].encode() not in log]


def _kills(stage: Stage) -> str:
    """Kill a run at each point that it reaches, run again, and find each record once and no file too many."""
    done = 0
    with s3_store(stage) as store:
        stage = Stage(folder=stage.folder, env={**stage.env, **KEYS})
        for mode in ("append", "merge", "replace"):
            _pipeline(stage, mode, store.url, f"{mode}-traced")
            trace = stage.folder / f"{mode}.points"
            if (quiet := stage.command("run", "p.yaml", env={"SYNCBLOCKS_FAILPOINT_TRACE": str(trace)})).returncode:
                raise Failed(quiet.stderr[-400:])
            points = [line for line in trace.read_text().splitlines() if line.startswith("delta.")]
            for number, point in enumerate(points):
                lake = f"{mode}-{number}"
                _pipeline(stage, mode, store.url, lake)
                killed = stage.command("run", "p.yaml", env={"SYNCBLOCKS_FAILPOINT": f"{point}:kill"})
                if killed.returncode != -signal.SIGKILL:
                    raise Failed(f"was not killed at {point}: {killed.returncode}, {killed.stderr[-300:]}")
                stage.sync()
                stage.check(_held(store.url, lake), range(RECORDS), f"{mode}, killed at {point}: ids")
                stage.check(_unnamed(store, lake), [], f"{mode}, killed at {point}: files that no commit names")
                done += 1
    return f"{done} kills, {RECORDS} records once each"


# A proxy before the store


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: Address of the store.
    store = ""
    #: Whether the condition of a PUT is kept from the store.
    is_deaf = False
    #: Which commits of the log lose their answers, after they have landed: each of this number.
    loses_each = 0
    lost = 0
    commits = 0
    lock = threading.Lock()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "host")}
        if self.is_deaf:
            headers = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
        connection = HTTPConnection(urlsplit(self.store).netloc, timeout=30)
        connection.request(self.command, self.path, body, {**headers, "Host": self.headers["Host"]})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if self.command == "PUT" and "_delta_log" in self.path and answer.status == 200 and self._is_lost():
            self.close_connection = True
            self.connection.close()
            return
        with suppress(OSError):  # a process that was killed waits for no answer
            self._answer(answer, content)

    def _answer(self, answer: HTTPResponse, content: bytes) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _is_lost(self) -> bool:
        made = type(self)
        with self.lock:
            made.commits += 1
            is_lost = bool(self.loses_each) and made.commits % self.loses_each == 0
            made.lost += is_lost
        return is_lost

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def _proxy(store: Store, **settings: Any) -> Iterator[tuple[str, type[_Proxy]]]:
    made = type("Proxy", (_Proxy,), {"store": store.url, **settings})
    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", made
    finally:
        server.shutdown()
        server.server_close()


def _lost_answers(stage: Stage) -> str:
    """Let the store take a commit and its answer get lost, for every second commit."""
    told = []
    with s3_store(stage) as store:
        stage = Stage(folder=stage.folder, env={**stage.env, **KEYS})
        for mode in ("append", "merge", "replace"):
            with _proxy(store, loses_each=2) as (url, proxy):
                _pipeline(stage, mode, url, f"lost-{mode}")
                stage.sync()
                stage.sync()
                if not proxy.lost:
                    raise Failed("no answer was lost")
                told.append(proxy.lost)
            stage.check(_held(store.url, f"lost-{mode}"), range(RECORDS), f"{mode}: ids")
    return f"{sum(told)} answers of commits lost, {RECORDS} records once each"


def _others(stage: Stage) -> str:
    """Let others append, compact, clear up and take over while a load commits."""
    from syncblocks.connectors.delta.destination import DeltaDestination
    from tests.connectors.delta.disturbances import disturbed

    told = Counter[str]()
    with s3_store(stage) as store, pytest.MonkeyPatch.context() as patched:
        for name, value in KEYS.items():
            patched.setenv(name, value)
        options = _options(store.url)
        for mode in ("append", "merge", "replace"):
            path = f"s3://bucket/others-{mode}"

            def make(path: str = path) -> DeltaDestination:
                return DeltaDestination({"path": path, "storage_options": options}, stage.folder)

            told += disturbed(make, f"{path}/items", options, mode)
    if told["zombie refused"] != 3:
        raise Failed(f"a zombie has committed: {dict(told)}")
    return ", ".join(f"{count} {name}" for name, count in sorted(told.items()))


def _conditional_put(stage: Stage) -> str:
    """`check` passes with this store, and refuses the same store behind a proxy that drops the condition."""
    with s3_store(stage) as store:
        stage = Stage(folder=stage.folder, env={**stage.env, **KEYS})
        _pipeline(stage, "append", store.url, "asked")
        if (done := stage.command("check", "p.yaml")).returncode:
            raise Failed(f"check: {done.stdout[-400:]}{done.stderr[-400:]}")
        stage.check(store.keys("bucket"), [], "what a check leaves")
        with _proxy(store, is_deaf=True) as (url, _):
            _pipeline(stage, "append", url, "deaf")
            done = stage.command("check", "p.yaml")
        if not done.returncode or "conditional PUT" not in done.stdout + done.stderr:
            raise Failed(f"an unsafe store passed: {done.stdout[-400:]}{done.stderr[-400:]}")
    return "the store refuses a second commit; a store that takes it is refused"


#: Columns of a stream, and texts of its values, as DuckDB shows them.
COLUMNS = {
    "id": "int64",
    "name": "string",
    "amount": "decimal(38,10)",
    "at": "timestamp[us, tz=UTC]",
    "naive": "timestamp[us]",
    "day": "date32",
    "is_new": "bool",
    "ratio": "double",
    "region": "string",
}
VALUES = [
    ["1", "täglich", "-0.0000000001", "2024-02-29 23:59:59.999999+00", "0001-01-02 00:00:00", "1582-10-10", "true"],
    ["2", None, None, None, None, None, None],
    ["3", "new", "1.5000000000", "9999-12-30 00:00:00+00", "2024-03-31 02:30:00.000001", "9999-12-31", "false"],
]


#: Lists, structs and maps as DuckDB shows them, a column that became wider, and one with an odd name.
NESTED = [
    ["1", "[x, NULL]", "{'a': 1, 'b': [1.50]}", "{k=0.5}", "ab", "2147483647", "-999.9900"],
    ["2", "[]", "{'a': NULL, 'b': NULL}", "{}", None, "1099511627776", "0.0001"],
]


def _nested_by_duckdb(program: Path, stage: Stage) -> Any:
    import pyarrow as pa

    from tests.connectors.delta.delta_loads import FINAL, destination_of, load_of, run

    narrow = pa.schema(
        [
            ("id", pa.int64()),
            ("tags", pa.list_(pa.string())),
            ("who", pa.struct([("a", pa.int32()), ("b", pa.list_(pa.decimal128(9, 2)))])),
            ("sizes", pa.map_(pa.string(), pa.float64())),
            ("Größe x", pa.binary()),
            ("n", pa.int32()),
            ("price", pa.decimal128(5, 2)),
        ]
    )
    wide = narrow.set(5, pa.field("n", pa.int64())).set(6, pa.field("price", pa.decimal128(12, 4)))
    one = {"id": 1, "tags": ["x", None], "who": {"a": 1, "b": [Decimal("1.50")]}, "sizes": [("k", 0.5)]}
    one |= {"Größe x": b"ab", "n": 2**31 - 1, "price": Decimal("-999.99")}
    two = {"id": 2, "tags": [], "who": {"a": None, "b": None}, "sizes": [], "n": 2**40, "price": Decimal("0.0001")}
    destination = destination_of(stage.folder / "nested")
    for token, schema, record in (("t0", narrow, one), ("t1", wide, two)):
        batch = pa.RecordBatch.from_pylist([record], schema=schema)
        run(destination, load_of("append", token, schema), batch, FINAL)
    return _by_duckdb(program, stage.folder / "nested" / "items")


def _by_duckdb(program: Path, table: Path) -> Any:
    done = subprocess.run(
        [str(program), "-c", READ_BY_DUCKDB, str(table)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise Failed(done.stderr[-600:])
    return json.loads(done.stdout.splitlines()[-1])  # before it, a slow query shows its progress


def _read_by_duckdb(stage: Stage) -> str:
    """DuckDB's own reader sees the values of partitions, of an append, a merge and a column that came later."""
    program = installed(" ".join(DUCKDB), program="python", python="", folder=stage.folder, timeout_s=900)
    rows = [[*row, "0.25", region] for row, region in zip(VALUES, ("e/u é%", "us", None), strict=True)]
    texts = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    records = [
        row | {"id": int(str(row["id"])), "ratio": 0.25, "is_new": row["is_new"] and row["is_new"] == "true"}
        for row in texts
    ]
    lake = {"path": "lake", "partition_by": ["region"]}
    for names, held, mode in (
        ([name for name in COLUMNS if name != "ratio"], [records[0] | {"name": "old"}, records[1]], "append"),
        (list(COLUMNS), records, "merge"),
    ):
        tables = {
            "items": {
                "columns": {name: COLUMNS[name] for name in names},
                "key": ["id"],
                "records": [{name: record[name] for name in names} for record in held],
            }
        }
        stage.write(
            {
                "pipeline": "items",
                "source": {"connector": "memory", "config": {"tables": tables}},
                "destination": {"connector": "delta", "config": lake},
                "streams": [{"stream": "items", "write_disposition": mode}],
            }
        )
        stage.sync()
    found = _by_duckdb(program, stage.folder / "lake" / "items")
    stage.check(_nested_by_duckdb(program, stage), NESTED, "nested columns that DuckDB reads")
    order = [*(name for name in COLUMNS if name != "ratio"), "ratio"]
    expected = [[row[name] for name in order] for row in texts]
    stage.check(found, expected, "what DuckDB reads")
    return f"{len(expected)} records as in the source"


def lake_cases() -> list[tuple[str, Act]]:
    """Return the cases of Delta tables."""
    cases: Mapping[str, Act] = {
        "delta s3 conditional put": _conditional_put,
        "delta s3 kills": _kills,
        "delta s3 lost answers": _lost_answers,
        "delta s3 others": _others,
        "delta read by duckdb": _read_by_duckdb,
    }
    return list(cases.items())
