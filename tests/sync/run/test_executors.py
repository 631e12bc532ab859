"""What a run promises, the same in threads of one process and on the workers of a Dask cluster."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from syncblocks import Progress, run_pipeline
from syncblocks.sync.store import Store
from tests.sync.pipelines import statuses
from tests.sync.run.spread import SpreadBench


@pytest.fixture(params=["threads", "dask"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str) -> SpreadBench:
    executor: Any = "threads"
    if request.param == "dask":
        executor = {"dask": request.getfixturevalue("cluster").address, "spool": str(tmp_path / "spool")}
    return SpreadBench(tmp_path, postgres_url, executor)


def test_streams_run_in_order_and_each_event_comes_once_with_its_index_and_one_flag(bench: SpreadBench) -> None:
    names = ["c", "a", "d", "b"]
    for name in names:
        bench.seed(name, 3)
    bench.document["streams"] = [{"stream": name} for name in names]
    bench.record(on=["source", "stream", "pipeline"])
    result = bench.run()
    assert result.exit_code == 0
    assert [(s.stream, s.records, s.destination_table) for s in result.streams] == [(n, 3, n) for n in names]
    calls = bench.calls()
    for parent in ("load", "export"):
        of_parent = [call for call in calls if call["parent_block_uuid"] == parent]
        told = [(call["stream"], call["index"], call["is_last_block_run"], call["rows"]) for call in of_parent]
        assert told == [(name, place, place == 3, 3) for place, name in enumerate(names)]
    assert [call["status"] for call in calls if call["parent_block_uuid"] == "pipeline"] == ["success"]
    assert len({call["idempotency_key"] for call in calls}) == len(calls) == 9
    assert bench.rows("c") == [{"id": n, "v": f"c-{n}"} for n in range(3)]


def test_streams_at_once_have_one_last_block_run(bench: SpreadBench) -> None:
    for number in range(9):
        bench.seed(f"s{number}", 2)
    bench.document["concurrency"] = "auto"
    bench.record()
    assert set(statuses(bench.run()).values()) == {"success"}
    calls = bench.calls()
    assert sorted(call["index"] for call in calls) == list(range(9))
    assert [call["index"] for call in calls if call["is_last_block_run"]] == [8]


@pytest.mark.parametrize("allow", [False, True])
def test_a_failed_stream_stops_the_others_unless_allowed(bench: SpreadBench, allow: bool) -> None:
    for name in ("a", "b", "c"):
        bench.seed(name, 3)
    bench.document["source"]["config"] |= {"fail_at": {"b": 1}, "fail_kind": "fatal"}
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
    assert result.streams["b"].error == "source of 'b' fails on purpose"
    failed = next(c for c in calls if c["status"] == "failure" and c["stream"] == "b")
    assert failed["error_block"] == "load"
    assert (calls[-1]["parent_block_uuid"], calls[-1]["status"]) == ("pipeline", "failure")


def test_streams_in_flight_are_cancelled_when_another_one_fails(bench: SpreadBench) -> None:
    bench.seed("bad", 8)
    bench.seed("slow", 200)
    bench.document["concurrency"] = 2
    bench.document["source"]["config"] |= {"delay_s": 0.2, "batch_size": 1, "fail_at": {"bad": 2}, "fail_kind": "fatal"}
    bench.document["streams"] = [{"stream": "bad"}, {"stream": "slow"}]
    bench.record()
    result = bench.run()
    assert statuses(result) == {"bad": "failure", "slow": "cancelled"}
    assert result.streams[1].error == "another stream failed: bad"
    assert [(c["stream"], c["status"], c["is_last_block_run"]) for c in bench.calls()] == [
        ("bad", "failure", False),
        ("slow", "cancelled", True),
    ]


def test_a_timeout_cancels_the_stream(bench: SpreadBench) -> None:
    bench.seed("slow", 400)
    bench.document["source"]["config"] |= {"delay_s": 0.2, "batch_size": 1}
    bench.document["timeout_s"] = 0.3
    bench.record()
    result = bench.run()
    assert [(stream.status, stream.error) for stream in result.streams] == [("cancelled", "timeout_s=0.3 is over")]
    assert [(c["status"], c["is_last_block_run"]) for c in bench.calls()] == [("cancelled", True)]


def test_a_retriable_failure_is_repeated_and_told(bench: SpreadBench) -> None:
    bench.seed("a", 4)
    bench.document["source"]["config"] |= {"fail_at": {"a": 2}, "fail_times": 2, "batch_size": 1}
    bench.document |= {"retries": 2, "retry_delay_s": 0.01}
    (bench.folder / "told.py").write_text(
        "@callback('retry')\ndef told(__error, stream):\n"
        "    open(__file__ + '.log', 'a').write(f'{stream} {__error}\\n')\n"
    )
    bench.document["callbacks"] = [{"file": "told.py"}]
    assert statuses(bench.run()) == {"a": "success"}
    assert (bench.folder / "told.py.log").read_text() == "a source of 'a' fails on purpose\n" * 2
    assert len(bench.rows("a")) == 4


def test_a_cancel_from_elsewhere_ends_the_run(bench: SpreadBench) -> None:
    bench.seed("slow", 400)
    bench.document["source"]["config"] |= {"delay_s": 0.2, "batch_size": 1}
    bench.record(on=["stream", "pipeline"])

    class CancelAtStart(Progress):
        def stream_started(self, stream: str, destination_table: str, bookmark: Any) -> None:
            def cancel() -> None:
                with Store.open(bench.url) as store:
                    run = store.active_run("bench")
                    assert run is not None
                    store.request_cancel(run.id)

            threading.Thread(target=cancel).start()

    started = time.monotonic()
    result = bench.run(CancelAtStart())
    assert (result.status, result.exit_code) == ("cancelled", 1)
    assert time.monotonic() - started < 60
    assert [call["status"] for call in bench.calls()] == ["cancelled", "cancelled"]


def test_transformers_run_with_the_modules_beside_them_and_their_arguments(bench: SpreadBench) -> None:
    bench.seed("a", 3)
    (bench.folder / "code").mkdir()
    (bench.folder / "code" / "words.py").write_text("def loud(text):\n    return text.str.upper()\n")
    (bench.folder / "code" / "clean.py").write_text(
        "import words\n\n@transformer\ndef clean(df, stream, region):\n"
        "    df['v'] = words.loud(df['v']) + '/' + stream + '/' + region\n    return df\n"
    )
    bench.seed("b", 3)
    when = "region == 'us' and trigger_name == 'nightly'"  # a worker decides as the run does
    bench.document |= {
        "transformers": [{"file": "code/clean.py", "when": f"{when} and stream == 'a'"}],
        "variables": {"region": "eu"},
        "streams": [{"stream": "*", "when": when}],
    }
    bench.record(on=["transformers"])
    assert bench.run(variables={"region": "us"}, trigger="nightly").exit_code == 0
    assert [row["v"] for row in bench.rows("a")] == [f"A-{n}/a/us" for n in range(3)]
    assert [row["v"] for row in bench.rows("b")] == [f"b-{n}" for n in range(3)]
    assert [(call["parent_block_uuid"], call["rows"]) for call in bench.calls()] == [("clean", 3)]


def test_bookmarks_options_and_retries_of_a_run_count(bench: SpreadBench) -> None:
    bench.seed("a", 3)
    marks = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "write_disposition": "append"}
    bench.document["streams"] = [{"stream": "a", **marks}, {"stream": "b"}]
    bench.seed("b", 2)
    bench.document["source"]["config"] |= {"fail_at": {"b": 1}, "fail_kind": "fatal"}
    assert statuses(bench.run()) == {"a": "success", "b": "failure"}
    bench.document["source"]["config"]["fail_times"] = 0
    again = bench.run(retry=True)
    assert statuses(again) == {"b": "success"}
    bench.seed("a", 5)
    assert bench.run(streams=["a"]).streams["a"].records == 2
    assert [row["id"] for row in bench.rows("a")] == [0, 1, 2, 3, 4]
    assert bench.run(streams=["a"], full_refresh=True).streams["a"].records == 5
    assert [row["id"] for row in bench.rows("a")] == [0, 1, 2, 3, 4]


@pytest.mark.full
def test_callbacks_get_the_data_of_a_stream(bench: SpreadBench) -> None:
    bench.seed("a", 3)
    bench.record_frames("load", "stream")
    assert bench.run().exit_code == 0
    assert bench.calls("frames") == [["load", [0, 1, 2], 3], ["export", [0, 1, 2], 3]]
    assert run_pipeline(bench.folder / "bench.yaml").exit_code == 0


def test_a_stream_that_the_source_refuses_fails_alone(bench: SpreadBench) -> None:
    """Its worker plans a part of the streams, in which the column that no stream has is not looked for."""
    for name in ("a", "b"):
        bench.seed(name, 3)
    bench.document["allow_blocks_to_fail"] = True
    bench.document["streams"] = [{"stream": "a", "columns": {"include": ["id", "v"]}}, {"stream": "b"}]
    assert bench.run().exit_code == 0
    bench.record(on=["load", "export", "pipeline"])
    bench.document["source"]["config"]["tables"]["a"] = {"columns": {"id": "int64"}, "records": [{"id": 1}]}
    result = bench.run()
    assert (result.exit_code, statuses(result)) == (1, {"a": "failure", "b": "success"})
    assert "'v' matches no column" in str(result.streams["a"].error)
    calls = [call for call in bench.calls() if call["stream"] == "a"]
    assert [(c["parent_block_uuid"], c["status"]) for c in calls] == [("load", "failure"), ("export", "cancelled")]
