"""Checks of runs: blocks, streams that fail, retries, transformers, and what the command line shows."""

from __future__ import annotations

import json
import sys

from syncblocks import count, discover, load_pipeline, preview, state

from .rows import shows
from .stage import INCREMENTAL, Stage

FAILS = """\
@transformer
def fails(data, stream):
    if stream == 'visits' and {fails}:
        raise ValueError('no')
    return data
"""

SEEN = """\
@transformer
def seen(data, *args, **kwargs):
    with Path(__file__).with_name("told").open("a") as told:
        told.write(kwargs["stream"] + "\\n")
    return data
"""

TAP = """\
import json, sys
schema = {"type": "object", "properties": {"id": {"type": "integer"}}}
if "--discover" in sys.argv:
    entry = {"tap_stream_id": "visits", "stream": "visits", "schema": schema, "key_properties": ["id"]}
    print(json.dumps({"streams": [{**entry, "metadata": []}]}))
else:
    print(json.dumps({"type": "SCHEMA", "stream": "visits", "schema": schema, "key_properties": ["id"]}))
    print(json.dumps({"type": "RECORD", "stream": "visits", "record": {"id": 7}}))
"""


@shows("S1", "S8", "S52")
def records_go_through_transformers_in_order(stage: Stage) -> None:
    stage.write("double.py", "@transformer\ndef double(data):\n    data['id'] *= 2\n    return data\n")
    stage.write("add.py", "@transformer\ndef add(data):\n    data['id'] += 1\n    return data\n")
    stage.write("done.py", "@callback\ndef done(data, **kwargs):\n    say('done', data, kwargs)\n")
    stage.run(transformers=[{"file": "double.py"}, {"file": "add.py"}], callbacks=[{"file": "done.py"}])
    assert stage.rows("SELECT id FROM visits ORDER BY 1") == [(3,), (5,), (7,)]
    assert [call.rows for call in stage.told("done")] == [3]


@shows("S2", "S11", "S65")
def block_runs_have_names_statuses_and_figures(stage: Stage) -> None:
    stage.write("fails.py", FAILS.format(fails=True))
    stage.save({"stream": "words"}, {"stream": "visits"}, transformers=[{"file": "fails.py"}], concurrency=1)
    stage.command("run", code=1)
    found = json.loads(stage.command("runs", "show", "--json").stdout)["block_runs"]
    statuses = {f"{run['block']}:{run['stream']}": run["status"] for run in found}
    assert statuses["write:words"] == "success"
    assert (statuses["fails:visits"], statuses["write:visits"]) == ("failure", "cancelled")
    assert {run["rows"] for run in found if run["stream"] == "words"} == {2}


@shows("S3", "S4", "S5", "S45", "S46")
def a_large_stream_is_committed_at_checkpoints_and_resumed(stage: Stage) -> None:
    records = [{"id": number, "changed": number} for number in range(1, 7)]
    tables = {"visits": {"columns": {"id": "int64", "changed": "int64"}, "records": records}}
    source = {"connector": "memory", "config": {"tables": tables, "batch_size": 2, "checkpoint_records": 2}}
    stage.save({**INCREMENTAL, "write_disposition": "append"}, source=source)
    stage.command("run", code=-9, is_warm=False, SYNCBLOCKS_FAILPOINT="stream.after_commit:2:kill")
    assert stage.rows("SELECT id FROM visits ORDER BY 1") == [(1,), (2,), (3,), (4,)]
    assert [each.bookmark["changed"] for each in state(stage.folder / "shop.yaml").streams] == [4]
    stage.command("run")
    assert stage.rows("SELECT id FROM visits ORDER BY 1") == [(number,) for number in range(1, 7)]


@shows("S6", "S7")
def streams_run_one_after_another_or_side_by_side(stage: Stage) -> None:
    stage.write("seen.py", "from pathlib import Path\n" + SEEN)
    streams = [{"stream": "words"}, {"stream": "visits"}]
    stage.run(*streams, concurrency=1, transformers=[{"file": "seen.py"}])
    assert (stage.folder / "told").read_text().split() == ["words", "visits"]
    result = stage.run(*streams, concurrency=2, options={"full_refresh": True})
    assert result.status == "success"


