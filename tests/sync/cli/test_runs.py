"""Runs seen and steered from the command line: exit codes, signals, retry, cancel, state, callbacks, live display."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import RunCLI
from tests.sync.cli.cli_pipelines import (
    rows,
    start,
    wait_until_hanging,
    write_callback,
    write_hanging,
    write_shop,
)
from tests.zygote import SCRIPT

FAILING = "@transformer\ndef fail(df):\n    raise ValueError('the third party is down')\n"
TRANSFORMER = "transformers:\n  - {block: change, file: change.py, streams: [orders]}\n"


def result(text: str) -> dict[str, Any]:
    """Last JSON line."""
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


def write_failing(folder: Path, extra: str = "") -> None:
    write_shop(folder, extra=TRANSFORMER + extra, files={"change.py": FAILING})


def test_exit_code_1_if_a_stream_fails(run_cli: RunCLI, tmp_path: Path) -> None:
    write_failing(tmp_path, "concurrency: 1\n")
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 1
    assert "the third party is down" in done.stdout
    assert "shop: run 1: failure" in done.stdout
    assert "Traceback" not in done.stderr
    shown = json.loads(run_cli(["runs", "show", "--json"], tmp_path).stdout)
    by_uuid = {block_run["uuid"]: block_run for block_run in shown["block_runs"]}
    assert by_uuid["change:orders"]["status"] == "failure"
    assert by_uuid["change:orders"]["error"]["message"] == "the third party is down"
    assert by_uuid["export:customers"]["status"] == "success"
    assert by_uuid["export:orders"]["is_last_block_run"] is True
    assert "change:orders" in run_cli(["runs", "show"], tmp_path).stdout


@pytest.mark.parametrize("args", [["run"], ["check"], ["discover"]])
def test_exit_code_1_if_the_source_cannot_be_reached(run_cli: RunCLI, tmp_path: Path, args: list[str]) -> None:
    file = write_shop(tmp_path)
    url = "postgresql://someone:pa55word-x@127.0.0.1:1/nowhere"
    file.write_text(
        file.read_text().replace(
            "connector: csv, config: {path: data}", f"connector: postgres, config: {{url: '{url}'}}"
        )
    )
    done = run_cli(args, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "127.0.0.1" in done.stdout + done.stderr
    assert "pa55word-x" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_exit_code_3_if_a_callback_is_dead_and_retry_delivers_it(run_cli: RunCLI, tmp_path: Path) -> None:
    text = "import pathlib\n@callback\ndef tell(stream):\n    assert pathlib.Path('ok').exists(), 'not ok'\n"
    write_callback(tmp_path, text, "attempts: 1, streams: [orders]")
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 3
    assert "callbacks: 1 dead" in done.stdout
    assert "not ok" in done.stderr
    (dead,) = json.loads(run_cli(["callbacks", "list", "--run", "1", "--json"], tmp_path).stdout)["deliveries"]
    assert (dead["state"], dead["attempts"], dead["stream"]) == ("dead", 1, "orders")
    assert "not ok" in run_cli(["callbacks", "list", "--run", "1"], tmp_path).stdout

    assert run_cli(["callbacks", "retry", "--json", "ffff"], tmp_path).returncode == 2
    (tmp_path / "ok").touch()
    retried = json.loads(run_cli(["callbacks", "retry", dead["key"][:12], "--json"], tmp_path).stdout)
    assert (retried["revived"], retried["counts"]) == (1, {"due": 0, "done": 1, "dead": 0})
    (delivered,) = json.loads(run_cli(["callbacks", "list", "--run", "1", "--json"], tmp_path).stdout)["deliveries"]
    assert delivered["state"] == "done"


def test_callbacks_list_says_who_is_called_for_what(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(
        tmp_path,
        "@callback\ndef load(df): pass\n\n@callback('failure')\ndef alert(**kwargs): pass\n",
        "on: [source, stream], streams: [orders]",
    )
    load, alert = json.loads(run_cli(["callbacks", "list", "--json"], tmp_path).stdout)["functions"]
    assert (load["function"], load["needs_data"], load["parents"]) == ("load", True, ["load", "stream"])
    assert (alert["function"], alert["needs_data"], alert["statuses"]) == ("alert", False, ["failure"])
    assert alert["streams"] == ["orders"]


@pytest.mark.full
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_run_in_a_few_seconds_whatever_hangs(tmp_path: Path, number: int, code: int) -> None:
    write_hanging(tmp_path)
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    with start(tmp_path, "run", "--json") as process:
        signal.signal(signal.SIGHUP, former)
        wait_until_hanging(tmp_path)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert result(output)["streams"][0]["status"] == "cancelled"
    assert "Traceback" not in errors


@pytest.mark.full
def test_a_run_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    write_hanging(tmp_path)
    command = f"trap '' HUP; exec {shlex.quote(str(SCRIPT))} run --json"
    with subprocess.Popen(
        ["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until_hanging(tmp_path)
        process.send_signal(signal.SIGHUP)
        (tmp_path / "go").write_text("on")
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert result(output)["status"] == "success"


#: A reader that is given up while one of Arrow's own threads, which Python does not list, reads ahead.
READING_AHEAD = """\
import io, time
import pyarrow as pa
from pyarrow import csv

