"""Singer: lines into a database, a real tap beside its own speed, and a pipe between two plugins through us."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from syncblocks.connectors.struct_helpers import replace
from tests.benchmarks.bench import Bench, Figure, figures
from tests.benchmarks.measure import Usage, alternate
from tests.benchmarks.singer_lines import ORDERS

#: The table that `write_lines` fills, as a user would make it.
_TABLE = """id bigint primary key, customer_id bigint, status text, email text, note text, amount numeric(38,2),
  weight double precision, is_paid boolean, created_at timestamp with time zone, due_on date"""

TAP_POSTGRES = "meltanolabs-tap-postgres==0.10.0"
TARGET_POSTGRES = "meltanolabs-target-postgres==0.8.1"


def lines(bench: Bench) -> list[Figure]:
    """A file of RECORD lines through `cat` into Postgres; the limit is psql's COPY of the same records as text."""
    destination = bench.database()
    file, text = bench.folder / "orders.singer", bench.folder / "orders.tsv"
    bench.run([sys.executable, Path(__file__).with_name("singer_lines.py"), file, str(bench.rows)])
    tap = _script(bench, "tap-cat", f"exec cat '{file}'")
    catalog = _catalog(bench)
    source = {"connector": "singer", "config": {"executable": str(tap), "catalog": str(catalog), "flags": []}}
    pipeline = bench.pipeline("lines", source, _postgres(destination), [{"stream": "orders"}])
    sync = bench.sync(pipeline)
    sync()
    with text.open("wb") as out:
        _copy_out(bench, destination, out)
    sums = "select count(*), count(distinct id), sum(amount), sum(length(note)), sum(hashtextextended(t::text, 0)) from"
    expected = bench.execute(destination, f"{sums} orders t")
    assert expected[0][0] == bench.rows

    def psql() -> Usage:
        bench.execute(destination, f"drop table if exists bare; create table bare ({_TABLE})")
        return bench.run(["cat", text], bench.psql(destination, "copy bare from stdin"))

    taken = alternate({"cat | psql": psql, "cat | syncblocks": sync}, bench.repeat)
    assert bench.execute(destination, f"{sums} orders t") == expected
    assert bench.execute(destination, f"{sums} bare t")[0][:4] == expected[0][:4]
    limit, own = figures("singer lines to postgres", bench.rows, taken, limit="cat | psql", least=0.45)
    each_us = own.usage.cpu_s / bench.rows * 1e6
    target = f"{own.target}, <= 4 us CPU a record: {each_us:.2f}"
    return [limit, replace(own, target=target, is_met=bool(own.is_met) and each_us <= 4.0)]


def tap(bench: Bench) -> list[Figure]:
    """A real tap from PyPI into Postgres; the limit is the tap alone."""
    return _with_real_tap(bench, "tap | cat", bench.rows, least=0.85)


