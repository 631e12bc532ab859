"""What a run promises: copies, groups, refreshes, transformers; over the memory pair, with real callbacks and store."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from syncblocks import Progress, load_pipeline, preview, run_pipeline
from syncblocks.sync.errors import ConfigError, PipelineFailed
from syncblocks.sync.session.session import make_plan, open_session
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench


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


def test_a_result_raises_for_its_status_where_it_is_asked_to(bench: Bench) -> None:
    bench.seed("a", 3)
    result = bench.run()
    assert result.raise_for_status() is result
    bench.document["streams"] = [{"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["v"]}]
    bench.seed("a", [{"id": 1, "v": None}])
    with pytest.raises(PipelineFailed, match=r"ended as failure: a: .*'v'"):
        bench.run().raise_for_status()


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


def test_configuration_and_the_number_of_the_call_reach_functions(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENV", "prod")
    monkeypatch.setenv("CHANNEL", "the-secret-channel")
    bench.seed("a", 3)
    bench.document["source"]["config"]["batch_size"] = 2
    (bench.folder / "mark.py").write_text(
        "@transformer\n"
        "def mark(df, *args, **kwargs):\n"
        "    kwargs['logger'].info('marked', rows=len(df))\n"
        "    date = kwargs['query']['_execution_date'] == kwargs['execution_date'].isoformat()\n"
        "    return df.assign(n=kwargs['index'], m=kwargs['configuration']['mark'] + kwargs['env'], d=date)\n"
    )
    bench.document["transformers"] = [{"file": "mark.py", "configuration": {"mark": "!"}}]
    bench.document["destination"]["configuration"] = {"channel": "{{ env_var('CHANNEL') }}", "level": 2}
    (bench.folder / "tell.py").write_text(
        "from pathlib import Path\n"
        "@callback\n"
        "def tell(parent_block_uuid, configuration, env, trigger_name, pipeline_run_id, interval_seconds):\n"
        "    found = (configuration, env, trigger_name, pipeline_run_id, interval_seconds)\n"
        "    Path(__file__).with_name(parent_block_uuid + '.txt').write_text(repr(found))\n"
        "    print(configuration)\n"
    )
    bench.document["callbacks"] = [{"file": "tell.py", "on": ["source", "transformers", "stream", "pipeline"]}]
    assert bench.run().exit_code == 0
    table = bench.destination.tables["a"]
    assert table["n"].to_pylist() == [0, 0, 1]
    assert set(table["m"].to_pylist()) == {"!prod"}
    assert set(table["d"].to_pylist()) == {True}
    told = {path.stem: path.read_text() for path in bench.folder.glob("*.txt")}
    assert told == {
        "load": "({}, 'prod', 'cli', 1, None)",
        "mark": "({'mark': '!'}, 'prod', 'cli', 1, None)",
        "export": "({'channel': 'the-secret-channel', 'level': 2}, 'prod', 'cli', 1, None)",
        "pipeline": "({}, 'prod', 'cli', 1, None)",
    }
    stored = b"".join(path.read_bytes() for path in (bench.folder / ".syncblocks").glob("store.db*"))
    assert b"the-secret-channel" not in stored


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


@pytest.mark.full
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


@pytest.mark.parametrize("place", ["file", "decorator"])
def test_renames_need_no_function_and_may_stand_in_the_decorator(bench: Bench, place: str) -> None:
    bench.seed("a", 2)
    if place == "file":
        bench.document["transformers"] = [{"rename": {"id": "user_id"}}]
    else:
        (bench.folder / "clean.py").write_text(
            "@transformer(rename_columns={'id': 'user_id'})\ndef clean(df):\n    return df[['user_id', 'v']]\n"
        )
        bench.document["transformers"] = [{"file": "clean.py"}]
    bench.document["streams"] = [{"stream": "a", "write_disposition": "merge"}]
    bench.record(on=["transformers"])
    bench.run()
    assert bench.destination.tables["a"].to_pylist() == [{"user_id": 0, "v": "a-0"}, {"user_id": 1, "v": "a-1"}]
    assert bench.destination.keys["a"] == ("user_id",)
    assert [call["parent_block_uuid"] for call in bench.calls()] == ["rename" if place == "file" else "clean"]


def test_renames_in_both_places_are_refused(bench: Bench) -> None:
    bench.seed("a", 1)
    (bench.folder / "clean.py").write_text("@transformer(rename_columns={'id': 'x'})\ndef clean(df): return df\n")
    bench.document["transformers"] = [{"file": "clean.py", "rename": {"id": "y"}}]
    with pytest.raises(ConfigError, match=r"transformers\[0\]\.rename: rename_columns of @transformer renames"):
        bench.run()


def test_plan_warns_of_a_variable_that_functions_cannot_get(bench: Bench) -> None:
    bench.seed("a", 1)
    bench.record()
    bench.document["variables"] = {"stream": "mine", "region": "eu"}
    with closing(open_session(load_pipeline(bench.write()))) as session:
        session.prepare()
        plan = make_plan(session, None)
    assert [warning for warning in plan.warnings if "variable" in warning] == [
        "variable 'stream': functions get the keyword argument of that name instead; rename the variable"
    ]
    bench.run()
    assert [call["stream"] for call in bench.calls()] == ["a"]


def test_what_a_transformer_prints_has_no_secrets(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCBLOCKS_SECRET_K", "pr1nted-by-mistake")
    bench.seed("orders", 2)
    bench.document["variables"] = {"key": "{{ secret('k') }}"}
    (bench.folder / "tell.py").write_text(
        "import sys\n@transformer\ndef tell(df, key=None):\n    print('key', key)\n"
        "    sys.stdout.buffer.write(b'bytes ' + key.encode() + b'\\n')\n    return df\n"
    )
    bench.document["transformers"] = [{"file": "tell.py"}]
    assert bench.run().exit_code == 0
    printed = capsys.readouterr().out
    preview(bench.write(), "orders")
    for shown in (printed, capsys.readouterr().out):
        assert "key ***\nbytes ***\n" in shown
        assert "pr1nted-by-mistake" not in shown


def test_a_name_that_the_destination_cannot_write_skips_its_stream_alone(bench: Bench) -> None:
    bench.seed("orders", 2)
    bench.seed("or\0ders", 2)
    bench.document["destination"] = {"connector": "sqlite", "config": {"path": "out.db"}}
    told = Messages()
    result = bench.run(told)
    assert (result.status, [stream.stream for stream in result.streams]) == ("success", ["orders"])
    assert any("is skipped" in text and "contains a NUL" in text for text in told.texts)


class Messages(Progress):
    """Keeps the messages of a run."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str, *, level: str = "info") -> None:
        self.texts.append(text)


