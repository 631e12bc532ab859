"""Runs that fail: what stops, what is repeated or cancelled, and what the blocks are said to be."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import closing
from typing import Any

import pytest

from syncblocks import Progress, load_pipeline
from syncblocks.connectors.memory import database
from syncblocks.sync.cli.run import next_steps
from syncblocks.sync.errors import ConfigError, NothingToRetry
from syncblocks.sync.run.redelivery import redeliver
from syncblocks.sync.store import Store
from tests.connectors.postgres.postgres_proxy import Proxy
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench


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


def test_a_failed_function_is_told_with_type_place_and_the_columns_at_hand(bench: Bench) -> None:
    bench.seed("a", [{"id": 1, "total": 2}])
    text = "import os\n@transformer\ndef clean(df):\n    return double(df)\n\ndef double(df):\n    df['new'] = 1\n"
    path = bench.folder / "clean.py"
    path.write_text(text + "    return df[df['totl'] > 0]\n")
    bench.document["transformers"] = [{"file": "clean.py"}]
    (bench.folder / "told.py").write_text(
        "@callback('failure')\ndef told(__error):\n"
        "    open(__file__ + '.log', 'w').write(f'{__error.type}\\n{__error}\\n{__error.traceback}')\n"
    )
    bench.document["callbacks"] = [{"file": "told.py"}]
    (stream,) = bench.run().streams
    expected = (
        f"block 'clean': KeyError: 'totl', at {path}:8: return df[df['totl'] > 0]; did you mean 'total'? "
        "The columns are: id, total, new"
    )
    assert stream.error == expected
    kind, message, *traceback = (bench.folder / "told.py.log").read_text().splitlines()
    assert (kind, message) == ("KeyError", "'totl'")
    assert traceback[-1] == "KeyError: 'totl'"


@pytest.mark.parametrize("raised", ["SystemExit(0)", "BaseException", "ValueError('no')"])
def test_whatever_a_function_raises_fails_its_stream_alone(bench: Bench, raised: str) -> None:
    bench.seed("a", 1)
    bench.seed("b", 1)
    (bench.folder / "clean.py").write_text(f"@transformer\ndef clean(df):\n    raise {raised}\n")
    bench.document |= {"transformers": [{"file": "clean.py", "streams": ["a"]}], "allow_blocks_to_fail": True}
    assert statuses(bench.run()) == {"a": "failure", "b": "success"}


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


def test_retries_are_advised_only_where_one_would_happen(bench: Bench) -> None:
    """The advice stood below every failure, also of a transformer's OSError, which nothing repeats."""
    bench.seed("a", 4)
    for kind, is_advised in (("retriable", True), ("fatal", False)):
        bench.document["source"]["config"] |= {"fail_at": {"a": 1}, "fail_kind": kind, "fail_times": 100}
        result = bench.run()
        assert (statuses(result), result.streams["a"].is_retriable) == ({"a": "failure"}, is_advised)
        assert ("`retries:`" in " ".join(next_steps(result, ""))) is is_advised
    del bench.document["source"]["config"]["fail_at"]
    (bench.folder / "broken.py").write_text("@transformer\ndef broken(df):\n    raise OSError('gone')\n")
    bench.document["transformers"] = [{"file": "broken.py"}]
    assert not bench.run().streams["a"].is_retriable


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
    assert time.monotonic() - started < 25
    assert result.exit_code == 1
    assert [stream.error for stream in result.streams] == ["timeout_s=0.3 is over"]
    assert [(c["status"], c["is_last_block_run"]) for c in bench.calls()] == [("cancelled", True)]


