"""`trigger_pipeline`: one pipeline's callback starts another, once, whatever is delivered again."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks import load_pipeline
from syncblocks.callbacks.protocols import Delivery
from syncblocks.callbacks.triggers import asking, trigger_pipeline
from syncblocks.sync.run.triggers import Triggers
from syncblocks.sync.secrets import Redactor
from syncblocks.sync.store import Store
from tests.conftest import RunCLI

#: Mage's template of a callback block that triggers a pipeline.
FIRST = """
from mage_ai.orchestration.triggers.api import trigger_pipeline

if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback


@callback('success')
def start(parent_block_data, **kwargs):
    run = trigger_pipeline(
        {name!r},
        variables={variables},
        check_status=True,
        error_on_failure=True,
        poll_interval=0.05,
        poll_timeout=30,
        verbose=True,
        event={{'from': kwargs['pipeline_uuid']}},
    )
    assert run.status == 'success', run
    {more}
"""

SECOND = """
from pathlib import Path
@callback
def tell(stream, event, trigger_name, region=None, **kwargs):
    with Path(__file__).with_name("told").open("a") as told:
        told.write(f"{stream} {event} {trigger_name} {region}\\n")
"""


def write(
    folder: Path, name: str = "second", more: str = "", variables: str = "{'region': 'eu'}", **second: Any
) -> Path:
    (folder / "rows.csv").write_text("id\n1\n2\n")
    (folder / "start.py").write_text(FIRST.format(name=name, more=more, variables=variables))
    (folder / "tell.py").write_text(SECOND)
    base = {
        "source": {"connector": "csv", "config": {"path": "rows.csv"}},
        "streams": [{"stream": "rows"}],
    }
    callbacks = [{"file": "start.py", "on": ["stream"], "attempts": 2, "timeout_s": 60}]
    first = base | {"destination": {"connector": "sqlite", "config": {"path": "first.db"}}, "callbacks": callbacks}
    told = [{"file": "tell.py", "on": ["stream"]}]
    other = base | {"destination": {"connector": "sqlite", "config": {"path": "second.db"}}, "callbacks": told}
    (folder / "first.yaml").write_text(yaml.safe_dump(first))
    (folder / "second.yaml").write_text(yaml.safe_dump(other | second))
    return folder


def ticks(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / ".syncblocks" / "store.db")) as store, store:
        return store.execute("SELECT pipeline, kind, state, why, run_id, causes FROM _syncblocks_tick").fetchall()


def wait_for(folder: Path, state: str) -> list[tuple[Any, ...]]:
    deadline = time.monotonic() + 60
    while not (found := ticks(folder)) or found[0][2] != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


@pytest.mark.full
def test_a_callback_starts_another_pipeline_and_waits_for_it(tmp_path: Path, run_cli: RunCLI) -> None:
    folder = write(tmp_path)
    done = run_cli(["run", "first.yaml"], folder)
    assert done.returncode == 0, done.stderr
    told = folder / "told"  # the other run's callbacks come after its end
    deadline = time.monotonic() + 60
    while not told.exists() or not told.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert told.read_text() == "rows {'from': 'first'} callback eu\n"
    assert ticks(folder) == [("second", "callback", "run", None, 2, '["first"]')]
    runs = json.loads(run_cli(["runs", "list", "second.yaml", "--json"], folder).stdout)
    assert runs["runs"][0]["status"] == "success"
    again = run_cli(["run", "second.yaml", "--tick", "1"], folder)
    assert again.returncode == 0
    assert "tick 1 has ended" in again.stdout


@pytest.mark.full
def test_a_delivery_that_is_repeated_starts_nothing_twice(tmp_path: Path, run_cli: RunCLI) -> None:
    more = "assert kwargs['retry']['attempts'] > 1, 'once more'"
    folder = write(tmp_path, more=more)
    done = run_cli(["run", "first.yaml"], folder)
    assert done.returncode == 0, done.stderr
    assert len(ticks(folder)) == 1
    runs = json.loads(run_cli(["runs", "list", "second.yaml", "--json"], folder).stdout)["runs"]
    assert len(runs) == 1


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "secnd"}, "no pipeline file in .* is named 'secnd'.*second"),
        ({"name": "first"}, "its own callbacks led to this call: first -> first"),
        ({"variables": "{'x': object()}"}, "variables and event must be JSON values"),
        ({"variables": "{'x': kwargs['token']}"}, "hold a secret"),
    ],
    ids=["unknown", "circle", "no JSON", "secret"],
)
def test_what_is_refused_says_why(
    tmp_path: Path, run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    folder = write(tmp_path, **given)
    document = yaml.safe_load((folder / "first.yaml").read_text())
    document["callbacks"][0]["attempts"] = 1
    document["variables"] = {"token": "{{ secret('token') }}"}
    (folder / "first.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("SYNCBLOCKS_SECRET_TOKEN", "canary-4711")
    done = run_cli(["run", "first.yaml"], folder)
    assert done.returncode == 3
    assert re.search(said, done.stderr), done.stderr
    assert not ticks(folder)
    assert b"canary-4711" not in (folder / ".syncblocks" / "store.db").read_bytes()


@pytest.mark.full
def test_the_eleventh_pipeline_of_a_chain_is_refused(tmp_path: Path, run_cli: RunCLI) -> None:
    folder = write(tmp_path)
    document = yaml.safe_load((folder / "first.yaml").read_text())
    document["callbacks"][0]["attempts"] = 1
    (folder / "first.yaml").write_text(yaml.safe_dump(document))
    chain = [f"p{number}" for number in range(1, 10)]
    with Store.open(load_pipeline(folder / "first.yaml").store_url) as store:
        for key, causes in (("ninth", chain[:8]), ("tenth", chain)):
            store.order_tick("first", key, trigger="", causes=causes)
    ninth = run_cli(["run", "first.yaml", "--tick", "1"], folder)
    assert ninth.returncode == 0, ninth.stderr
    tenth = run_cli(["run", "first.yaml", "--tick", "2"], folder)
    assert tenth.returncode == 3
    refused = "pipeline 'second' is not started: 10 pipelines have started one another already: p1 -> p2 -> .* -> first"
    assert re.search(refused, tenth.stderr), tenth.stderr
    started = [json.loads(causes) for pipeline, *_, causes in ticks(folder) if pipeline == "second"]
    assert started == [[*chain[:8], "first"]], "the tenth pipeline of a chain starts, the eleventh does not"


def test_a_pipeline_that_cannot_begin_is_refused_with_its_reason(tmp_path: Path, run_cli: RunCLI) -> None:
    folder = write(tmp_path)
    (folder / "tell.py").write_text("raise ValueError('gone')")
    done = run_cli(["run", "first.yaml"], folder)
    assert done.returncode == 3
    ((_, _, state, why, run_id, _),) = wait_for(folder, "refused")
    assert (state, run_id) == ("refused", None)
    assert "gone" in why
    assert "gone" in (folder / ".syncblocks" / "ticks" / "1.log").read_text()


def test_a_call_that_waits_is_told_why_the_run_does_not_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load_pipeline(write(tmp_path) / "first.yaml")
    with Store.open(first.store_url) as store:
        tick = store.order_tick("second", "key", trigger="", causes=())
        store.claim_tick(tick.id)
        store.give_back_tick(tick.id, "the destination is down")
        unused: dict[str, Any] = dict.fromkeys(Delivery.__dataclass_fields__)
        ended = json.dumps({"id": tick.id, "status": "success", "why": None})
        initial = json.dumps({"id": tick.id, "status": "initial", "why": None})
        engine = Triggers(first, store, Redactor()).ask(Delivery(**unused))
        answers = iter([lambda question: initial, engine, lambda question: ended])
        with asking(lambda question: next(answers)(question)):
            assert trigger_pipeline("second", check_status=True, poll_interval=0).status == "success"
    assert capsys.readouterr().out.splitlines() == [
        "pipeline second is initial",
        "pipeline second is initial; it waits: the destination is down",
    ]


def test_where_a_server_lives_it_starts_the_run_and_if_it_has_ended_who_waits_does(tmp_path: Path) -> None:
    first = load_pipeline(write(tmp_path) / "first.yaml")
    delivery = Delivery(**dict.fromkeys(Delivery.__dataclass_fields__) | {"key": "k", "kwargs": {"pipeline_run_id": 1}})
    with Store.open(first.store_url) as store:
        ask = Triggers(first, store, Redactor()).ask(delivery)
        store.report_server(str(tmp_path), {"second": None})
        ask(json.dumps({"order": "second", "trigger": "t", "event": {}, "variables": {}}))
        look = json.dumps({"tick": 1, "pipeline": "second"})
        assert json.loads(ask(look))["status"] == "initial"
        assert not (tmp_path / ".syncblocks" / "ticks").exists()
        store.leave_server()
        ask(look)
    assert (tmp_path / ".syncblocks" / "ticks" / "1.log").exists()
    wait_for(tmp_path, "run")


INTERVAL = """
@callback
def tell(interval_start_datetime, interval_end_datetime, interval_seconds, interval_start_datetime_previous, **kwargs):
    found = interval_start_datetime, interval_end_datetime, interval_seconds, interval_start_datetime_previous
    print(*found)
    assert kwargs['retry']['attempts'] > 1 or interval_seconds is None
