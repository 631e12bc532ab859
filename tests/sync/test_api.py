"""The functions of `syncblocks`: what they return, of a pipeline that is a mapping."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from syncblocks import (
    Pipeline,
    PipelineFailed,
    Progress,
    RunResult,
    SyncError,
    cancel,
    count,
    discover,
    finish_run,
    list_streams,
    load_pipeline,
    open_run,
    preview,
    run_pipeline,
    state,
    sync_stream,
    verify,
)
from syncblocks.sync.errors import AlreadyRunning, ConfigError, NotLatest, TryLater
from tests.sync.pipelines import Bench
from tests.sync.pipelines import bench as bench

INCREMENTAL = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}


@pytest.fixture
def shop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Two streams, of which the pipeline selects one."""
    monkeypatch.chdir(bench.folder)
    bench.seed("a", 3)
    bench.seed("b", 2)
    bench.document["streams"] = [INCREMENTAL]
    return bench


def test_a_mapping_runs_as_a_file_does_and_a_retry_reads_it_again(shop: Bench) -> None:
    (shop.folder / "fail.py").write_text("@transformer\ndef fail(df):\n    raise ValueError('no')\n")
    failing = shop.document | {"transformers": [{"file": "fail.py"}], "variables": {"day": "{{ env_var('DAY', '1') }}"}}
    with pytest.raises(PipelineFailed, match=r"'bench' ended as failure: a: .*ValueError: no"):
        run_pipeline(failing).raise_for_status()
    (shop.folder / "fail.py").write_text("@transformer\ndef fail(df):\n    return df\n")
    result = run_pipeline(load_pipeline(failing, folder=shop.folder), retry=True).raise_for_status()
    assert result.run_id == 1
    assert [row["id"] for row in shop.rows("a")] == [0, 1, 2]


