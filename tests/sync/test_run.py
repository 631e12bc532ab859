"""What a run promises: statuses, starts, retries, stops; over the memory pair, with real callbacks and store."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sync import Progress
from sync.errors import ConfigError

from .pipelines import Bench, statuses
from .targets import open_target


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_streams_are_copied_in_order_and_each_gets_its_callback(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.seed(name, 3)
    bench.record()
    result = bench.run()
    assert result.exit_code == 0
    assert statuses(result) == {"a": "success", "b": "success", "c": "success"}
    assert [(c["stream"], c["index"], c["is_last_block_run"]) for c in bench.calls()] == [
        ("a", 0, False),
        ("b", 1, False),
        ("c", 2, True),
    ]
    assert bench.rows("b") == [{"id": n, "v": f"b-{n}"} for n in range(3)]
    assert bench.calls()[-1]["run_status"] == "success"


def test_a_second_run_replaces_and_doubles_nothing(bench: Bench) -> None:
    bench.seed("a", 3)
    bench.run()
    bench.seed("a", 2)
    bench.run()
    assert len(bench.rows("a")) == 2


def test_incremental_append_goes_on_after_the_bookmark_with_ties(bench: Bench) -> None:
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}
    bench.document["streams"] = [{**entry, "write_disposition": "append"}]
    bench.seed("a", [{"id": 1, "t": 1}, {"id": 2, "t": 2}])
    bench.run()
    bench.seed("a", [{"id": 1, "t": 1}, {"id": 2, "t": 2}, {"id": 3, "t": 2}, {"id": 4, "t": 3}])
    result = bench.run()
    assert [row["id"] for row in bench.rows("a")] == [1, 2, 3, 4]
    assert result.streams[0].records == 2
    assert result.streams[0].bookmark == {"t": 3}


@pytest.mark.parametrize("allow", [False, True])
def test_a_failed_stream_stops_the_others_unless_allowed(bench: Bench, allow: bool) -> None:
    for name in ("a", "b", "c"):
        bench.seed(name, 3)
    bench.document["source"]["config"]["fail_at"] = {"b": 1}
    bench.document["allow_blocks_to_fail"] = allow
    bench.record(on=["stream", "pipeline"])
    result = bench.run()
    assert result.exit_code == 1
    calls = bench.calls()
    if allow:
        assert statuses(result) == {"a": "success", "b": "failure", "c": "success"}
        assert [c["is_last_block_run"] for c in calls[:-1]] == [False, False, True]
    else:
        assert statuses(result) == {"a": "success", "b": "failure"}
        assert [c["is_last_block_run"] for c in calls[:-1]] == [False, True]
        assert calls[-1]["never_started"] == ["c"]
    failed = next(c for c in calls if c["status"] == "failure" and c["stream"] == "b")
    assert failed["error_block"] == "load"
    assert (calls[-1]["parent_block_uuid"], calls[-1]["status"]) == ("pipeline", "failure")


def test_block_statuses_go_by_the_data_where_the_source_fails(bench: Bench) -> None:
    bench.seed("a", 5)
    bench.document["source"]["config"] |= {"fail_at": {"a": 2}, "batch_size": 2}
    bench.record(on=["source", "destination"])
    bench.run()
    assert [(c["parent_block_uuid"], c["status"]) for c in bench.calls()] == [
        ("load", "failure"),
        ("export", "cancelled"),
    ]


@pytest.mark.parametrize(("batches", "loader"), [(1, "success"), (3, "cancelled")])
def test_block_statuses_go_by_the_data_where_a_transformer_fails(bench: Bench, batches: int, loader: str) -> None:
    """The loader is a success only if it had handed over its last batch before."""
    bench.seed("a", 6)
    bench.document["source"]["config"]["batch_size"] = 6 // batches
    (bench.folder / "broken.py").write_text("@transformer\ndef broken(df):\n    raise ValueError('no')\n")
    bench.document["transformers"] = [{"file": "broken.py"}]
    bench.record(on=["source", "transformers", "destination", "stream"])
    bench.run()
    assert [(c["parent_block_uuid"], c["status"], c["error_block"]) for c in bench.calls()] == [
        ("load", loader, None),
        ("broken", "failure", "broken"),
        ("export", "cancelled", None),
        ("export", "failure", "broken"),
    ]


def test_block_statuses_go_by_the_data_where_the_destination_fails(bench: Bench) -> None:
    bench.seed("a", 2)
    bench.document["destination"]["config"]["fail_on"] = {"a": 1}
    bench.record(on=["source", "destination"])
    bench.run()
    assert [(c["parent_block_uuid"], c["status"]) for c in bench.calls()] == [
        ("load", "success"),
        ("export", "failure"),
    ]


def test_a_retriable_failure_is_repeated_and_fires_nothing(bench: Bench) -> None:
    bench.seed("a", 4)
    bench.document["source"]["config"] |= {
        "fail_at": {"a": 2},
        "fail_kind": "retriable",
        "fail_times": 2,
        "batch_size": 1,
    }
    bench.document |= {"retries": 2, "retry_delay_s": 0.01}
    bench.record()
    result = bench.run()
    assert statuses(result) == {"a": "success"}
    assert [c["status"] for c in bench.calls()] == ["success"]
    assert len(bench.rows("a")) == 4


def test_a_fatal_failure_is_not_repeated(bench: Bench) -> None:
    bench.seed("a", 4)
    bench.document["source"]["config"] |= {"fail_at": {"a": 1}, "fail_kind": "fatal", "fail_times": 1}
    bench.document |= {"retries": 5, "retry_delay_s": 0.01}
    assert statuses(bench.run()) == {"a": "failure"}


def test_a_timeout_cancels_the_stream(bench: Bench) -> None:
    bench.seed("slow", 4)
    bench.document["source"]["config"] |= {"delay_s": 30, "batch_size": 1}
    bench.document["timeout_s"] = 0.3
    bench.record()
    started = time.monotonic()
    result = bench.run()
    assert time.monotonic() - started < 8
    assert result.exit_code == 1
    assert [(c["status"], c["is_last_block_run"]) for c in bench.calls()] == [("cancelled", True)]


def test_streams_in_flight_are_cancelled_when_another_one_fails(bench: Bench) -> None:
    bench.seed("bad", 4)
    bench.seed("slow", 4)
    bench.document["concurrency"] = 2
    bench.document["source"]["config"] |= {"delay_s": 0.3, "batch_size": 1, "fail_at": {"bad": 1}}
    bench.document["streams"] = [{"stream": "bad"}, {"stream": "slow"}]
    bench.record()
    result = bench.run()
    assert statuses(result) == {"bad": "failure", "slow": "cancelled"}
    assert [(c["stream"], c["status"], c["is_last_block_run"]) for c in bench.calls()] == [
        ("bad", "failure", False),
        ("slow", "cancelled", True),
    ]


def test_a_group_is_read_at_once_and_ends_as_one_block_run_per_stream(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.seed(name, 5)
    bench.document["source"]["config"] |= {"groups": [["a", "c"]], "batch_size": 2}
    bench.record()
    result = bench.run()
    assert statuses(result) == {"a": "success", "b": "success", "c": "success"}
    assert sorted(c["index"] for c in bench.calls()) == [0, 1, 2]
    assert sum(c["is_last_block_run"] for c in bench.calls()) == 1
    assert len(bench.rows("c")) == 5


def test_runs_cancel_from_elsewhere_cancels_the_run(bench: Bench) -> None:
    from sync.store import Store

    bench.seed("slow", 4)
    bench.document["source"]["config"] |= {"delay_s": 30, "batch_size": 1}
    bench.record(on=["stream", "pipeline"])

    class CancelAtStart(Progress):
        def stream_started(self, stream: str, destination_table: str, bookmark: Any) -> None:
            def cancel() -> None:
                with Store.open(f"sqlite:///{bench.folder}/.syncblocks/store.db") as store:
                    run = store.active_run("bench")
                    assert run is not None
                    store.request_cancel(run.id)

            threading.Thread(target=cancel).start()

    result = bench.run(CancelAtStart())
    assert (result.status, result.exit_code) == ("cancelled", 1)
    assert [c["status"] for c in bench.calls()] == ["cancelled", "cancelled"]


def test_retry_starts_a_new_attempt_over_what_did_not_succeed(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.seed(name, 3)
    bench.document["source"]["config"] |= {"fail_at": {"b": 1}}
    bench.record()
    first = bench.run()
    del bench.document["source"]["config"]["fail_at"]
    second = bench.run(retry=True)
    assert second.run_id == first.run_id
    assert statuses(second) == {"b": "success", "c": "success"}
    assert [(c["stream"], c["attempt"], c["index"], c["is_last_block_run"]) for c in bench.calls()[-2:]] == [
        ("b", 2, 0, False),
        ("c", 2, 1, True),
    ]


def test_a_raising_callback_harms_nothing_and_is_shown_by_the_exit_code(bench: Bench) -> None:
    bench.seed("a", 3)
    (bench.folder / "bad.py").write_text("@callback\ndef bad(**kwargs):\n    raise RuntimeError('x')\n")
    bench.document["callbacks"] = [{"file": "bad.py", "attempts": 1}]
    bench.record()
    result = bench.run()
    assert statuses(result) == {"a": "success"}
    assert result.exit_code == 3
    assert result.callbacks["dead"] == 1
    assert len(bench.calls()) == 1


def test_a_pattern_that_matches_nothing_is_a_mistake_before_the_first_run_and_a_failure_after(bench: Bench) -> None:
    bench.seed("a", 1)
    bench.document["streams"] = [{"stream": "a"}]
    bench.record(on=["pipeline"])
    del bench.source.tables["a"]
    with pytest.raises(ConfigError, match="matches no stream"):
        bench.run()
    assert not (bench.folder / ".syncblocks").exists()
    bench.seed("a", 1)
    bench.run()
    del bench.source.tables["a"]
    result = bench.run()
    assert (result.status, result.exit_code) == ("failure", 1)
    assert [(c["status"], c["parent_block_uuid"]) for c in bench.calls()] == [
        ("success", "pipeline"),
        ("failure", "pipeline"),
    ]


@pytest.mark.parametrize("connector", ["csv", "jsonl"])
def test_a_file_that_is_empty_now_is_a_mistake_before_the_first_run_and_a_failure_after(
    bench: Bench, connector: str
) -> None:
    file = bench.folder / f"a.{connector}"
    bench.document["source"] = {"block": "load", "connector": connector, "config": {"path": file.name}}
    bench.document["streams"] = [{"stream": "a", "key_properties": ["id"], "columns": {"exclude": ["secret*"]}}]
    bench.record(on=["pipeline"])
    file.write_text("")
    with pytest.raises(ConfigError, match="is it empty"):
        bench.run()
    file.write_text({"csv": "id,secret\n1,x\n", "jsonl": '{"id": 1, "secret": "x"}\n'}[connector])
    assert bench.run().exit_code == 0
    file.write_text("")
    result = bench.run()
    assert (result.status, result.exit_code) == ("failure", 1)
    assert "is it empty" in (result.error or "")
    assert bench.rows("a") == [{"id": 1}]
    assert [call["status"] for call in bench.calls()] == ["success", "failure"]


def test_a_name_that_the_ledger_cannot_hold_is_refused_before_anything_is_made(bench: Bench, mariadb_url: str) -> None:
    from tests.connectors.mysql_databases import tables

    bench.document["destination"] = {"connector": "mysql", "config": {"url": mariadb_url}}
    bench.document["streams"] = [{"stream": "a" * 300, "destination_table": "a"}]
    bench.seed("a" * 300, 1)
    with pytest.raises(ConfigError, match="has 300 characters, and the ledger of MySQL holds names of up to 255"):
        bench.run()
    assert tables(mariadb_url) == set()
    bench.document["streams"] = [{"stream": "a" * 255, "destination_table": "a"}]
    bench.seed("a" * 255, 1)
    assert bench.run().exit_code == 0


def test_a_strangers_table_is_replaced_only_if_the_stream_says_so(bench: Bench) -> None:
    import pyarrow as pa

    bench.seed("a", 2)
    bench.destination.tables["a"] = pa.table({"mine": [1]})
    with pytest.raises(ConfigError, match="write_disposition: replace"):
        bench.run()
    assert bench.destination.tables["a"].column_names == ["mine"]
    bench.document["streams"] = [{"stream": "a", "write_disposition": "replace"}]
    assert bench.run().exit_code == 0
    assert len(bench.rows("a")) == 2


def test_full_refresh_replaces_the_table_and_forgets_the_bookmark(bench: Bench) -> None:
    bench.document["streams"] = [{"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}]
    bench.seed("a", 5)
    bench.run()
    bench.seed("a", [{"id": 1, "v": "new"}])
    result = bench.run(full_refresh=True)
    assert bench.rows("a") == [{"id": 1, "v": "new"}]
    assert result.streams[0].bookmark == {"id": 1}


def test_the_time_of_a_stream_ends_with_it_and_not_with_the_run(bench: Bench) -> None:
    class Clock(Progress):
        begin = time.monotonic()
        ends: dict[str, float] = {}

        def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
            self.ends[stream] = time.monotonic()
            while stream == "b" and time.monotonic() - self.ends["a"] <= self.ends["a"] - self.begin:
                pass

    for name in ("a", "b"):
        bench.seed(name, 1)
    clock = Clock()
    first = bench.run(progress=clock).streams[0]
    assert first.stream == "a"
    assert first.duration_s is not None
    assert first.duration_s <= clock.ends["a"] - clock.begin


def test_a_pipeline_that_was_renamed_appends_nothing_twice(bench: Bench) -> None:
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    bench.document["streams"] = [{**entry, "write_disposition": "append"}]
    bench.seed("a", 2)
    bench.run()
    bench.document["pipeline"] = "renamed"
    with pytest.raises(ConfigError, match="pipeline: bench") as caught:
        bench.run()
    assert "double" in str(caught.value)
    assert len(bench.rows("a")) == 2
    bench.document["streams"] = [{**entry, "write_disposition": "merge"}]
    assert bench.run().status == "success"
    assert len(bench.rows("a")) == 2


def test_pipelines_of_several_sources_append_to_one_table(bench: Bench) -> None:
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    bench.document["streams"] = [{**entry, "write_disposition": "append"}]
    bench.seed("a", 2)
    bench.run()
    bench.document["pipeline"] = "other"
    bench.source_name = bench.document["source"]["config"]["database"] = f"other-{bench.source_name}"
    bench.seed("a", 2)
    assert bench.run().status == "success"
    assert len(bench.rows("a")) == 4


@pytest.mark.parametrize("kind", ["memory", "sqlite", "duckdb", "postgres", "mysql"])
def test_a_full_refresh_of_an_append_makes_no_key_that_the_next_append_stumbles_over(tmp_path: Path, kind: str) -> None:
    bench = Bench(tmp_path)
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["n"]}
    bench.document["streams"] = [{**entry, "write_disposition": "append"}]
    with open_target(kind, tmp_path) as target:
        if kind != "memory":
            bench.document["destination"] = target.document
        records = [{"id": 1, "n": 1}, {"id": 1, "n": 2}]
        bench.seed("a", records)
        assert statuses(bench.run(full_refresh=True)) == {"a": "success"}
        bench.seed("a", [*records, {"id": 1, "n": 3}])
        assert statuses(bench.run()) == {"a": "success"}
        rows = bench.rows("a") if kind == "memory" else target.query("select id, n from a")
        assert len(rows) == 3


def test_a_dropped_table_starts_from_scratch_whatever_the_ledger_says(bench: Bench) -> None:
    bench.document["streams"] = [{"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}]
    bench.seed("a", 5)
    bench.run()
    del bench.destination.tables["a"]
    bench.run()
    assert len(bench.rows("a")) == 5


def test_a_lost_ledger_row_makes_append_refuse_and_merge_start_over(bench: Bench) -> None:
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    for disposition in ("append", "merge"):
        bench.document["streams"] = [{**entry, "write_disposition": disposition, "destination_table": disposition}]
        bench.seed("a", 3)
        bench.run()
        bench.destination.ledger.clear()
        if disposition == "append":
            with pytest.raises(ConfigError, match="state set"):
                bench.run()
        else:
            bench.run()
        assert len(bench.rows(disposition)) == 3


def test_the_ledger_row_of_another_source_is_refused(bench: Bench) -> None:
    bench.seed("a", 3)
    bench.run()
    other = Bench(bench.folder)
    other.seed("a", 1)
    bench.document["source"]["config"]["database"] = other.source_name
    with pytest.raises(ConfigError, match="another source"):
        bench.run()


def test_two_streams_that_replace_one_table_are_refused(bench: Bench) -> None:
    bench.seed("a", 1)
    bench.seed("b", 1)
    bench.document["streams"] = [{"stream": "*", "destination_table": "same"}]
    with pytest.raises(ConfigError, match="same"):
        bench.run()


def test_a_table_that_is_its_own_destination_is_refused(bench: Bench) -> None:
    bench.seed("a", 1)
    bench.document["destination"]["config"]["database"] = bench.source_name
    with pytest.raises(ConfigError, match="its own destination"):
        bench.run()


def test_transformers_add_drop_and_retype_columns_and_see_each_batch(bench: Bench) -> None:
    bench.seed("a", 5)
    bench.document["source"]["config"]["batch_size"] = 2
    (bench.folder / "shape.py").write_text(
        "@transformer\n"
        "def shape(df, stream, ds, **kwargs):\n"
        "    df['length'] = df['v'].str.len()\n"
        "    df['id2'] = df['user_id'].astype(str)\n"
        "    return df.drop(columns=['v'])[df['user_id'] != 3]\n"
    )
    bench.document["transformers"] = [{"file": "shape.py", "rename": {"id": "user_id"}}]
    bench.document["streams"] = [{"stream": "a", "write_disposition": "merge"}]
    bench.run()
    bench.run()
    table = bench.destination.tables["a"]
    assert table.column_names == ["user_id", "length", "id2"]
    assert sorted(table["user_id"].to_pylist()) == [0, 1, 2, 4]
    assert table.num_rows == 4, "the renamed key did not follow into the merge"


def test_losing_a_key_column_is_an_error_naming_it(bench: Bench) -> None:
    bench.seed("a", 2)
    (bench.folder / "lose.py").write_text("@transformer\ndef lose(df):\n    return df.drop(columns=['id'])\n")
    bench.document["transformers"] = [{"file": "lose.py"}]
    result = bench.run()
    assert result.exit_code == 1
    assert "'id'" in str(result.streams[0].error)


def test_an_empty_stream_makes_the_table_that_its_transformer_describes(bench: Bench) -> None:
    bench.seed("a", 0)
    (bench.folder / "add.py").write_text(
        "@transformer\ndef add(df):\n    df['n'] = df['id'] + 1\n    print('called')\n    return df\n"
    )
    bench.document["transformers"] = [{"file": "add.py"}]
    bench.record(on=["transformers", "stream"])
    assert bench.run().exit_code == 0
    assert bench.destination.tables["a"].column_names == ["id", "v", "n"]
    assert [c["status"] for c in bench.calls()] == ["success", "success"]


def test_a_callback_receives_the_blocks_output_as_a_frame(bench: Bench) -> None:
    bench.seed("a", 5)
    bench.document["source"]["config"]["batch_size"] = 2
    (bench.folder / "data.py").write_text(
        "from pathlib import Path\n"
        "@callback\n"
        "def keep(df, parent_block_uuid, **kwargs):\n"
        "    Path(__file__).with_name(parent_block_uuid + '.txt').write_text(repr(df['id'].tolist()))\n"
    )
    bench.document["callbacks"] = [{"file": "data.py", "on": ["source", "stream"]}]
    assert bench.run().exit_code == 0
    assert (bench.folder / "load.txt").read_text() == "[0, 1, 2, 3, 4]"
    assert (bench.folder / "export.txt").read_text() == "[0, 1, 2, 3, 4]"
    assert list((bench.folder / ".syncblocks" / "spool").iterdir()) == []


def test_an_unreachable_source_fails_the_run_and_tells_the_pipeline_callback(bench: Bench) -> None:
    bench.document["source"] = {"connector": "postgres", "config": {"url": "postgresql://nobody@127.0.0.1:1/none"}}
    bench.record(on=["pipeline"])
    result = bench.run()
    assert (result.status, result.exit_code) == ("failure", 1)
    assert [(c["status"], c["parent_block_uuid"]) for c in bench.calls()] == [("failure", "pipeline")]


def test_a_missing_source_file_is_a_mistake_at_first_and_a_failure_once_it_has_worked(bench: Bench) -> None:
    import sqlite3

    file = bench.folder / "shop.db"
    bench.document["source"] = {"connector": "sqlite", "config": {"path": "shop.db"}}
    bench.record(on=["pipeline"])
    with pytest.raises(ConfigError, match=r"shop\.db"):
        bench.run()
    assert not file.exists()
    assert not (bench.folder / ".syncblocks").exists()
    with sqlite3.connect(file) as connection:
        connection.execute("create table a (id integer primary key)")
    connection.close()
    assert bench.run().exit_code == 0
    file.unlink()
    assert bench.run().exit_code == 1
    assert [c["status"] for c in bench.calls()] == ["success", "failure"]