@shows("S9", "S10")
def a_failed_stream_stops_the_others_unless_it_may_fail(stage: Stage) -> None:
    stage.write("fails.py", FAILS.format(fails=True))
    streams, transformers = [{"stream": "visits"}, {"stream": "words"}], [{"file": "fails.py"}]
    result = stage.run(*streams, transformers=transformers, concurrency=1)
    assert (result.status, result.never_started) == ("failure", ("words",))
    result = stage.run(*streams, transformers=transformers, concurrency=1, allow_blocks_to_fail=True)
    assert [each.status for each in result.streams] == ["failure", "success"]


@shows("S12")
def a_stream_is_tried_again(stage: Stage) -> None:
    table = {"columns": {"id": "int64"}, "records": [{"id": 1}]}
    config = {"tables": {"visits": table}, "fail_at": {"visits": 1}}
    result = stage.run(source={"connector": "memory", "config": config}, retries=1, retry_delay_s=0)
    assert (result.status, result.streams["visits"].rows) == ("success", 1)


@shows("S13", "S14", "S15")
def what_did_not_succeed_is_run_again(stage: Stage) -> None:
    stage.write("fails.py", FAILS.format(fails="True"))
    stage.save({"stream": "visits"}, {"stream": "words"}, transformers=[{"file": "fails.py"}], concurrency=1)
    stage.command("run", code=1)
    stage.write("fails.py", FAILS.format(fails="False"))
    stage.command("runs", "retry", "--stream", "visits")
    assert stage.rows("SELECT count(*) FROM visits") == [(3,)]
    done = stage.command("runs", "retry", "--json").stdout.splitlines()[-1]
    assert [each["stream"] for each in json.loads(done)["streams"]] == ["words"]


@shows("S16")
def a_transformer_and_a_callback_are_for_some_streams(stage: Stage) -> None:
    stage.write("none.py", "@transformer\ndef none(data):\n    return data[data['id'] > 5]\n")
    streams = [{"stream": "visits"}, {"stream": "words"}]
    stage.run(*streams, transformers=[{"file": "none.py", "streams": ["words"]}])
    assert stage.rows("SELECT (SELECT count(*) FROM visits), (SELECT count(*) FROM words)") == [(3, 0)]
    stage.save(
        {"stream": "visits", "when": "region == 'us'"},
        {"stream": "words"},
        transformers=[{"file": "none.py", "when": "region == 'us' or stream == 'visits'"}],
        variables={"region": "eu"},
    )
    stage.command("run")
    assert stage.rows("SELECT (SELECT count(*) FROM visits), (SELECT count(*) FROM words)") == [(3, 2)]
    stage.command("run", "--variable", "region=us")
    assert stage.rows("SELECT (SELECT count(*) FROM visits), (SELECT count(*) FROM words)") == [(0, 0)]


@shows("S50", "S51", "S54")
def a_transformer_gets_one_record_at_a_time(stage: Stage) -> None:
    stage.write(
        "one.py",
        "@transformer\ndef one(data, *args, **kwargs):\n"
        "    if data['word'].iloc[0] == 'b':\n        return data.iloc[0:0]\n"
        "    assert not data.empty and data['id'].mean() == data['id'].iloc[0]\n"
        "    data['size'] = len(data)\n    data['call'] = kwargs['index']\n"
        "    data['till'] = kwargs['query']['_end_date']\n    data['whose'] = kwargs['stream'] + kwargs['region']\n"
        "    return data\n",
    )
    options = {"variables": {"region": "eu", "_end_date": "2024-02-01"}}
    stage.run(transformers=[{"file": "one.py", "frames": "record"}], options=options)
    found = stage.rows("SELECT id, size, call, till, whose FROM visits ORDER BY id")
    assert found == [(1, 1, 0, "2024-02-01", "visitseu"), (3, 1, 2, "2024-02-01", "visitseu")]


@shows("S37", "S53")
def columns_are_renamed(stage: Stage) -> None:
    stage.write("new.py", "@transformer(rename_columns={'word': 'term'})\ndef new(data):\n    return data\n")
    stage.run(transformers=[{"file": "new.py"}])
    stage.run(
        {"stream": "words", "key_properties": ["id"]}, pipeline="other", transformers=[{"rename": {"id": "number"}}]
    )
    assert [row[1] for row in stage.rows("PRAGMA table_info(visits)")] == ["id", "term", "changed"]
    assert [(row[1], row[5]) for row in stage.rows("PRAGMA table_info(words)")] == [("number", 1), ("word", 0)]


@shows("S54a")
def tests_of_a_transformer_are_called_by_a_command(stage: Stage) -> None:
    code = "@transformer\ndef same(data, *args):\n    return data\n"
    code += "@test\ndef fits(output, *args):\n    assert len(output) == {}\n"
    stage.write("same.py", code.format(3))
    assert "fits" in stage.command("transformers", "test", "same.py", "--data", "shop/visits.csv").stdout
    stage.write("same.py", code.format(4))
    stage.command("transformers", "test", "same.py", "--data", "shop/visits.csv", code=1)