@pytest.mark.full
def test_the_environment_that_a_pipeline_was_loaded_with_is_that_of_its_run_and_retry(bench: Bench) -> None:
    bench.seed("a", 1)
    bench.seed("b", 1)
    (bench.folder / "add.py").write_text("@transformer\ndef add(df, token): return df.assign(v=token)\n")
    tell = "from pathlib import Path\n@callback('success')\n@callback('failure')\ndef tell(stream, token, env):\n"
    tell += "    with Path(__file__).with_suffix('.log').open('a') as log: print(stream, len(token), env, file=log)\n"
    (bench.folder / "tell.py").write_text(tell)
    shell = {"command": "echo $WORD >> told.log", "env": {"WORD": "{{ env_var('LOADED_WORD') }}"}}
    bench.document |= {
        "variables": {"token": "{{ env_var('LOADED_TOKEN') }}"},
        "transformers": [{"file": "add.py"}],
        "callbacks": [
            {"file": "tell.py", "attempts": 1},
            {"block": "told", "shell": shell, "status": ["failure", "success"], "attempts": 1},
        ],
    }
    bench.document["source"]["config"] |= {"fail_at": {"b": 1}}
    environ = {"LOADED_TOKEN": "token-of-19-letters", "LOADED_WORD": "word", "ENV": "test"}
    assert run_pipeline(load_pipeline(bench.write(), environ=environ)).callbacks["dead"] == 0
    del bench.document["source"]["config"]["fail_at"]
    result = run_pipeline(load_pipeline(bench.write(), environ=environ), retry=True)
    assert (result.exit_code, bench.rows("b")) == (0, [{"id": 0, "v": "token-of-19-letters"}])
    assert (bench.folder / "tell.log").read_text().splitlines() == ["a 19 test", "b 19 test", "b 19 test"]
    assert (bench.folder / "told.log").read_text().splitlines() == ["word"] * 3