def pair(bench: Bench) -> list[Figure]:
    """A real tap from PyPI into Postgres; the limit is the tap before a real target, with fewer records: it is slow."""
    return _with_real_tap(bench, "tap | target", max(bench.rows // 5, 1), least=2.0)


def _with_real_tap(bench: Bench, limit: str, records: int, *, least: float) -> list[Figure]:
    source, bare, destination = bench.database(), bench.database(), bench.database()
    bench.execute(source, f"create table orders ({_TABLE})")
    bench.execute(source, f"insert into orders {_RECORDS}", {"records": records})
    config = {"connector": "singer", "config": {"pip": TAP_POSTGRES, "config": _tap_config(source)}}
    config["config"]["discovery_cache_s"] = 86_400  # type: ignore[index]  # a dict of a dict
    streams = [{"stream": "public-orders", "destination_table": "orders"}]
    pipeline = bench.pipeline("tap", config, _postgres(destination), streams)
    sync = bench.sync(pipeline)
    sync()  # installs the tap and discovers
    programs = _installed(pipeline.parent)
    folder = bench.folder / "bare"
    folder.mkdir()
    (folder / "tap.json").write_text(json.dumps(_tap_config(source)))
    (folder / "target.json").write_text(
        json.dumps({"sqlalchemy_url": bare.replace("postgresql://", "postgresql+psycopg://")})
    )
    tap_command = [programs["tap"], "--config", folder / "tap.json", "--catalog", _selected(programs["tap"], folder)]
    target_command = [programs["target"], "--config", folder / "target.json"]
    after = {"tap | cat": ["cat"], "tap | target": target_command}[limit]
    taken = alternate({limit: lambda: bench.run(tap_command, after), "tap | syncblocks": sync}, bench.repeat)
    sums = "select count(*), count(distinct id) from"
    assert bench.execute(destination, f"{sums} orders") == [(records, records)]
    return figures("real tap to postgres", records, taken, limit=limit, least=least)


def pipe(bench: Bench) -> list[Figure]:
    """Two plugins of singer-sdk, with us between them; the limit is the bare pipe."""
    plugins = Path(__file__).with_name("plugins.py")
    tap, target = (
        _script(bench, f"{kind}-orders", f"exec '{sys.executable}' '{plugins}' {kind} \"$@\"")
        for kind in ("tap", "target")
    )
    (bench.folder / "tap.json").write_text(json.dumps({"rows": bench.rows}))
    (bench.folder / "target.json").write_text("{}")
    source = {"executable": str(tap), "config": {"rows": bench.rows}, "discovery_cache_s": 86_400}
    pipeline = bench.pipeline(
        "pipe",
        {"connector": "singer", "config": source},
        {"connector": "singer", "config": {"executable": str(target), "activate_version": False}},
        [{"stream": "orders"}],
        callback="@callback('success', fetch_inputs=False)\ndef done(data, **kwargs):\n    pass\n",
    )
    bench.sync(pipeline)()
    bare = ([tap, "--config", "tap.json"], [target, "--config", "target.json"])
    taken = alternate({"tap | target": lambda: bench.run(*bare), "through us": bench.sync(pipeline)}, bench.repeat)
    with closing(sqlite3.connect(pipeline.parent / ".syncblocks" / "store.db")) as store, store:
        counts = store.execute("select distinct row_count from _syncblocks_block_run").fetchall()
    assert counts == [(bench.rows,)], f"{counts} instead of {bench.rows} records"
    return figures("tap | target", bench.rows, taken, limit="tap | target", least=0.95)


def _postgres(url: str) -> dict[str, object]:
    return {"connector": "postgres", "config": {"url": url}}


def _script(bench: Bench, name: str, line: str) -> Path:
    path = bench.folder / name
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def _catalog(bench: Bench) -> Path:
    path = bench.folder / "catalog.json"
    entry = {"tap_stream_id": "orders", "stream": "orders", "schema": ORDERS, "key_properties": ["id"], "metadata": []}
    path.write_text(json.dumps({"streams": [entry]}))
    return path


def _copy_out(bench: Bench, url: str, out: IO[bytes]) -> None:
    subprocess.run(bench.psql(url, "copy orders to stdout"), stdout=out, check=True)


def _tap_config(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port or 5432,
        "user": parts.username or "postgres",
        "password": parts.password or "none",
        "database": parts.path.lstrip("/"),
        "filter_schemas": ["public"],
    }


def _installed(folder: Path) -> dict[str, Path]:
    """Return the programs of the real plugins, installed by the product itself."""
    from syncblocks.connectors.programs.environments import installed

    return {
        kind: installed(pip, program=f"{kind}-postgres", python="", folder=folder, timeout_s=600)
        for kind, pip in (("tap", TAP_POSTGRES), ("target", TARGET_POSTGRES))
    }


def _selected(program: Path, folder: Path) -> Path:
    """Write the tap's own catalog with its one stream selected."""
    found = subprocess.run([program, "--config", folder / "tap.json", "--discover"], stdout=subprocess.PIPE, check=True)
    catalog = json.loads(found.stdout)
    for entry in catalog["streams"]:
        entry["selected"] = True
        for item in entry["metadata"]:
            if not item["breadcrumb"]:
                item["metadata"] |= {"selected": True, "replication-method": "FULL_TABLE"}
    path = folder / "catalog.json"
    path.write_text(json.dumps(catalog))
    return path


_RECORDS = r"""select g, (g * 7919) %% 100000, (array['new', 'paid', 'shipped', 'returned'])[1 + g %% 4],
  'customer' || g %% 100000 || '@example.com', case when g %% 10 <> 0 then 'note ' || md5(g::text) end,
  (g %% 1000000) / 100.0, sqrt(g), g %% 3 = 0, timestamptz '2024-01-01 00:00:00+00' + g * interval '37.5 seconds',
  date '2024-01-01' + (g %% 2000)::int from generate_series(1, %(records)s::bigint) g"""

#: Name on the command line -> scenario.
SCENARIOS: dict[str, Callable[[Bench], list[Figure]]] = {
    "singer-lines": lines,
    "singer-tap": tap,
    "singer-pair": pair,
    "singer-pipe": pipe,
}