def test_a_run_cancels_itself_when_its_time_is_over(bench: Bench) -> None:
    """`allow_blocks_to_fail` is about streams: the time is that of all of them together."""
    for name in ("a", "b"):
        bench.seed(name, 4)
    bench.document["source"]["config"] |= {"delay_s": 30, "batch_size": 1}
    bench.document |= {"run_timeout_s": 0.3, "allow_blocks_to_fail": True, "concurrency": 1}
    bench.record(on=["stream", "pipeline"])
    result = bench.run()
    assert (result.status, result.exit_code, result.never_started) == ("cancelled", 1, ("b",))
    assert [(stream.status, stream.error) for stream in result.streams] == [("cancelled", "run_timeout_s=0.3 is over")]
    assert [(call["stream"], call["status"], call["never_started"]) for call in bench.calls()] == [
        ("a", "cancelled", None),
        (None, "cancelled", ["b"]),
    ]


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("allow", [False, True])
def test_a_timeout_stops_the_run_unless_allowed(bench: Bench, allow: bool, concurrency: int) -> None:
    for name in ("a", "b", "c", "d"):
        bench.seed(name, 4)
    bench.document |= {"allow_blocks_to_fail": allow, "concurrency": concurrency}
    bench.document["source"]["config"] |= {"delay_s": 30, "batch_size": 1}
    bench.document["streams"] = [{"stream": name, "timeout_s": 0.3} for name in ("a", "b", "c", "d")]
    bench.record(on=["stream", "pipeline"])
    result = bench.run()
    calls = bench.calls()
    started = ["a", "b", "c", "d"] if allow else ["a", "b"][:concurrency]
    assert statuses(result) == dict.fromkeys(started, "cancelled")
    assert sorted(call["stream"] for call in calls[:-1]) == started
    assert [call["is_last_block_run"] for call in calls[:-1]] == [False] * (len(started) - 1) + [True]
    assert calls[-1]["never_started"] == [name for name in ("a", "b", "c", "d") if name not in started]
    assert (result.status, calls[-1]["status"]) == ("cancelled", "cancelled")