@shows("S66", "S67", "S68", "S69")
def the_source_is_looked_at_before_a_run(stage: Stage) -> None:
    stage.save()
    stage.command("check")
    pipeline = load_pipeline(stage.document(), folder=stage.folder)
    assert [stream.name for stream in discover(pipeline)] == ["visits", "words"]
    assert preview(pipeline, "visits", limit=1).records[0]["word"] == "a"
    assert [each.source for each in count(pipeline).streams] == [3]
    stage.save(source={"connector": "csv", "config": {"path": "nowhere"}})
    assert "nowhere" in stage.command("check", code=2).stderr


@shows("S71", "S75")
def a_second_run_is_refused(stage: Stage) -> None:
    stage.write("again.py", AGAIN)
    stage.save(callbacks=[{"file": "again.py"}])
    stage.command("run")
    assert (stage.folder / "said").read_text().startswith("2 ")


AGAIN = """\
import subprocess, sys
from pathlib import Path
@callback
def again(**kwargs):
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-m", "syncblocks", "run"], cwd=folder, capture_output=True, text=True)
    (folder / "said").write_text(f"{done.returncode} {done.stderr}")
"""


@shows("S74")
def the_next_start_recovers_a_run_that_died(stage: Stage) -> None:
    stage.write("heard.py", "@callback('failure')\ndef heard(**kwargs):\n    say('heard', None, kwargs)\n")
    stage.write("dies.py", "import os\n@transformer\ndef dies(data):\n    os.kill(os.getpid(), 9)\n")
    stage.save(transformers=[{"block": "t", "file": "dies.py"}], callbacks=[{"file": "heard.py"}])
    stage.command("run", code=-9)
    stage.write("dies.py", "@transformer\ndef lives(data):\n    return data\n")
    stage.command("run")
    assert [call.kwargs["pipeline_run_id"] for call in stage.told("heard")] == [1]
    assert stage.rows("SELECT count(*) FROM visits") == [(3,)]


@shows("S76")
def a_source_of_the_projects_own_is_a_class_in_a_file(stage: Stage) -> None:
    stage.write(
        "mine.py", "from syncblocks.connectors.memory.source import MemorySource\nclass Mine(MemorySource):\n    pass\n"
    )
    table = {"columns": {"id": "int64"}, "records": [{"id": 4}]}
    stage.run(source={"connector": "./mine.py:Mine", "config": {"tables": {"visits": table}}})
    assert stage.rows() == [(4,)]


@shows("S77")
def a_singer_tap_is_a_source(stage: Stage) -> None:
    tap = stage.write("tap-mine", f"#!{sys.executable}\n{TAP}")
    tap.chmod(0o755)
    result = stage.run(source={"connector": "singer", "config": {"executable": "./tap-mine"}})
    result.raise_for_status()
    assert stage.rows() == [(7,)]


@shows("S79")
def it_runs_without_docker_and_server(stage: Stage) -> None:
    stage.command("init", "new")
    assert (stage.folder / "new").is_dir()


@shows("S80")
def a_stream_without_records_has_events_and_a_table(stage: Stage) -> None:
    stage.change("CREATE TABLE visits (id INTEGER PRIMARY KEY)")
    stage.write("heard.py", "@callback\ndef heard(data, **kwargs):\n    say('heard', data, kwargs)\n")
    source = {"connector": "sqlite", "config": {"path": "in.db"}}
    stage.run(source=source, callbacks=[{"file": "heard.py"}])
    assert [call.rows for call in stage.told("heard")] == [0]
    assert stage.rows() == []


@shows("S72")
def a_message_is_sent_without_python(stage: Stage) -> None:
    stage.run(callbacks=[{"block": "tell", "shell": ["sh", "-c", "echo $SYNCBLOCKS_STATUS > told"]}])
    assert (stage.folder / "told").read_text().strip() == "success"


@shows("S81")
def an_event_reaches_callbacks(stage: Stage) -> None:
    stage.write("heard.py", "@callback\ndef heard(event, **kwargs):\n    say('heard', None, {'event': event})\n")
    stage.run(callbacks=[{"file": "heard.py"}], options={"event": {"order": 7}})
    assert stage.told("heard")[0].kwargs == {"event": {"order": 7}}
