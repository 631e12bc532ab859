"""Checks of Mage's callbacks, by what functions in files received."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest

from syncblocks.callbacks.errors import CallbackLoadError
from syncblocks.sync.errors import ConfigError

from .rows import shows
from .stage import Stage


@shows("C1", "C3", "C16", tour=True)
def one_file_hears_of_several_parents_with_the_data_of_each(stage: Stage) -> None:
    calls = stage.told("first", stream="visits")
    assert [(call.kwargs["parent_block_uuid"], call.rows) for call in calls] == [("read", 3), ("tidy", 3), ("write", 3)]
    shown = json.loads(stage.command("runs", "show", "--json").stdout)
    assert "calls" not in {run["block"] for run in shown["block_runs"]}


@shows("C2", tour=True)
def several_files_hear_of_one_parent(stage: Stage) -> None:
    heard = {call.kwargs["block_uuid"] for call in stage.told(parent_block_uuid="write", stream="visits")}
    assert heard == {"calls", "fails"}


@shows("C4", "C5", "C6", "C7", "C15", tour=True)
def functions_of_a_file_are_called_in_their_order(stage: Stage) -> None:
    calls = stage.told(block_uuid="calls", parent_block_uuid="write", stream="words")
    assert [call.name for call in calls] == ["first", "bare", "empty"]
    assert [call.rows for call in calls] == [2, 2, 2]


@shows("C8", "C29", tour=True)
def a_failure_is_told_once_with_its_error(stage: Stage) -> None:
    (call,) = stage.told("failed")
    assert (call.kwargs["parent_block_uuid"], call.kwargs["stream"], call.rows) == ("tidy", "broken", None)
    assert "a broken record" in call.kwargs["error"]
    assert call.kwargs["type"] == "ValueError"


@shows("C9", "C10", tour=True)
def what_a_failure_cuts_off_is_cancelled(stage: Stage) -> None:
    (call,) = stage.told("cancelled")
    assert (call.kwargs["parent_block_uuid"], call.kwargs["stream"], call.rows) == ("write", "broken", None)


@shows("C11")
def an_unknown_status_is_refused_with_the_nearest(stage: Stage) -> None:
    stage.write("wrong.py", "@callback('sucess')\ndef tell(**kwargs): ...\n")
    with pytest.raises((ConfigError, CallbackLoadError), match=r"(?s)sucess.*success"):
        stage.run(callbacks=[{"file": "wrong.py"}])


@shows("C12", "C13", "C14", tour=True)
def data_comes_by_position_or_as_input_or_not_at_all(stage: Stage) -> None:
    (given,) = stage.told("inputs", parent_block_uuid="tidy", stream="visits")
    assert (given.rows, given.kwargs["parents"]) == (3, ["tidy"])
    assert given.kwargs["type"].startswith("pandas")
    (none,) = stage.told("without", parent_block_uuid="tidy", stream="visits")
    assert none.rows is None


@shows("C17", "C18", "C19", "C20", "C21", "C22", "C23", tour=True)
def the_run_is_told(stage: Stage) -> None:
    kwargs = stage.told("first")[0].kwargs
    found = re.fullmatch(r"PipelineRun\(id=1, pipeline_uuid=shop, execution_date=(.*)\)", kwargs["pipeline_run"])
    assert found is not None
    moment = datetime.fromisoformat(found[1])
    assert kwargs["execution_date"] == repr(moment)
    assert (kwargs["ds"], kwargs["hr"]) == (moment.strftime("%Y-%m-%d"), moment.strftime("%H"))
    assert kwargs["execution_partition"] == f"207/{moment:%Y%m%dT%H%M%S}"
    assert kwargs["event"] == {"key": "v"}
    assert kwargs["pipeline_uuid"] == "shop"


@shows("C24", "C25", tour=True)
def stream_and_table_are_told(stage: Stage) -> None:
    pairs = {(call.kwargs["stream"], call.kwargs["destination_table"]) for call in stage.told("first")}
    assert pairs == {("visits", "dim_visits"), ("words", "words"), ("broken", "broken")}


@shows("C26", "C27", tour=True)
def exactly_one_block_run_of_a_type_is_the_last(stage: Stage) -> None:
    for block in ("read", "tidy", "write"):
        calls = [call for call in stage.told(parent_block_uuid=block) if call.name in ("first", "failed", "cancelled")]
        places = sorted((call.kwargs["index"], call.kwargs["is_last_block_run"]) for call in calls)
        assert places == [(0, False), (1, False), (2, True)]


@shows("C28", "C46", tour=True)
def the_whole_pipeline_is_a_parent_without_a_stream(stage: Stage) -> None:
    (call,) = stage.told("whole")
    assert call.kwargs["parent_block_uuid"] == "pipeline"
    assert not {"stream", "index", "destination_table", "is_last_block_run"} & call.kwargs.keys()


@shows("C30", "C31", "C32", "C33", tour=True)
def configuration_variables_and_the_interval_are_told(stage: Stage) -> None:
    (call,) = stage.told("first", parent_block_uuid="tidy", stream="visits")
    expected = {
        "retry": {"attempts": 1},
        "configuration": {"limit": 3},
        "region": "eu",
        "env": "prod",
        "trigger_name": "207",
        "pipeline_run_id": 1,
        "interval_seconds": "86400.0",
    }
    assert {name: call.kwargs[name] for name in expected} == expected
    assert "2024, 1, 1" in call.kwargs["interval_start_datetime"]
    assert "2023, 12, 31" in call.kwargs["interval_start_datetime_previous"]


@shows("C34", "C35", tour=True)
def a_callback_that_raises_leaves_parent_and_others_alone(stage: Stage) -> None:
    assert len(stage.told("goes_on")) == 1
    assert stage.rows("SELECT count(*) FROM dim_visits") == [(3,)]
    history = stage.command("callbacks", "history", "--json").stdout
    assert "not today" in history
    assert "heard of visits" in history


@shows("C36", tour=True)
def legacy_marks_are_called_first(stage: Stage) -> None:
    calls = stage.told(block_uuid="inputs", parent_block_uuid="tidy", stream="visits")
    assert [call.name for call in calls] == ["legacy", "inputs", "without"]
    assert {call.kwargs["parent_block_uuid"] for call in stage.told("legacy_failure")} == {"tidy"}


@shows("C38")
def a_file_made_from_the_templates_loads(stage: Stage) -> None:
    stage.write(
        "made.py",
        "from mage_ai.orchestration.triggers.api import trigger_pipeline\n"
        "if 'callback' not in globals():\n    from mage_ai.data_preparation.decorators import callback\n"
        "@callback('success')\ndef trigger(parent_block_data, **kwargs):\n"
        "    say('trigger', parent_block_data, kwargs)\n"
        "@callback('failure')\ndef failure_callback(parent_block_data, **kwargs):\n    pass\n",
    )
    stage.run(callbacks=[{"file": "made.py"}])
    assert [call.rows for call in stage.told("trigger")] == [3]


@shows("C39")
def a_program_and_a_notebook_see_what_callbacks_did(stage: Stage) -> None:
    stage.write("bad.py", "@callback\ndef bad(**kwargs): raise ValueError('no')\n")
    result = stage.run(callbacks=[{"file": "bad.py", "attempts": 1}])
    assert (result.status, result.callbacks["dead"]) == ("success", 1)
    assert "ValueError" in stage.command("callbacks", "test", "bad.py", code=1).stdout


@shows("C41")
def several_blocks_have_one_file(stage: Stage) -> None:
    stage.write("add.py", "@transformer\ndef add(data, *args):\n    data['id'] += 1\n    return data\n")
    stage.run(transformers=[{"block": "once", "file": "add.py"}, {"block": "again", "file": "add.py"}])
    assert stage.rows("SELECT min(id) FROM visits") == [(3,)]


@shows("C43")
def a_condition_leaves_a_callback_out(stage: Stage) -> None:
    stage.run(
        {"stream": "visits"},
        {"stream": "words"},
        callbacks=[
            {"block": "note", "shell": ["sh", "-c", "touch told-$SYNCBLOCKS_STREAM"], "when": "block_run.rows == 2"}
        ],
    )
    assert [path.name for path in stage.folder.rglob("told-*")] == ["told-words"]


@shows("C45")
def a_timeout_is_told_as_cancelled(stage: Stage) -> None:
    stage.write("slow.py", "import time\n@transformer\ndef slow(data):\n    time.sleep(0.4)\n    return data\n")
    stage.write("late.py", "@callback('cancelled')\ndef late(data, **kwargs):\n    say('late', data, kwargs)\n")
    result = stage.run(
        {"stream": "visits", "timeout_s": 0.1}, transformers=[{"file": "slow.py"}], callbacks=[{"file": "late.py"}]
    )
    assert result.streams["visits"].status == "cancelled"
    assert len(stage.told("late")) == 1


@shows("C47")
def callbacks_are_listed(stage: Stage) -> None:
    stage.write("heard.py", "@callback\ndef heard(**kwargs): ...\n")
    stage.save(callbacks=[{"file": "heard.py"}])
    assert "heard" in stage.command("callbacks", "list", "--json").stdout