class Slow(io.RawIOBase):
    calls = 0

    def readable(self):
        return True

    def read(self, size=-1):
        Slow.calls += 1
        if Slow.calls > 3:
            time.sleep(0.3)
        return b"1,2\\n" * 1000

options = csv.ReadOptions(block_size=4000, column_names=["a", "b"])
reader = csv.open_csv(pa.PythonFile(Slow(), mode="r"), read_options=options)
reader.read_next_batch()

@callback
def tell(): pass
"""


def test_the_exit_code_holds_whatever_thread_of_a_driver_is_left(run_cli: RunCLI, tmp_path: Path) -> None:
    write_callback(tmp_path, READING_AHEAD)
    done = run_cli(["callbacks", "list"], tmp_path)
    assert (done.returncode, "tell" in done.stdout) == (0, True), done.stderr


@pytest.mark.full
def test_a_second_start_is_refused_and_cancel_ends_the_first(run_cli: RunCLI, tmp_path: Path) -> None:
    write_hanging(tmp_path)
    with start(tmp_path, "run", "--json") as process:
        wait_until_hanging(tmp_path)
        second = run_cli(["run", "--json"], tmp_path)
        assert second.returncode == 2
        assert result(second.stdout)["error"]["code"] == "already_running"
        assert "run 1" in result(second.stdout)["error"]["message"]
        changed = run_cli(["state", "reset", "orders"], tmp_path)
        assert changed.returncode == 2
        assert "error[already_running]" in changed.stderr
        assert "running" in run_cli(["runs", "list"], tmp_path).stdout
        assert run_cli(["runs", "cancel"], tmp_path).returncode == 0
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 1, errors
    assert result(output)["status"] == "cancelled"
    assert run_cli(["runs", "cancel"], tmp_path).returncode == 2


@pytest.mark.full
def test_wait_begins_when_the_first_run_has_ended(tmp_path: Path) -> None:
    write_hanging(tmp_path)
    with start(tmp_path, "run", "--json") as first:
        wait_until_hanging(tmp_path)
        with start(tmp_path, "run", "--json", "--wait", "--stream", "orders") as second:
            assert second.stdout is not None
            message = json.loads(second.stdout.readline())
            assert message["text"].startswith("waiting: ")
            (tmp_path / "go").write_text("on")
            assert first.wait(30) == 0
            output, errors = second.communicate(timeout=30)
        assert second.returncode == 0, errors
        assert result(output)["run_id"] == 2


@pytest.mark.full
def test_runs_retry_repeats_what_did_not_succeed(run_cli: RunCLI, tmp_path: Path) -> None:
    write_failing(tmp_path, "allow_blocks_to_fail: true\n")
    assert run_cli(["runs", "retry"], tmp_path).returncode == 2
    assert run_cli(["run"], tmp_path).returncode == 1
    (tmp_path / "change.py").write_text("@transformer\ndef change(df):\n    return df\n")
    wrong = run_cli(["runs", "retry", "--stream", "ordrs"], tmp_path)
    assert wrong.returncode == 2
    assert "'ordrs' matches no stream" in wrong.stderr
    assert "orders" in wrong.stderr
    done = run_cli(["runs", "retry", "--json", "--stream", "ord*"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert result(done.stdout)["run_id"] == 1
    assert [stream["stream"] for stream in result(done.stdout)["streams"]] == ["orders"]
    (listed,) = json.loads(run_cli(["runs", "list", "--json"], tmp_path).stdout)["runs"]
    assert (listed["attempt"], listed["status"]) == (2, "success")
    assert rows(tmp_path, "select count(*) from fact_orders") == [(3,)]
    again = run_cli(["runs", "retry"], tmp_path)
    assert again.returncode == 2
    assert "nothing to retry" in again.stderr


@pytest.mark.full
def test_runs_show_takes_a_number_and_knows_which_there_are(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    assert "has not run yet" in run_cli(["runs", "show"], tmp_path).stderr
    run_cli(["run"], tmp_path)
    run_cli(["run"], tmp_path)
    assert json.loads(run_cli(["runs", "show", "shop.yaml", "1", "--json"], tmp_path).stdout)["run_id"] == 1
    assert json.loads(run_cli(["runs", "show", "--json"], tmp_path).stdout)["run_id"] == 2
    assert run_cli(["runs", "show", "7"], tmp_path).returncode == 2


@pytest.mark.full
@pytest.mark.parametrize(
    "streams", [">&-", "2>&-", "<&- >&- 2>&-", "--json >&-", "--json 2>&-", ">/dev/full", "--json >/dev/full"]
)
def test_a_run_goes_on_though_nothing_takes_what_it_says(tmp_path: Path, streams: str) -> None:
    if "/dev/full" in streams and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    write_shop(tmp_path)
    command = f"{shlex.quote(str(SCRIPT))} run {streams}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "select count(*) from fact_orders") == [(3,)]
    assert ("No space left" in done.stderr) == ("/dev/full" in streams)


@pytest.mark.full
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_what_only_tells_something_fails_if_it_cannot(tmp_path: Path) -> None:
    write_shop(tmp_path)

    def code(command: str) -> int:
        script = f"{shlex.quote(str(SCRIPT))} {command}"
        done = subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert ("No space left" in done.stderr) == ("/dev/full" in command), done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode

    for command in ("runs list", "plan", "schema", "--version", "plan --help", "plan --json"):
        assert (command, code(f"{command} >/dev/full")) == (command, 1)
    # Who reads no further has what was wanted.
    assert code("schema | head -c 1") == 0


@pytest.mark.full
def test_a_run_whose_current_folder_goes_meanwhile_keeps_its_exit_code(tmp_path: Path) -> None:
    shop = write_hanging(tmp_path)
    (tmp_path / "gone").mkdir()
    with subprocess.Popen([SCRIPT, "run", shop], cwd=tmp_path / "gone", stdout=subprocess.PIPE, text=True) as process:
        wait_until_hanging(tmp_path)
        (tmp_path / "gone").rmdir()
        (tmp_path / "go").write_text("on")
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "run 1: success" in output


@pytest.mark.one_of
@pytest.mark.parametrize("command", ["run", "run {shop}", "plan shop.yaml", "init", "sync a.csv b.duckdb"])
def test_a_current_folder_that_was_deleted_is_said_to_be(tmp_path: Path, command: str) -> None:
    shop = write_shop(tmp_path)
    script = f"mkdir gone && cd gone && rmdir ../gone && {shlex.quote(str(SCRIPT))} {command.format(shop=shop)}"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "error[config]: the current folder has been deleted: change into another one (`cd`)\n"


@pytest.mark.full
def test_state_is_that_of_the_ledger_and_can_be_moved(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    assert run_cli(["state", "set", "orders", "updated_at=2024-01-02"], tmp_path).returncode == 0  # no table yet
    assert run_cli(["state", "reset", "orders", "--forget"], tmp_path).returncode == 0
    run_cli(["run"], tmp_path)
    state = json.loads(run_cli(["state", "show", "--json"], tmp_path).stdout)
    assert state["from"] == "ledger"
    assert {row["stream"]: row["bookmark"] for row in state["streams"]} == {
        "customers": None,
        "orders": {"updated_at": "2024-01-03T09:15:00"},
    }
    done = run_cli(["state", "set", "shop.yaml", "orders", "updated_at=2024-01-02 11:30:00"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "select bookmark from _syncblocks_ledger where stream = 'orders'") == [
        ('{"updated_at": "2024-01-02T11:30:00"}',)
    ]
    done = run_cli(["run", "--json", "--stream", "orders"], tmp_path)
    assert result(done.stdout)["streams"][0]["records"] == 2

    done = run_cli(["state", "reset", "orders"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")  # it is merged
    assert rows(tmp_path, "select bookmark from _syncblocks_ledger where stream = 'orders'") == [(None,)]
    assert run_cli(["state", "reset", "orders", "--forget"], tmp_path).returncode == 0
    assert rows(tmp_path, "select count(*) from _syncblocks_ledger where stream = 'orders'") == [(0,)]


@pytest.mark.one_of
@pytest.mark.parametrize("arguments", [["state", "set", "t", "a=b=7"], ["state", "rewind", "t", "--to", "a=b=7"]])
def test_a_column_may_have_the_sign_in_its_name(run_cli: RunCLI, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "t.csv").write_text("a,a=b\n1,9\n")
    (tmp_path / "p.yaml").write_text(
        "pipeline: p\n"
        "source: {block: l, connector: csv, config: {path: t.csv}}\n"
        "destination: {block: e, connector: duckdb, config: {path: w.duckdb}}\n"
        "streams: [{stream: t, replication_method: INCREMENTAL, bookmark_properties: ['a=b']}]\n"
    )
    assert run_cli(["run"], tmp_path).returncode == 0
    done = run_cli([*arguments, "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bookmark"] == {"a=b": 7}


@pytest.mark.full
def test_a_bookmark_set_into_a_lost_ledger_row_counts(run_cli: RunCLI, tmp_path: Path) -> None:
    file = write_shop(tmp_path)
    file.write_text(file.read_text() + "    write_disposition: append\n")
    run_cli(["run"], tmp_path)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("delete from _syncblocks_ledger where stream = 'orders'")
    assert run_cli(["run", "--stream", "orders"], tmp_path).returncode == 1
    done = run_cli(["state", "set", "orders", "updated_at=2024-01-03T09:15:01"], tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_cli(["run", "--json", "--stream", "orders"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "select count(*) from fact_orders") == [(3,)]
    done = run_cli(["state", "reset", "orders"], tmp_path)
    assert (done.returncode, "writes the records that it reads again once more" in done.stderr) == (0, True)


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["orders", "updated_at=soon"], "2024-01-31T23:59:00"),
        (["orders", "updated=2024-01-01"], "did you mean 'updated_at'?"),
        (["customers", "id=1"], "FULL_TABLE"),
        (["order", "updated_at=2024-01-01"], "did you mean 'orders'?"),
    ],
)
def test_a_wrong_bookmark_is_refused(run_cli: RunCLI, tmp_path: Path, args: list[str], hint: str) -> None:
    write_shop(tmp_path)
    run_cli(["run"], tmp_path)
    done = run_cli(["state", "set", *args], tmp_path)
    assert done.returncode == 2
    assert hint in done.stderr
    assert rows(tmp_path, "select bookmark like '%09:15%' from _syncblocks_ledger where stream = 'orders'") == [(True,)]


@pytest.mark.full
def test_state_of_a_destination_that_cannot_be_reached_is_the_copy(run_cli: RunCLI, tmp_path: Path) -> None:
    write_shop(tmp_path)
    run_cli(["run"], tmp_path)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")):  # locks the file
        done = run_cli(["state", "show", "--json"], tmp_path)
        text = run_cli(["state", "show"], tmp_path)
    state = json.loads(done.stdout)
    assert (state["from"], done.returncode) == ("store", 0)
    assert {row["stream"]: row["bookmark"] for row in state["streams"]}["orders"] == {
        "updated_at": "2024-01-03T09:15:00"
    }
    assert "run store's copy" in text.stderr


def run_on_terminal(folder: Path, *args: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; return exit code and everything that it drew."""
    script = str(Path(sys.executable).with_name("syncblocks"))
    pid, descriptor = pty.fork()
    if pid == 0:  # the child
        os.chdir(folder)
        os.execve(script, [script, *args], {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **(env or {})})
    drawn, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        ready, _, _ = select.select([descriptor], [], [], 1.0)
        if ready:
            try:
                piece = os.read(descriptor, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            drawn += piece
    os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), drawn.decode("utf-8", "replace")