def test_a_pipeline_made_by_hand_is_loaded_where_it_is_used(shop: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", shop.destination_name)
    made = Pipeline(
        pipeline="made",
        source=shop.document["source"],
        destination={"connector": "memory", "config": {"database": "{{ env_var('WHERE') }}"}},
        streams=[{"stream": "a"}],
    )
    assert preview(made, "a", limit=1).destination_table == "a"
    assert run_pipeline(made, variables={"day": 1}).raise_for_status().streams["a"].rows == 3
    assert load_pipeline(load_pipeline(made)).destination.block == "export_memory"
    with pytest.raises(SyncError, match="there is no such destination connector"):
        run_pipeline(made.model_copy(update={"destination": made.destination.model_copy(update={"connector": "x"})}))


def test_variables_and_trigger_that_would_not_count_are_refused(shop: Bench) -> None:
    loaded = load_pipeline(shop.write())
    for given in ({"variables": {"day": 1}}, {"trigger": "nightly"}):
        for start in (run_pipeline, open_run):
            with pytest.raises(ConfigError, match="give them to load_pipeline"):
                start(loaded, **given)
    assert run_pipeline(loaded).exit_code == 0
    for given in ({"event": {"id": 1}}, {"trigger": "nightly"}):
        with pytest.raises(ConfigError, match="a retry has the event and the trigger of its run"):
            run_pipeline(shop.write(), retry=True, **given)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that is drawn below the cells of a notebook, as HTML."""
    drawn: list[str] = []

    class Handle:
        def update(self, what: Any) -> None:
            drawn.append(what._repr_html_())

    def display(what: Any, *, display_id: bool) -> Handle:
        drawn.append(what._repr_html_())
        return Handle()

    notebook, displays = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    vars(notebook).update(get_ipython=lambda: types.SimpleNamespace(kernel=object()), display=displays)
    vars(displays).update(display=display)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return drawn


def test_a_run_in_a_notebook_shows_its_streams_below_the_cell(shop: Bench, shown: list[str]) -> None:
    run_pipeline(shop.document)
    assert "0 of 1 streams" in shown[0]
    assert "1 of 1 streams" in shown[-1]
    assert "<td>a</td><td>success</td><td>3</td>" in shown[-1]
    before = len(shown)
    run_pipeline(shop.document, progress=Progress())
    assert len(shown) == before


def test_a_task_of_one_stream_in_a_notebook_shows_how_it_has_ended(tmp_path: Path, shown: list[str]) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    copies = {
        "pipeline": "copies",
        "source": {"connector": "csv", "config": {"path": "a.csv"}},
        "destination": {"connector": "sqlite", "config": {"path": "copies.db"}},
        "streams": [{"stream": "a"}],
    }
    pipeline = load_pipeline(copies, folder=tmp_path)
    held = open_run(pipeline)
    sync_stream(pipeline, held.id, "a")
    assert f"run {held.id}: 1 of 1 streams" in shown[-1]
    before = len(shown)
    finish_run(pipeline, held.id)
    assert len(shown) == before, "tasks of their own have shown the streams"


_IN_A_NOTEBOOK = """
import sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
from syncblocks.connectors.duckdb.record_checksums import scratch_database
with scratch_database() as connection:
    print(connection.execute("select current_setting('enable_progress_bar')").fetchone())
"""


@pytest.mark.full
def test_records_are_compared_in_a_notebook_without_ipywidgets_too() -> None:
    done = subprocess.run([sys.executable, "-c", _IN_A_NOTEBOOK], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(False,)\n", "")


def test_streams_of_a_result_by_place_and_by_name(shop: Bench) -> None:
    result = run_pipeline(shop.document)
    assert result.streams["a"] is result.streams[0] is next(iter(result.streams))
    assert result.streams[:1] == (result.streams[0],)
    assert [each in result.streams for each in ("a", "b", result.streams[0])] == [True, False, True]
    assert (result.streams["a"].rows, result.streams["a"].error) == (3, None)
    assert (result.streams["a"].bookmark or {})["id"] == 2
    with pytest.raises(KeyError, match="no stream 'A' was started; did you mean 'a'"):
        result.streams["A"]


@pytest.mark.parametrize("method", ["run_started", "stream_started", "advanced", "stream_ended", "run_ended"])
def test_an_error_of_a_progress_is_a_warning_and_stops_nothing(
    shop: Bench, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It left the run open, so that each further one was refused as long as the process lived."""

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise ValueError("no such column")

    progress = type("Mine", (Progress,), {method: fail})()
    with caplog.at_level("WARNING", logger="syncblocks"):
        assert run_pipeline(shop.document, progress=progress).status == "success"
    assert [each.getMessage() for each in caplog.records] == [f"progress: Mine.{method}: ValueError: no such column"]
    assert len(shop.rows("a")) == 3


def test_a_result_is_shown_as_a_table(shop: Bench) -> None:
    shop.document["streams"] = [{"stream": "b"}, {**INCREMENTAL, "destination_table": "<a>"}]
    result = run_pipeline(shop.document)
    lines = repr(result).splitlines()
    assert lines[0] == "bench: run 1: success"
    assert lines[1].split("  ")[0] == "stream"
    assert lines[1].endswith("bookmark  error")
    assert [line.split()[:4] for line in lines[2:]] == [["b", "b", "success", "2"], ["a", "<a>", "success", "3"]]
    assert lines[3].endswith("id=2")
    page = result._repr_html_()
    assert "<td>&lt;a&gt;</td><td>success</td><td>3</td>" in page
    assert "<a>" not in page


def test_a_table_holds_no_control_character_and_no_long_error() -> None:
    from syncblocks.sync.run.results import StreamResult, StreamResults

    stream = StreamResult(stream="a\x1b[31m\nb", destination_table="a", status="failure", error="x" * 500)
    result = RunResult(run_id=None, pipeline="p", status="failure", streams=StreamResults([stream]))
    assert repr(result).splitlines()[0] == "p: no run: failure"
    assert "\x1b" not in repr(result) + result._repr_html_()
    assert len(repr(result).splitlines()) == 3
    assert max(map(len, repr(result).splitlines())) < 200


def test_columns_of_wide_characters_stand_below_each_other() -> None:
    from syncblocks.sync.run.results import StreamResult, StreamResults
    from syncblocks.sync.text_width import text_width

    streams = [
        StreamResult(stream=name, destination_table=name, status="success", records=1, error=error)
        for name, error in (("顧客", ""), ("orders", "値" * 200), ("cafe\u0301", "no"))
    ]
    result = RunResult(run_id=1, pipeline="p", status="success", streams=StreamResults(streams))
    _, *lines = repr(result).splitlines()
    assert len({text_width(line.partition("success")[0]) for line in lines[1:]}) == 1
    assert text_width(lines[0].partition("status")[0]) == text_width(lines[1].partition("success")[0])
    assert max(map(text_width, lines)) < 200


def test_a_difference_after_the_run_raises(shop: Bench) -> None:
    from syncblocks.sync.run.results import StreamResult, StreamResults

    stream = StreamResult(stream="a", destination_table="a", status="success", verdict="differs")
    result = RunResult(run_id=1, pipeline="p", status="success", streams=StreamResults([stream]))
    with pytest.raises(PipelineFailed, match="a: differs"):
        result.raise_for_status()


def test_one_text_in_place_of_a_list_of_streams_is_an_error_that_writes_the_list(shop: Bench) -> None:
    takers: list[Any] = [run_pipeline, list_streams, count, verify, discover]
    for take in takers:
        with pytest.raises(SyncError, match=r"takes a list: write \['a'\]"):
            take(shop.document, streams="a")


def test_an_empty_list_of_streams_is_an_error_and_not_all_of_them(shop: Bench) -> None:
    """A list that a program computes may be empty: that ran, compared and counted all streams."""
    takers: list[Any] = [run_pipeline, open_run, list_streams, count, verify, discover]
    for take in takers:
        for empty in ([], (), iter([])):
            with pytest.raises(
                ConfigError, match="streams: is empty and selects no stream; leave it out for all streams"
            ):
                take(shop.document, streams=empty)
        if take is not discover:
            with pytest.raises(ConfigError, match="tags: is empty and selects no stream; leave it out for all streams"):
                take(shop.document, tags=[])
    assert cancel(shop.document) is None, "nothing was begun"
    assert list_streams(shop.document, streams=None, tags=None) == ("a",), "None is as good as nothing"
    assert [stream.stream for stream in run_pipeline(shop.document, streams=None, tags=None).streams] == ["a"]


def test_an_argument_of_another_type_is_an_error_that_names_it(shop: Bench) -> None:
    """Each of these was an error of Python, or was taken: `repair="no"` repaired."""
    loaded = load_pipeline(shop.document)
    functions = {each.__name__: each for each in (load_pipeline, run_pipeline, preview, verify, discover, open_run)}
    for name, argument, value, message in (
        ("run_pipeline", "concurrency", 0, "concurrency: takes a whole number from 1 to 1000, not 0"),
        ("run_pipeline", "concurrency", True, "concurrency: takes a whole number from 1 to 1000, not True"),
        ("run_pipeline", "streams", 1, "streams: takes a list of texts, not 1"),
        ("run_pipeline", "streams", [1], "streams: takes a list of texts, not [1]"),
        ("run_pipeline", "tags", "nightly", "tags: takes a list: write ['nightly']"),
        ("run_pipeline", "full_refresh", "no", "full_refresh: takes True or False, not 'no'"),
        ("run_pipeline", "event", {"at": object()}, "event.at: is not a JSON value"),
        ("run_pipeline", "event", {"at": float("nan")}, "event.at: is not a JSON value"),
        ("run_pipeline", "retry", -1, "retry: takes True or False or a whole number from 1, not -1"),
        ("run_pipeline", "fills", {"a": "v"}, "fills: takes a mapping of lists of texts, not {'a': 'v'}"),
        ("run_pipeline", "bookmarks", {"a": 1}, "bookmarks: takes a mapping of mappings, not {'a': 1}"),
        ("run_pipeline", "progress", Progress, "progress: takes an object of class Progress, not <class"),
        ("open_run", "hold_s", "60", "hold_s: takes a whole number from 60 to 604800, not '60'"),
        ("preview", "limit", -1, "limit: takes a whole number from 0 to 100000, not -1"),
        ("verify", "repair", "no", "repair: takes True or False, not 'no'"),
        ("load_pipeline", "variables", ["pass-word-1"], "variables: takes a mapping, not list"),
        ("load_pipeline", "interval", (1, 2), "interval: takes two datetimes, the start and the end, not (1, 2)"),
        ("load_pipeline", "execution_date", "2024-01-01", "execution_date: takes a datetime, not '2024-01-01'"),
    ):
        function: Any = functions[name]
        with pytest.raises(ConfigError) as caught:
            function(*([loaded, "a"] if function is preview else [loaded]), **{argument: value})
        assert str(caught.value).startswith(message)
    for take in functions.values():
        with pytest.raises(ConfigError, match="takes a loaded pipeline, the path of a file, or a mapping, not None"):
            take(*([None, "a"] if take is preview else [None]))
    with pytest.raises(TypeError, match=r"run_pipeline\(\) got an unexpected keyword argument 'concurency'"):
        run_pipeline(loaded, concurency=1)  # type: ignore[call-arg]
    assert cancel(loaded) is None, "nothing was begun"


def test_streams_may_come_from_a_generator(shop: Bench) -> None:
    """It was empty when it was read again: a success of no streams."""
    result = run_pipeline(shop.document, streams=(name for name in ["a"]))  # type: ignore[arg-type]
    assert [stream.stream for stream in result.streams] == ["a"]


def test_every_argument_has_a_kind() -> None:
    import inspect

    import syncblocks
    from syncblocks.sync.config.arguments import _KINDS

    for name in syncblocks.__all__:
        function = getattr(syncblocks, name)
        if inspect.isfunction(function) and hasattr(function, "__wrapped__"):
            for parameter in inspect.signature(function).parameters.values():
                assert set(str(parameter.annotation).split(" | ")) <= set(_KINDS), (name, parameter)


def test_a_current_folder_that_was_deleted_is_said_to_be(shop: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_pipeline(shop.document)
    (shop.folder / "gone").mkdir()
    monkeypatch.chdir(shop.folder / "gone")
    (shop.folder / "gone").rmdir()
    for given in (shop.document, "shop.yaml"):
        with pytest.raises(ConfigError, match="the current folder has been deleted"):
            load_pipeline(given)
    assert run_pipeline(loaded).status == "success", "its paths are absolute"


def test_what_is_there_before_and_after_a_run(shop: Bench) -> None:
    assert {stream.name for stream in discover(shop.document)} == {"a", "b"}
    assert [stream.name for stream in discover(shop.document, streams=["b"])] == ["b"]
    assert list_streams(shop.document) == ("a",)
    assert preview(shop.document, "a", limit=2).records == ({"id": 0, "v": "a-0"}, {"id": 1, "v": "a-1"})
    assert state(shop.document).streams == ()
    assert not (shop.folder / ".syncblocks").exists(), "looking writes nothing"
    run_pipeline(shop.document)
    (counted,) = count(shop.document).streams
    assert (counted.source, counted.destination) == (3, 3)
    (row,) = state(shop.document).streams
    assert (row.stream, row.rows) == ("a", 3)
    with pytest.raises(SyncError, match="'aa'"):
        list_streams(shop.document, streams=["aa"])


def test_verify_names_what_differs_and_repairs_it(shop: Bench) -> None:
    shop.document["streams"] = [{**INCREMENTAL, "key_properties": ["id"]}]
    run_pipeline(shop.document)
    assert [each.verdict for each in verify(shop.document)] == ["equal"]
    table = shop.destination.tables["a"]
    shop.destination.tables["a"] = table.slice(1)
    assert [each.verdict for each in verify(shop.document)] == ["differs"]
    assert [each.verdict for each in verify(shop.document, repair=True)] == ["equal"]
    assert [row["id"] for row in shop.rows("a")] == [0, 1, 2]


def test_verify_tells_a_table_that_was_never_written_from_one_that_is_gone(shop: Bench) -> None:
    (told,) = verify(shop.document)
    assert (told.verdict, told.source_records, told.destination_records) == ("differs", 3, 0)
    assert told.notes == ("there is no destination table: no run has written the stream yet",)
    run_pipeline(shop.document)
    del shop.destination.tables["a"]
    assert verify(shop.document)[0].notes == ("there is no destination table: a run has written it",)


def test_cancel_ends_a_run_from_another_thread(shop: Bench) -> None:
    assert cancel(shop.document) is None
    shop.document["source"]["config"] |= {"delay_s": 30, "batch_size": 1}
    asked: list[int | None] = []

    class Watch(Progress):
        def stream_started(self, stream: str, destination_table: str, bookmark: Any) -> None:
            threading.Thread(target=lambda: asked.append(cancel(shop.document))).start()

    result = run_pipeline(shop.document, progress=Watch())
    assert (result.status, asked) == ("cancelled", [result.run_id])
    assert result.streams["a"].error == "the run was cancelled"
    assert cancel(shop.document) is None


def test_a_loaded_pipeline_goes_to_another_process_without_the_environment(
    shop: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "of-the-first-process")
    loaded = load_pipeline(shop.document)
    sent = pickle.dumps(loaded)  # as a user's pool of processes does; nothing of ours reads a pickle
    assert b"of-the-first-process" not in sent
    arrived = pickle.loads(sent)
    assert (arrived, arrived.is_loaded, arrived.folder) == (loaded, True, loaded.folder)
    assert arrived.environ is os.environ
    assert run_pipeline(arrived).status == "success"
    own = load_pipeline(shop.document, environ={"WORD": "own"})
    assert pickle.loads(pickle.dumps(own)).environ == {"WORD": "own"}


@pytest.mark.parametrize(
    "error", [TryLater("wait", after_s=5), AlreadyRunning("shop", 7, "process 1"), NotLatest("shop", 7, 8)]
)
def test_an_error_comes_back_from_another_process(error: SyncError) -> None:
    """One that cannot be unpickled breaks the whole pool."""
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))