"""


def test_a_run_with_an_interval_tells_it_to_callbacks_and_templates(tmp_path: Path, run_cli: RunCLI) -> None:
    folder = write(tmp_path, variables="{}")
    (folder / "tell.py").write_text(INTERVAL)
    document = yaml.safe_load((folder / "second.yaml").read_text())
    document["streams"][0]["destination_table"] = "day_{{ interval_start_datetime }}"
    (folder / "second.yaml").write_text(yaml.safe_dump(document))
    without = run_cli(["plan", "second.yaml"], folder)
    assert without.returncode == 2
    assert "streams[0].destination_table: needs an interval. Set --interval-start" in without.stderr
    times = ["--interval-start", "2024-01-02", "--interval-end", "2024-01-02T06:00:00+01:00"]
    planned = run_cli(["plan", "second.yaml", *times, "--json"], folder)
    assert json.loads(planned.stdout)["streams"][0]["destination_table"] == "day_2024-01-02T00:00:00+00:00"
    done = run_cli(["run", "second.yaml", *times], folder)
    assert done.returncode == 0, done.stderr
    calls = json.loads(run_cli(["callbacks", "history", "second.yaml", "--json"], folder).stdout)["calls"]
    output = "2024-01-02 00:00:00+00:00 2024-01-02 05:00:00+00:00 18000.0 2024-01-01 19:00:00+00:00"
    assert [call["call"]["output"].strip() for call in calls] == [output, output]
    for wrong in (times[:2], [*times[:3], "2024-01-01"], ["--interval-start", "soon"]):
        assert run_cli(["run", "second.yaml", *wrong], folder).returncode == 2