def test_a_stream_that_hangs_past_its_timeout_holds_up_neither_the_others_nor_the_end(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.seed(name, 2)
    pipe = bench.folder / "go"
    os.mkfifo(pipe)
    (bench.folder / "hang.py").write_text(
        f"from pathlib import Path\n@transformer\ndef hang(df):\n    Path({str(pipe)!r}).read_text()\n    return df\n"
    )
    bench.document |= {"allow_blocks_to_fail": True, "concurrency": 1}
    bench.document["transformers"] = [{"file": "hang.py", "streams": ["a"]}]
    bench.document["streams"] = [{"stream": "a", "timeout_s": 0.1}, {"stream": "b"}, {"stream": "c"}]
    bench.record(on=["stream", "pipeline"])
    let_go = threading.Timer(15, pipe.write_text, [""])
    let_go.start()
    result = bench.run()
    is_still_hanging = let_go.is_alive()
    let_go.cancel()
    let_go.join()
    if is_still_hanging:
        pipe.write_text("")
    assert is_still_hanging
    assert statuses(result) == {"a": "cancelled", "b": "success", "c": "success"}
    told = [(call["stream"], call["index"], call["is_last_block_run"]) for call in bench.calls()]
    assert told == [("a", 0, False), ("b", 1, False), ("c", 2, True), (None, None, None)]
    assert [row["id"] for row in bench.rows("c")] == [0, 1]


def test_streams_in_flight_are_cancelled_when_another_one_fails(bench: Bench) -> None:
    bench.seed("bad", 4)
    bench.seed("slow", 4)
    bench.document["concurrency"] = 2
    bench.document["source"]["config"] |= {"delay_s": 0.3, "batch_size": 1, "fail_at": {"bad": 1}}
    bench.document["streams"] = [{"stream": "bad"}, {"stream": "slow"}]
    bench.record()
    result = bench.run()
    assert statuses(result) == {"bad": "failure", "slow": "cancelled"}
    assert result.streams[1].error == "another stream failed: bad"
    assert [(c["stream"], c["status"], c["is_last_block_run"]) for c in bench.calls()] == [
        ("bad", "failure", False),
        ("slow", "cancelled", True),
    ]


def test_runs_cancel_from_elsewhere_cancels_the_run(bench: Bench) -> None:
    from syncblocks.sync.store import Store

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
    assert [stream.error for stream in result.streams] == ["the run was cancelled"]
    assert [c["status"] for c in bench.calls()] == ["cancelled", "cancelled"]


def test_a_first_append_that_was_cut_off_behind_its_table_is_tried_again(
    bench: Bench, mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL keeps the table that a try has made, and nothing else of it: no bookmark was ever there."""
    from syncblocks.connectors.errors import RetriableError
    from syncblocks.connectors.mysql.write_statements import MySQLWrites
    from tests.connectors.mysql.mysql_databases import query

    insert_from, cuts = MySQLWrites.insert_from, [1]

    def cut_off_once(self: Any, *arguments: Any) -> str:
        if cuts.pop() if cuts else 0:
            raise RetriableError("lost", connector="mysql")
        return insert_from(self, *arguments)

    monkeypatch.setattr(MySQLWrites, "insert_from", cut_off_once)
    bench.document |= {"retries": 1, "retry_delay_s": 0.01}
    bench.document["destination"] = {"connector": "mysql", "config": {"url": mariadb_url}}
    entry = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    bench.document["streams"] = [{**entry, "write_disposition": "append"}]
    bench.seed("a", 3)
    assert bench.run().exit_code == 0
    assert query(mariadb_url, "select id from a order by id")[1] == [(0,), (1,), (2,)]


def test_a_stream_that_the_ledger_calls_done_has_the_figures_of_the_ledger(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last commit is made and its answer lost: as where MySQL's rename waits too long for another one's lock."""
    from syncblocks.connectors.errors import RetriableError
    from syncblocks.connectors.memory.destination import MemoryDestination

    load = MemoryDestination.load

    def load_without_answer(self: Any, *arguments: Any) -> Any:
        for commit in load(self, *arguments):
            if commit.checkpoint.is_final:
                raise RetriableError("the answer is lost", connector="memory")
            yield commit

    monkeypatch.setattr(MemoryDestination, "load", load_without_answer)
    bench.seed("a", 3)
    bench.document["streams"] = [
        {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "key_properties": ["id"]}
    ]
    bench.record()
    result = bench.run()
    assert (result.status, [stream.records for stream in result.streams]) == ("success", [3])
    assert [stream.bookmark for stream in result.streams] == [{"id": 2}]
    assert [call["rows"] for call in bench.calls()] == [3]


def test_an_error_comes_before_the_ledger_that_cannot_be_read_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk of the destination lets its last commit fail, and the ledger cannot be written either."""
    from syncblocks.connectors.errors import FatalConnectorError
    from syncblocks.connectors.memory.destination import MemoryDestination
    from syncblocks.sync.run.recovery import fencing

    def load_without_room(self: Any, *arguments: Any) -> Any:
        for event in arguments[1]:
            if getattr(event, "is_final", False):
                monkeypatch.setattr(MemoryDestination, "take_over", refuse)
                raise FatalConnectorError("disk full: the volume has 0 bytes", connector="memory")
        yield

    def refuse(*_: Any, **__: Any) -> Any:
        raise FatalConnectorError("no answer")

    monkeypatch.setattr(MemoryDestination, "load", load_without_room)
    monkeypatch.setattr(fencing, "ASK_AGAIN_S", ())
    bench.seed("a", 3)
    error = str(bench.run().streams[0].error)
    assert error.index("disk full") < error.index("ledger")


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


def test_a_run_that_failed_before_its_first_stream_is_retried_as_a_whole(bench: Bench) -> None:
    bench.document["streams"] = [{"stream": "a"}, {"stream": "b"}]
    for name in ("a", "b"):
        bench.seed(name, 3)
    bench.run()
    del database(bench.source_name).tables["b"]
    failed = bench.run()
    assert (failed.status, failed.streams) == ("failure", ())
    bench.seed("b", 4)
    retried = bench.run(retry=True)
    assert (retried.run_id, statuses(retried)) == (failed.run_id, {"a": "success", "b": "success"})
    with pytest.raises(NothingToRetry):
        bench.run(retry=True)


def test_a_variable_that_the_file_has_got_since_reaches_functions_of_a_retry_and_due_events(bench: Bench) -> None:
    """The run keeps the variables that it began with; what it does not know is the file's."""
    bench.seed("a", 1)
    bench.seed("b", 1)
    (bench.folder / "add.py").write_text("@transformer\ndef add(df, region):\n    return df.assign(v=region)\n")
    tell = "@callback('success')\n@callback('failure')\ndef tell(stream, region, pipeline_run{}):\n    {}\n"
    (bench.folder / "tell.py").write_text(tell.format("", "raise RuntimeError('not yet')"))
    bench.document |= {"variables": {"region": "eu"}, "transformers": [{"file": "add.py"}]}
    bench.document["callbacks"] = [{"file": "tell.py", "attempts": 1}]
    bench.document["source"]["config"] |= {"fail_at": {"b": 1}}
    assert bench.run().callbacks["dead"] == 2

    del bench.document["source"]["config"]["fail_at"]
    bench.document["variables"] = {"region": "us", "tier": "gold"}
    (bench.folder / "add.py").write_text(
        "@transformer\ndef add(df, region, tier):\n    return df.assign(v=region + tier)\n"
    )
    write = "from pathlib import Path; line = f'{stream} {region} {tier} {sorted(pipeline_run.variables)}'"
    write += "; open(Path(__file__).with_suffix('.log'), 'a').write(line + chr(10))"
    (bench.folder / "tell.py").write_text(tell.format(", tier", write))
    assert bench.run(retry=True).status == "success"
    assert bench.rows("b") == [{"id": 0, "v": "eugold"}]
    pipeline = load_pipeline(bench.write())
    with Store.open(pipeline.store_url) as store:
        redeliver(pipeline, store)
    told = "eu gold ['region', 'tier']"
    assert (bench.folder / "tell.log").read_text().splitlines() == [f"{name} {told}" for name in ("b", "a", "b")]


def test_data_that_a_function_takes_since_it_was_changed_is_none_and_said_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.seed("a", 1)
    marks = "@callback('success')\n@callback('failure')\n"
    (bench.folder / "tell.py").write_text(marks + "def tell(stream):\n    raise RuntimeError('not yet')\n")
    bench.document["callbacks"] = [{"file": "tell.py", "attempts": 1}]
    bench.run()
    (bench.folder / "tell.py").write_text(marks + "def tell(df, stream):\n    assert df is None\n")
    pipeline = load_pipeline(bench.write())
    with Store.open(pipeline.store_url) as store:
        assert redeliver(pipeline, store).counts["done"] == 1
    assert "function 'tell' for export:a: the parent's data was not kept when the event was recorded" in caplog.text


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
def test_a_file_that_is_empty_now_is_a_mistake_before_the_first_run_and_a_failure_or_no_records_after(
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
    if connector == "csv":  # it has lost its header, too
        assert (result.status, result.exit_code) == ("failure", 1)
        assert "is it empty" in (result.error or "")
        assert bench.rows("a") == [{"id": 1}]
    else:
        assert result.exit_code == 0
        assert bench.rows("a") == []
    assert [call["status"] for call in bench.calls()] == ["success", result.status]


@pytest.mark.parametrize(
    ("unreachable", "block"), [(["source"], "load"), (["destination"], "export"), (["source", "destination"], "load")]
)
def test_an_unreachable_side_fails_the_run_and_tells_the_pipeline_callback(
    bench: Bench, unreachable: list[str], block: str
) -> None:
    bench.seed("a", 1)
    for role in unreachable:
        bench.document[role] |= {"connector": "postgres", "config": {"url": "postgresql://nobody@127.0.0.1:1/none"}}
    bench.record(on=["pipeline"])
    result = bench.run()
    assert (result.status, result.exit_code) == ("failure", 1)
    assert [(c["status"], c["parent_block_uuid"], c["error_block"]) for c in bench.calls()] == [
        ("failure", "pipeline", block)
    ]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_server_that_does_not_answer_yet_is_asked_again_as_often_as_retries_say(
    bench: Bench, postgres_url: str, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    late = Proxy(postgres_url, listener)
    told: list[str] = []

    class Starting(Progress):
        def message(self, text: str, *, level: str = "info") -> None:
            told.append(text)
            if "planned again" in text and len(told) == 2:
                listener.listen()
                threading.Thread(target=late.serve, daemon=True).start()

    monkeypatch.setattr("syncblocks.sync.run.runner.ASK_AGAIN_S", ())
    bench.seed("a", 1)
    bench.document["destination"] = {"connector": "postgres", "config": {"url": late.url}}
    bench.document |= {"retries": retries, "retry_delay_s": 0.01}
    result = bench.run(Starting())
    late.close()
    assert statuses(result) == ({"a": "success"} if retries else {})
    assert len([text for text in told if "the run is planned again in 0.01 s" in text]) == retries


def test_an_error_that_no_block_has_raised_has_none(bench: Bench) -> None:
    bench.document["streams"] = [{"stream": "a"}]
    bench.seed("a", 1)
    bench.seed("b", 1)
    bench.record(on=["pipeline"])
    assert bench.run().exit_code == 0
    del bench.source.tables["a"]
    assert bench.run().exit_code == 1
    assert [call["error_block"] for call in bench.calls()] == [None, None]


def test_a_missing_source_file_is_a_mistake_at_first_and_a_failure_once_it_has_worked(bench: Bench) -> None:
    import sqlite3

    file = bench.folder / "shop.db"
    bench.document["source"] = {"connector": "sqlite", "config": {"path": "shop.db"}}
    bench.record(on=["pipeline"])
    with pytest.raises(ConfigError, match=r"shop\.db"):
        bench.run()
    assert not file.exists()
    assert not (bench.folder / ".syncblocks").exists()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("create table a (id integer primary key)")
    assert bench.run().exit_code == 0
    file.unlink()
    assert bench.run().exit_code == 1
    assert [c["status"] for c in bench.calls()] == ["success", "failure"]


def test_errors_and_output_are_kept_without_terminal_codes(bench: Bench) -> None:
    bench.seed("a", 3)
    (bench.folder / "red.py").write_text(
        "@transformer\ndef red(df):\n    raise ValueError(*[f'{chr(27)}[31mwrong hunter{chr(27)}[0m2-secret'])\n"
    )
    (bench.folder / "tell.py").write_text(
        "@callback('failure')\ndef tell(stream):\n"
        "    print('\\x1b[1mfailed')\n    raise ValueError('\\x1b[31mdown\\x1b[0m')\n"
    )
    bench.document |= {"transformers": [{"file": "red.py"}], "callbacks": [{"file": "tell.py", "attempts": 1}]}
    bench.document["variables"] = {"password": "hunter2-secret"}
    result = bench.run()
    assert result.streams[0].error is not None
    assert result.streams[0].error.startswith("block 'red': ValueError: wrong ***,")
    pipeline = load_pipeline(bench.write())
    with Store.open(pipeline.store_url) as store:
        errors = [run.error for run in store.block_runs(result.run_id or 0) if run.error]
        (call,) = store.outbox(pipeline.pipeline).deliveries.history()
    assert [error.message for error in errors] == ["wrong ***"]
    kept = [error.traceback for error in errors] + [call.call.output, str(call.call.error)]
    assert "\x1b" not in "".join(kept)
    assert call.call.output == "failed\n"
    assert "ValueError: down" in str(call.call.error)
