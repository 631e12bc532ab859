"""`deletes: hard` of streams whose tables foreign keys join: loads parents first, deletions children first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from syncblocks import RunResult, StreamResult, finish_run, load_pipeline, open_run, run_pipeline, sync_stream
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.connectors.singer.singer_helpers import full_table, record, schema, small
from tests.sync.pipelines import Bench, statuses
from tests.sync.run.spread import SpreadBench
from tests.sync.run.targets import ALCHEMY, DESTINATIONS, Target, open_target

if TYPE_CHECKING:
    from tests.cluster import Cluster

# Firebird's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

#: SQLite keeps foreign keys, and checks none.
KINDS = (*DESTINATIONS, *ALCHEMY)


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(getattr(request, "param", "postgres"), tmp_path) as opened_target:
        yield opened_target


class Shop:
    """A pipeline of `zones`, `cities` of zones, and `roads` of cities; children stand first in its file."""

    def __init__(self, folder: Path, target: Target, *, made: bool = True) -> None:
        self.bench, self.target = Bench(folder), target
        self.bench.document["destination"] = target.document
        self.streams: dict[str, dict[str, Any]] = {
            name: {"stream": name, "write_disposition": "merge", "key_properties": ["id"], "deletes": "hard"}
            for name in ("roads", "cities", "zones")
        }
        if made:
            for sql in (
                "create table zones (id bigint primary key, v bigint)",
                "create table cities (id bigint primary key, of_zone bigint, v bigint, "
                "foreign key (of_zone) references zones (id))",
                "create table roads (id bigint primary key, of_city bigint, v bigint, "
                "foreign key (of_city) references cities (id))",
            ):
                target.query(sql)

    def seed(self, *ids: int, v: int = 0, **of_stream: tuple[int, ...]) -> None:
        """Let each table of the source have these records; a record refers to that of its own number."""
        for name, parent in (("zones", ""), ("cities", "of_zone"), ("roads", "of_city")):
            found = of_stream.get(name, ids)
            self.bench.seed(name, [{"id": n, **({parent: n} if parent else {}), "v": v} for n in found])

    def seed_files(self, *ids: int) -> None:
        """Let files be the source."""
        self.bench.document["source"] = {"block": "load", "connector": "jsonl", "config": {"path": "in"}}
        (self.bench.folder / "in").mkdir(exist_ok=True)
        for name, parent in (("zones", ""), ("cities", "of_zone"), ("roads", "of_city")):
            lines = [json.dumps({"id": n, **({parent: n} if parent else {})}) for n in ids]
            (self.bench.folder / "in" / f"{name}.jsonl").write_text("\n".join(lines))

    def run(self, **options: Any) -> RunResult:
        self.bench.document["streams"] = list(self.streams.values())
        return self.bench.run(**options)

    def synced(self, **options: Any) -> RunResult:
        result = self.run(**options)
        assert result.status == "success", [stream.error for stream in result.streams]
        return result

    def ids(self, table: str) -> list[int]:
        return [number for (number,) in self.target.query(f"select id from {table} order by id")]

    def all_ids(self) -> list[list[int]]:
        return [self.ids(name) for name in ("zones", "cities", "roads")]

    def blocks(self, result: RunResult) -> dict[str, list[str]]:
        """Return stream -> status of its block runs."""
        found: dict[str, list[str]] = {}
        with Store.open(f"sqlite:///{self.bench.folder}/.syncblocks/store.db") as store:
            for each in store.block_runs(result.run_id or 0):
                found.setdefault(each.stream, []).append(each.status)
        return found

    def completed(self) -> set[str]:
        """Return the streams that their last run has completed."""
        quote = "`" if self.target.kind == "mysql" else '"'
        rows = self.target.query(f"select stream, completed_by from {quote}_syncblocks_ledger{quote}")
        latest = max(str(by or "") for _, by in rows)
        return {str(name) for name, by in rows if by and str(by) == latest}


@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", KINDS, indirect=True)
@pytest.mark.full
def test_children_go_before_their_parents(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    if target.kind == "duckdb":  # which updates no record that is referred to and has a foreign key itself
        del shop.streams["roads"]
    shop.seed(1, 2, 3)
    shop.synced()
    shop.seed(1, 4, v=1)
    shop.bench.record()
    result = shop.synced()
    assert {each.stream: each.records_deleted for each in result.streams} == dict.fromkeys(shop.streams, 2)
    assert [shop.ids(name) for name in shop.streams] == [[1, 4]] * len(shop.streams)
    calls = [(each["stream"], each["index"], each["is_last_block_run"]) for each in shop.bench.calls()]
    last = len(shop.streams) - 1
    assert calls == [(name, place, place == last) for place, name in enumerate(shop.streams)]
    shop.synced()


def test_a_child_that_moves_away_frees_its_parent(tmp_path: Path, target: Target) -> None:
    """Whether or not the child's own deletes are due: its load comes before the parent's deletion."""
    shop = Shop(tmp_path, target)
    del shop.streams["roads"], shop.streams["cities"]["deletes"]
    shop.seed(1, 2)
    shop.synced()
    shop.bench.seed("cities", [{"id": 1, "of_zone": 1, "v": 0}, {"id": 2, "of_zone": 1, "v": 2}])
    shop.bench.seed("zones", [{"id": 1, "v": 0}])
    shop.synced()
    assert (shop.ids("zones"), shop.ids("cities")) == ([1], [1, 2])


@pytest.mark.full
@pytest.mark.parametrize("others_run", [False, True])
def test_a_load_that_fails_keeps_the_others_from_deleting(tmp_path: Path, target: Target, others_run: bool) -> None:
    shop = Shop(tmp_path, target)
    shop.bench.document["allow_blocks_to_fail"] = others_run
    shop.seed(1, 2)
    shop.synced()
    shop.seed(1, v=1, cities=(1, 9))  # no zone has the number 9
    shop.bench.record()
    result = shop.run()
    roads = "failure" if others_run else "cancelled"
    assert statuses(result) == {"zones": "failure", "cities": "failure", "roads": roads}
    named = "foreign keys connect its table to that of stream 'cities', which has failed"
    errors = {each.stream: str(each.error) for each in result.streams}
    assert named in errors["zones"]
    assert (named in errors["roads"]) is others_run
    assert "cities" in errors["roads"]
    blocks = shop.blocks(result)
    assert blocks["zones"] == ["success", "failure"]
    assert blocks["roads"] == (["success", "failure"] if others_run else ["cancelled", "cancelled"])
    calls = {each["stream"]: each["error_block"] for each in shop.bench.calls() if each["status"] == "failure"}
    assert calls == {"cities": "export", "zones": "export", **({"roads": "export"} if others_run else {})}
    assert shop.bench.calls()[0]["stream"] == "cities", "what failed is told first"
    assert [each["is_last_block_run"] for each in shop.bench.calls()] == [False, False, True]
    # What was loaded is committed, nothing is deleted, and no row is marked.
    assert target.query("select id, v from zones order by id") == [(1, 1), (2, 0)]
    assert shop.completed() == {"zones", "cities", "roads"}, "by the first run"
    shop.seed(1, v=1)
    shop.synced()
    assert shop.all_ids() == [[1]] * 3


@pytest.mark.full
def test_a_limit_keeps_parents_from_deleting_but_not_children(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    shop.bench.document["allow_blocks_to_fail"] = True
    shop.seed(*range(200))
    shop.synced()
    shop.streams["cities"]["deletes"] = {"mode": "hard", "limit": "1%"}
    shop.streams["roads"]["deletes"] = {"mode": "hard", "limit": "90%"}
    shop.streams["zones"]["deletes"] = {"mode": "hard", "limit": "90%"}
    shop.seed(*range(20))
    result = shop.run()
    assert statuses(result) == {"roads": "success", "cities": "failure", "zones": "failure"}
    errors = {each.stream: str(each.error) for each in result.streams}
    assert "more than the 1 %" in errors["cities"]
    assert "stream 'cities', which has failed" in errors["zones"]
    assert [len(found) for found in shop.all_ids()] == [200, 200, 20]
    shop.synced(allow_deletes=["cities"])
    assert shop.all_ids() == [list(range(20))] * 3


@pytest.mark.parametrize("target", ["postgres", "mysql", "duckdb", "psycopg"], indirect=True)
@pytest.mark.full
def test_one_stream_alone_says_who_refers_to_it(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    shop.seed(1, 2)
    shop.synced()
    shop.seed(1)
    result = shop.run(streams=["zones"])
    (zones,) = result.streams
    assert zones.status == "failure"
    assert "cities" in str(zones.error)
    assert "deletes children first; or mark the records by `deletes: soft`" in str(zones.error)
    assert shop.ids("zones") == [1, 2]
    # Nobody deletes what a table that is none of the pipeline's refers to.
    shop.streams["cities"].pop("deletes")
    assert "cities" in str({each.stream: each.error for each in shop.run().streams}["zones"])
    shop.streams["cities"]["deletes"] = "hard"
    shop.synced()
    assert shop.all_ids() == [[1]] * 3


def test_a_cycle_is_refused_before_anything_runs(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    shop.seed(1)
    target.query("alter table zones add column capital bigint references cities (id) deferrable initially deferred")
    with pytest.raises(ConfigError) as caught:
        shop.run()
    for part in ("`deletes: hard`", "'cities', 'zones' form a cycle", "`deletes: soft`"):
        assert part in str(caught.value)
    assert "roads" not in str(caught.value)
    for name in ("cities", "zones"):
        shop.streams[name]["deletes"] = "soft"
    shop.synced()  # roads refer to the cycle, and are not in it


@pytest.mark.full
def test_tasks_of_their_own_form_no_group(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    shop.seed_files(1, 2)
    shop.synced()
    shop.seed_files(1)
    shop.bench.document["allow_blocks_to_fail"] = True
    run = open_run(shop.bench.write())

    def sync(name: str) -> StreamResult:
        return sync_stream(shop.bench.write(), run.id, name)

    zones = sync("zones")
    assert zones.status == "failure"
    for part in ("cities", "a run with both of them deletes children first", "`deletes: soft`"):
        assert part in str(zones.error)
    # In a task behind those of its children it works.
    assert [sync(name).status for name in ("roads", "cities")] == ["success", "success"]
    assert sync_stream(shop.bench.write(), run.id, "zones", retry=True).status == "success"
    assert finish_run(shop.bench.write(), run.id).status == "success"
    assert shop.all_ids() == [[1]] * 3


def test_marks_need_no_group(tmp_path: Path, target: Target, run_cli: RunCLI) -> None:
    shop = Shop(tmp_path, target)
    shop.seed_files(1)

    def planned() -> tuple[str, list[list[str]]]:
        shop.bench.document["streams"] = list(shop.streams.values())
        path = shop.bench.write()
        groups = json.loads(run_cli(["plan", path, "--json"], tmp_path).stdout)["groups"]
        return run_cli(["plan", path], tmp_path).stdout, groups

    text, groups = planned()
    assert groups == [["zones", "cities", "roads"]]
    assert "zones, cities, roads: connected by foreign keys: loaded in this order, deletions children first" in text
    for settings in shop.streams.values():
        settings["deletes"] = "soft"
    text, groups = planned()
    assert groups == [["zones"], ["cities"], ["roads"]]
    assert "joined" not in text


@pytest.mark.full
def test_only_what_is_due_makes_a_group(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    for settings in shop.streams.values():
        settings["deletes"] = {"mode": "hard", "every": "1d"}
    shop.seed(1, 2)
    shop.synced()
    shop.seed(1)
    assert {each.records_deleted for each in shop.synced().streams} == {None}
    assert {each.records_deleted for each in shop.synced(deletes=True).streams} == {1}
    assert shop.all_ids() == [[1]] * 3


@pytest.mark.parametrize("target", ["sqlite", "postgres", "mysql"], indirect=True)
def test_a_table_that_refers_to_itself_loses_a_whole_branch(tmp_path: Path, target: Target) -> None:
    target.query("create table zones (id bigint primary key, above bigint, foreign key (above) references zones (id))")
    shop = Shop(tmp_path, target, made=False)
    shop.streams = {"zones": shop.streams["zones"]}
    rows = [{"id": n, "above": n // 2 or None} for n in range(1, 64)]
    shop.bench.seed("zones", rows)
    shop.synced()
    kept = {1, 3, 7}
    shop.bench.seed("zones", [row for row in rows if row["id"] in kept])
    result = shop.synced()
    assert shop.ids("zones") == [1, 3, 7]
    assert result.streams[0].records_deleted == 60


@pytest.mark.full
def test_a_deletion_is_tried_again_alone(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    shop.bench.document |= {"retries": 1, "retry_delay_s": 0.01}
    shop.seed(1, 2)
    shop.synced()
    target.query(
        "create sequence tries; create function refuse() returns trigger language plpgsql as $$ begin "
        "if nextval('tries') = 1 then raise exception 'not now' using errcode = '40001'; end if; return old; end $$; "
        "create trigger refuse before delete on cities for each row execute function refuse()"
    )
    shop.seed(1, v=1)
    shop.bench.record()
    shop.synced()
    assert target.query("select last_value from tries") == [(2,)]
    assert [each["stream"] for each in shop.bench.calls()] == ["roads", "cities", "zones"]
    assert shop.all_ids() == [[1]] * 3


@pytest.mark.full
def test_the_time_in_which_a_stream_waits_for_others_does_not_count(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    del shop.streams["roads"], shop.streams["zones"]["deletes"]
    shop.bench.document["source"]["config"] |= {"delay_s": 0.2, "batch_size": 1}
    shop.streams["cities"]["timeout_s"] = 4
    shop.seed(*range(25), cities=(1,))
    result = shop.synced()
    assert {each.stream: (each.duration_s or 0) < 4 for each in result.streams} == {"cities": True, "zones": False}


def test_a_timeout_cancels_those_that_wait(tmp_path: Path, target: Target) -> None:
    shop = Shop(tmp_path, target)
    shop.bench.document["allow_blocks_to_fail"] = True
    shop.bench.document["source"]["config"] |= {"delay_s": 0.2, "batch_size": 1}
    shop.streams["roads"]["timeout_s"] = 0.3
    shop.seed(1, roads=tuple(range(9)))
    result = shop.run()
    assert statuses(result) == dict.fromkeys(shop.streams, "cancelled")
    errors = {each.stream: each.error for each in result.streams}
    assert errors == {
        "roads": "timeout_s=0.3 is over",
        "cities": "another stream was cancelled: roads",
        "zones": "another stream was cancelled: roads",
    }
    assert shop.completed() == set()


@pytest.mark.full
def test_workers_of_dask_form_no_group(tmp_path: Path, postgres_url: str, cluster: Cluster) -> None:
    executor = {"dask": cluster.address, "spool": str(tmp_path / "spool")}
    bench = SpreadBench(tmp_path, postgres_url, executor)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table zones (id bigint primary key, v text unique)")
        connection.execute("create table cities (id bigint primary key, v text references zones (v))")
    names = ("zones", "cities")
    bench.document["allow_blocks_to_fail"] = True
    bench.document["streams"] = [{"stream": n, "write_disposition": "merge", "deletes": "hard"} for n in names]

    def run(records: int) -> RunResult:
        for name in names:
            bench.seed(name, [{"id": n, "v": str(n)} for n in range(records)])
        return bench.run()

    assert run(3).status == "success"
    result = run(2)
    assert statuses(result) == {"zones": "failure", "cities": "success"}
    assert "foreign key cities_v_fkey of table cities" in str(result.streams["zones"].error)
    assert run(2).status == "success"


@pytest.mark.full
def test_streams_of_one_tap_are_read_one_by_one(tmp_path: Path, target: Target) -> None:
    """The tap offers children before their parents."""
    names = ("cities", "zones")
    for name, key in (("zones", ""), ("cities", ", foreign key (id) references zones (id)")):
        target.query(f"create table {name} (id bigint primary key, stamp text, note text{key})")

    def run(*ids: int) -> None:
        records = [record(name, id=number, note="x") for name in names for number in ids]
        tap = small(tmp_path, *map(schema, names), *records, streams=[full_table(name) for name in names])
        document = {
            "pipeline": "tapped",
            "source": {"connector": "singer", "config": tap},
            "destination": target.document,
            "streams": [{"stream": name, "write_disposition": "merge", "deletes": "hard"} for name in names],
        }
        result = run_pipeline(load_pipeline(document, folder=tmp_path))
        assert result.status == "success", [stream.error for stream in result.streams]

    run(1, 2, 3)
    run(1, 4)
    assert [target.query(f"select id from {name} order by id") for name in names] == [[(1,), (4,)]] * 2
