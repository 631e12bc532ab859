"""Files on an object store and on sftp: killed with SIGKILL in the middle of a commit, run again, read back."""

from __future__ import annotations

import csv
import io
import json
import signal
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from .servers import KEYS, s3_store
from .stage import Act, Failed, Stage

RECORDS = 3000

#: Format, how it is written, and where the run is killed; `name:hit` as `connectors/failpoints.py` has it.
CASES = (
    ("csv", "append", "files.manifest.before:2"),
    ("csv", "replace", "files.manifest.after:1"),
    ("jsonl", "append", "files.move.inside:1"),
    ("jsonl", "merge", "files.manifest.after:2"),
    ("parquet", "append", "files.move.before:1"),
    ("parquet", "replace", "files.manifest.before:1"),
)


def _pipeline(stage: Stage, connector: str, mode: str, place: Mapping[str, Any]) -> None:
    with closing(sqlite3.connect(stage.folder / "a.db")) as connection, connection:
        connection.execute("create table items (id integer primary key, name text)")
        connection.executemany("insert into items values (?, ?)", [(n, f"täg {n}") for n in range(RECORDS)])
    entry: dict[str, Any] = {"stream": "items", "write_disposition": mode}
    if mode != "replace":
        entry |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    stage.write(
        {
            "source": {"connector": "sqlite", "config": {"path": "a.db", "checkpoint_records": 1000}},
            "destination": {"connector": connector, "config": dict(place)},
            "streams": [entry],
        }
    )


def _killed_and_run_again(stage: Stage, connector: str, point: str, read: Callable[[], Mapping[str, bytes]]) -> str:
    """Kill one run at a point, run to the end, and count each record once."""
    done = stage.command("run", env={"SYNCBLOCKS_FAILPOINT": f"{point}:kill"})
    if done.returncode != -signal.SIGKILL:
        raise Failed(f"was not killed at {point}: {done.returncode}, {done.stderr[-300:]}")
    stage.sync()
    stage.check(_ids(connector, read()), range(RECORDS), "ids")
    stage.sync()
    stage.check(_ids(connector, read()), range(RECORDS), "ids after one more run")
    return f"killed at {point.partition(':')[0]}, {RECORDS} records once each"


def _ids(connector: str, files: Mapping[str, bytes]) -> Sequence[int]:
    found: list[int] = []
    for name, data in files.items():
        if "_syncblocks_ledger" in name:
            continue
        if connector == "csv":
            found += [int(row["id"]) for row in csv.DictReader(io.StringIO(data.decode()))]
        elif connector == "jsonl":
            found += [json.loads(line)["id"] for line in data.decode().splitlines()]
        else:
            import pyarrow.parquet as pq

            found += pq.read_table(io.BytesIO(data)).column("id").to_pylist()
    return sorted(found)


def object_store_cases() -> list[tuple[str, Act]]:
    """Return the cases of the object store."""

    def act(connector: str, mode: str, point: str) -> Act:
        def run(stage: Stage) -> str:
            with s3_store(stage) as store:
                place = {"path": "s3://bucket/lake", "storage_options": store.options}
                _pipeline(stage, connector, mode, place)

                def read() -> Mapping[str, bytes]:
                    return {key: store.get("bucket", key) for key in store.keys("bucket", "lake")}

                return _killed_and_run_again(
                    Stage(folder=stage.folder, env={**stage.env, **KEYS}), connector, point, read
                )

        return run

    return [(f"s3 {connector} {mode}", act(connector, mode, point)) for connector, mode, point in CASES]


def sftp_case(stage: Stage) -> str:
    """Write CSV over sftp, killed once."""
    from tests.connectors.files.sftp_files import PASSWORD, USER, sftp_server

    root = stage.folder / "remote"
    root.mkdir()
    with sftp_server(root) as served:
        options = {"username": USER, "password": PASSWORD, "host_key": served.host_keys[0]}
        place = {"path": f"sftp://127.0.0.1:{served.port}/lake", "storage_options": options}
        _pipeline(stage, "csv", "append", place)

        def read() -> Mapping[str, bytes]:
            return {str(path): path.read_bytes() for path in sorted(Path(root).rglob("*")) if path.is_file()}

        return _killed_and_run_again(stage, "csv", "files.manifest.before:2", read)