@pytest.mark.full
def test_a_terminal_shows_one_live_line_a_stream_and_a_summary(tmp_path: Path) -> None:
    write_callback(tmp_path, "@callback\ndef tell(stream): print('hello', stream)\n")
    code, drawn = run_on_terminal(tmp_path, "run")
    assert code == 0, drawn
    assert "\x1b[" in drawn
    assert "records/s" in drawn  # a column of the live display alone
    assert "hello orders" in drawn
    assert "shop: run 1: success, 2 streams, 5 records" in drawn
    assert "level=info" not in drawn
    assert "of 2 streams" in drawn
    # It was drawn, and made way for the streams: no line of it stays.
    assert "connecting" in drawn
    assert "reading the catalog\r\n" not in drawn


@pytest.mark.full
def test_no_color_is_respected_on_a_terminal(tmp_path: Path) -> None:
    write_shop(tmp_path)
    code, drawn = run_on_terminal(tmp_path, "run", env={"NO_COLOR": "1"})
    assert code == 0
    assert "\x1b[32m" not in drawn
    assert "shop: run 1: success" in drawn


@pytest.mark.full
def test_a_variable_of_the_command_line_alone_goes_with_every_command(run_cli: RunCLI, tmp_path: Path) -> None:
    """A file whose `variables` lack one can be loaded only with it: to retry, to look, and to deliver again."""
    tell = "@callback('success')\n@callback('failure')\ndef tell(stream, region): raise RuntimeError(region)\n"
    write_callback(tmp_path, tell, "attempts: 1")
    file = tmp_path / "shop.yaml"
    file.write_text(file.read_text().replace("path: data", "path: \"{{ variables('region') }}/data\""))
    (tmp_path / "eu").mkdir()
    (tmp_path / "data").rename(tmp_path / "eu" / "data")
    orders = tmp_path / "eu" / "data" / "orders.csv"
    text = orders.read_text()
    orders.write_text(text.replace("2,2,", "2,2"))
    eu = ["--variable", "region=eu"]
    assert run_cli(["run", *eu], tmp_path).returncode == 1
    orders.write_text(text)
    (tmp_path / "alerts.py").write_text(tell.replace("raise RuntimeError(region)", "print('told', region)"))
    retried = run_cli(["runs", "retry", "--variable", "region=us"], tmp_path)
    assert "variable 'region': a retry keeps the value of its run" in retried.stderr
    assert "told eu" in retried.stdout + retried.stderr
    for command in (
        ["runs", "list"],
        ["runs", "show"],
        ["state", "show"],
        ["state", "set", "orders", "updated_at=2024-01-01T00:00:00"],
        ["state", "rewind", "orders", "--by", "1d"],
        ["state", "reset", "orders"],
        ["callbacks", "list"],
        ["callbacks", "retry"],
        ["callbacks", "history"],
    ):
        done = run_cli([*command, *eu], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
