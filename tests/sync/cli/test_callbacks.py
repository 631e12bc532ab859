"""`syncblocks callbacks test|retry|replay|history`: functions called by hand, and what is left of each call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from syncblocks.callbacks.kwargs import STATUSES
from syncblocks.sync.cli import callback_testing
from tests.conftest import RunCLI
from tests.sync.cli.cli_pipelines import start, wait_until_hanging, write_callback, write_hanging, write_shop

FLAKY = """\
import pathlib

@callback
def tell(stream, idempotency_key):
    print("key", idempotency_key)
    assert pathlib.Path("ok").exists(), "not ok"
"""


def document(run_cli: RunCLI, folder: Path, *args: str, code: int = 0) -> dict[str, Any]:
    done = run_cli([*args, "--json"], folder)
    assert done.returncode == code, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.get("exit_code", code) == code
    return found


def states(run_cli: RunCLI, folder: Path) -> list[str]:
    found = document(run_cli, folder, "callbacks", "list", "--run", "1")["deliveries"]
    return [delivery["state"] for delivery in found]


def test_the_statuses_that_test_takes_are_all_there_are() -> None:
    assert tuple(STATUSES) == callback_testing.STATUSES


def test_a_callback_file_is_tried_without_any_pipeline(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "alerts.py").write_text(
        "@callback('failure')\ndef page(stream, __error, region):\n    print(stream, region, __error.block)\n"
        "    return 'paged'\n"
    )
    args = ["callbacks", "test", "alerts.py", "--status", "failure", "--stream", "orders", "--parent", "source"]
    (call,) = document(run_cli, tmp_path, *args, "--variable", "region=eu")["calls"]
    assert (call["kind"], call["value"], call["output"]) == ("returned", "'paged'", "orders eu load_memory\n")
    assert list(call["received"]) == ["stream", "__error", "region"]
    shown = run_cli([*args, "--variable", "region=eu"], tmp_path)
    assert "page (failure): returned 'paged'" in shown.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"alerts.py"}


@pytest.mark.full
def test_functions_marked_by_test_are_called_with_the_data(run_cli: RunCLI, tmp_path: Path) -> None:
    text = "@callback\ndef tell(data, **kwargs):\n    return len(data)\n\n@test\ndef test_rows(data, *args):\n"
    (tmp_path / "alerts.py").write_text(text + "    print('tried')\n    assert len(data) == 2, f'{len(data)} rows'\n")
    (tmp_path / "rows.csv").write_text("id\n1\n2\n")
    passed = run_cli(["callbacks", "test", "alerts.py", "--data", "rows.csv", "--json"], tmp_path)
    assert (passed.returncode, json.loads(passed.stdout)["tests"]) == (0, {"test_rows": None})
    failed = run_cli(["callbacks", "test", "alerts.py"], tmp_path)
    assert failed.returncode == 1
    assert "test test_rows: AssertionError: 3 rows (alerts.py:8)" in failed.stdout
    assert "test_rows" not in run_cli(["callbacks", "test", "alerts.py", "--function", "tell"], tmp_path).stdout


def test_a_raising_callback_exits_with_1_and_a_misspelt_kwarg_is_named(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "alerts.py").write_text("@callback\ndef tell(**kwargs):\n    return kwargs['strem']\n")
    done = run_cli(["callbacks", "test", "alerts.py"], tmp_path)
    assert done.returncode == 1
    assert "KeyError: 'strem'" in done.stdout
    assert "line 3: kwargs['strem']" in done.stderr
    assert "did you mean 'stream'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_plan_check_and_run_name_a_first_parameter_that_is_misspelt(run_cli: RunCLI, tmp_path: Path) -> None:
    text = "@callback\ndef tell(strem): ...\n@callback\ndef good(parent_block_data, **kw): ...\n"
    write_callback(tmp_path, text + "@callback\ndef other(**kw): kw.get('indx')\n")
    for command in ("plan", "check", "run"):
        done = run_cli([command], tmp_path)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "callback block 'alerts': alerts.py line 2: parameter 'strem' receives the parent's data" in said
        assert "did you mean 'stream'?" in said
        assert "line 6: kw.get('indx')" in said
        assert "parent_block_data" not in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["shop.yaml"], "--pipeline"),
        (["nowhere.py"], "cannot be read"),
        (["alerts.py", "--status", "cancelled"], "tell (success)"),
        (["alerts.py", "--status", "succes"], "success"),
        (["alerts.py", "--key", "ab", "--stream", "x"], "--key"),
        (["alerts.py", "--pipeline", "shop.yaml", "--parent", "lod"], "load"),
        (["alerts.py", "--key", "ab"], "has not run yet"),
    ],
)
def test_a_wrong_command_calls_nothing(run_cli: RunCLI, tmp_path: Path, args: list[str], says: str) -> None:
    write_callback(tmp_path, "@callback\ndef tell(): open('called', 'w')\n")
    done = run_cli(["callbacks", "test", *args], tmp_path)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert not (tmp_path / "called").exists()


def test_a_pipeline_file_gives_names_and_variables(run_cli: RunCLI, tmp_path: Path) -> None:
    text = "@callback\ndef tell(pipeline_uuid, block_uuid, parent_block_uuid, destination_table, stream, region): ...\n"
    file = write_callback(tmp_path, text, "on: [source]")
    file.write_text(file.read_text() + "variables: {region: \"{{ env_var('REGION') }}\"}\n")
    args = ["callbacks", "test", "alerts.py", "--pipeline", "shop.yaml", "--stream", "orders", "--json"]
    done = run_cli(args, tmp_path, {"REGION": "the-real-region"})
    (call,) = json.loads(done.stdout)["calls"]
    assert call["received"] == {
        "pipeline_uuid": "'shop'",
        "block_uuid": "'alerts'",
        "parent_block_uuid": "'load'",
        "destination_table": "'fact_orders'",
        "stream": "'orders'",
        "region": "'***'",
    }


def test_breakpoint_has_the_terminal_inline(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "alerts.py").write_text("@callback\ndef tell(stream):\n    breakpoint()\n    return stream\n")
    done = run_cli(["callbacks", "test", "alerts.py", "--inline"], tmp_path, stdin="p 'in ' + stream\nc\n")
    assert done.returncode == 0, done.stderr
    assert "'in users'" in done.stdout


@pytest.mark.full
def test_a_recorded_event_is_given_to_the_function_as_it_is_today(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(tmp_path, FLAKY, "attempts: 1, streams: [orders]")
    assert run_cli(["run"], tmp_path).returncode == 3
    (entry,) = document(run_cli, tmp_path, "callbacks", "history")["calls"]
    assert (entry["call"]["outcome"], entry["call"]["number"]) == ("raised", 1)
    assert entry["call"]["error"].startswith(f"AssertionError: not ok, at {tmp_path / 'alerts.py'}:")
    assert entry["call"]["output"] == f"key {entry['key']}\n"

    (tmp_path / "alerts.py").write_text("@callback\ndef tell(stream, block_run):\n    return stream, block_run.rows\n")
    (call,) = document(run_cli, tmp_path, "callbacks", "test", "alerts.py", "--key", entry["key"][:8])["calls"]
    assert call["value"] == "('orders', 3)"
    replayed = document(run_cli, tmp_path, "callbacks", "replay", "shop.yaml", entry["key"][:8])
    assert (replayed["value"], replayed["state"]) == ("('orders', 3)", "dead")
    assert states(run_cli, tmp_path) == ["dead"]

    (tmp_path / "alerts.py").write_text(FLAKY)
    assert document(run_cli, tmp_path, "callbacks", "replay", entry["key"], code=1)["kind"] == "raised"
    entries = document(run_cli, tmp_path, "callbacks", "history", "--run", "1")["calls"]
    assert [(item["call"]["number"], item["call"]["outcome"]) for item in entries] == [
        (3, "replayed"),
        (2, "replayed"),
        (1, "raised"),
    ]
    assert [bool(item["call"]["error"]) for item in entries] == [True, False, True]
    assert entries[0]["call"]["output"] == entries[2]["call"]["output"], "the same idempotency_key"
    assert len(document(run_cli, tmp_path, "callbacks", "history", "--limit", "1")["calls"]) == 1
    shown = run_cli(["callbacks", "history"], tmp_path).stdout
    assert "AssertionError: not ok" in shown
    assert f"key {entry['key'][:20]}" in shown
    assert "Traceback" in run_cli(["callbacks", "history", "--key", entry["key"][:8]], tmp_path).stdout


@pytest.mark.full
def test_replay_wants_a_key_that_names_one_delivery(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(tmp_path, "@callback\ndef tell(): ...\n")
    assert run_cli(["callbacks", "replay", "ab"], tmp_path).returncode == 2
    assert run_cli(["run"], tmp_path).returncode == 0
    for args, says in ((["zz"], "no delivery"), ([], "KEY"), (["%"], "no delivery")):
        done = run_cli(["callbacks", "replay", *args], tmp_path)
        assert done.returncode == 2, args
        assert says in done.stderr, done.stderr


@pytest.mark.full
def test_retry_delivers_at_once_and_says_what_is_left(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(tmp_path, FLAKY, "attempts: 1")
    assert run_cli(["run"], tmp_path).returncode == 3
    retried = document(run_cli, tmp_path, "callbacks", "retry", code=3)
    assert (retried["revived"], retried["counts"]) == (2, {"due": 0, "done": 0, "dead": 2})
    (tmp_path / "ok").touch()
    done = run_cli(["callbacks", "retry", "1"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "callbacks: 2 done" in done.stdout
    assert states(run_cli, tmp_path) == ["done", "done"]


@pytest.mark.full
def test_retry_delivers_what_a_short_drain_left_due(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_callback(tmp_path, FLAKY, "attempts: 3, streams: [orders]")
    file.write_text("drain_s: 0\n" + file.read_text())
    assert run_cli(["run"], tmp_path).returncode == 3
    assert states(run_cli, tmp_path) == ["ready"]
    assert " due " in run_cli(["callbacks", "list", "--run", "1"], tmp_path).stdout, "the word of the summary"
    (key,) = (item["key"] for item in document(run_cli, tmp_path, "callbacks", "list", "--run", "1")["deliveries"])
    assert "still due" in run_cli(["callbacks", "replay", key], tmp_path).stderr
    file.write_text(file.read_text().replace("drain_s: 0\n", ""))
    (tmp_path / "ok").touch()
    retried = document(run_cli, tmp_path, "callbacks", "retry", key)
    assert (retried["revived"], retried["counts"]["done"]) == (0, 1)


@pytest.mark.full
def test_retry_leaves_a_run_under_way_to_its_process(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_hanging(tmp_path)
    block = "callbacks: [{file: alerts.py, attempts: 1, on: [pipeline]}]\n"
    (tmp_path / "alerts.py").write_text(FLAKY.replace("stream, ", ""))
    file.write_text(file.read_text() + block)
    with start(tmp_path, "run") as process:
        wait_until_hanging(tmp_path)
        retried = document(run_cli, tmp_path, "callbacks", "retry")
        assert "is active" in retried["note"]
        (tmp_path / "go").write_text("x")
        process.communicate(timeout=60)
    assert process.returncode == 3
    assert document(run_cli, tmp_path, "callbacks", "retry", code=3)["counts"]["dead"] == 1


HOOKS = """callbacks:
  - {block: here, shell: "cat > event.json", on: [destination]}
  - {block: fails, shell: "echo $TOKEN; exit 3", when: "stream == 'orders'"}
  - {block: file, file: tell.py}
variables: {token: "{{ env_var('TOKEN') }}"}
"""
TOKEN = "canary-4f1c9a77"


def hooks(folder: Path) -> None:
    write_shop(folder, extra=HOOKS, files={"tell.py": FLAKY})


def test_a_hook_is_called_with_a_made_up_event(run_cli: RunCLI, tmp_path: Path) -> None:
    hooks(tmp_path)
    env = {"TOKEN": TOKEN}
    done = run_cli(["callbacks", "test", "shop.yaml", "--block", "here", "--stream", "orders"], tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert "here.shell (success): done after" in done.stdout
    event = json.loads((tmp_path / "event.json").read_text())
    assert (event["stream"], event["destination_table"], event["status"]) == ("orders", "fact_orders", "success")
    assert (event["parent_block_uuid"], event["token"]) == ("export", "***")
    assert not (tmp_path / ".syncblocks").exists()


def test_a_variable_hides_no_name_of_a_hooks_made_up_event(run_cli: RunCLI, tmp_path: Path) -> None:
    hooks(tmp_path)
    file = tmp_path / "shop.yaml"
    file.write_text(file.read_text().replace("variables: {", "variables: {stream: mine, index: 77, "))
    command = ["callbacks", "test", "shop.yaml", "--block", "here", "--stream", "orders"]
    done = run_cli(command, tmp_path, {"TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr
    event = json.loads((tmp_path / "event.json").read_text())
    assert (event["stream"], event["index"]) == ("orders", 0)
    assert event["pipeline_run"]["variables"]["stream"] == "mine"


def test_a_hook_that_fails_is_shown_without_secrets_and_ends_with_1(run_cli: RunCLI, tmp_path: Path) -> None:
    hooks(tmp_path)
    command = ["callbacks", "test", "shop.yaml", "--block", "fails", "--status", "failure", "--stream"]
    done = run_cli([*command, "orders"], tmp_path, {"TOKEN": TOKEN})
    assert done.returncode == 1
    assert "fails.shell (failure): raised" in done.stdout
    assert "output: ***" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    done = run_cli([*command, "customers"], tmp_path, {"TOKEN": TOKEN})
    assert (done.returncode, "condition is false" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the hook to call"),
        (["--block", "her"], "did you mean 'here'"),
        (["--block", "file"], "callbacks test tell.py"),
        (["--block", "here", "--key", "3f"], "a hook takes only --block"),
        (["--block", "here", "--parent", "sorce"], "did you mean 'source'"),
    ],
)
def test_what_is_no_hook_is_refused(run_cli: RunCLI, tmp_path: Path, arguments: list[str], said: str) -> None:
    hooks(tmp_path)
    done = run_cli(["callbacks", "test", "shop.yaml", *arguments], tmp_path, {"TOKEN": TOKEN})
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "event.json").exists()


@pytest.mark.full
def test_a_callback_that_ends_the_process_by_sigterm_holds_up_no_new_work(run_cli: RunCLI, tmp_path: Path) -> None:
    text = (
        "import os, signal, time\n\n@callback\ndef tell(pipeline_run):\n"
        "    print('run', pipeline_run.id, file=open(__file__ + '.log', 'a'))\n"
        "    while pipeline_run.id == 1:\n        os.kill(os.getppid(), signal.SIGTERM)\n        time.sleep(0.1)\n"
    )
    write_callback(tmp_path, text, "streams: [customers]")
    codes = [run_cli(["run"], tmp_path).returncode for _ in range(3)]
    assert codes == [143, 143, 143]
    assert (tmp_path / "alerts.py.log").read_text().splitlines() == ["run 1", "run 1", "run 2", "run 1"]
    runs = document(run_cli, tmp_path, "runs", "list")["runs"]
    assert [(run["run_id"], run["status"]) for run in runs] == [(2, "success"), (1, "success")]
