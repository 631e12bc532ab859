"""`syncblocks serve` and `syncblocks schedule`, with processes as they are."""

from __future__ import annotations

import json
import os
import pty
import pwd
import signal
import socket
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.sync.store.store_helpers import query
from tests.zygote import SCRIPT, Process, Zygote

FILE = """\
pipeline: crm
schedule: {cron: "* * * * *"}
source: {connector: csv, config: {path: .}}
destination: {connector: sqlite, config: {path: out.db}}
streams: [{stream: rows}]
"""
#: Not due while a test runs: what starts is what the test orders.
RARE = FILE.replace("* * * * *", "0 0 1 1 *")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crm.yaml").write_text(FILE)
    (tmp_path / "rows.csv").write_text("id\n1\n2\n")
    return tmp_path


SERVERS = "SELECT count(*) FROM _syncblocks_server"


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/.syncblocks/store.db"


def order(folder: Path, key: str = "key") -> int:
    with Store.open(url_of(folder)) as store:
        return store.order_tick("crm", key, trigger="api", causes=(), kind="api").id


def until(server: Process, is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, server.log()
        assert not server.has_ended(), server.log()
        time.sleep(0.05)


def states(folder: Path) -> list[tuple[str, int, int]]:
    """Return of each tick its state, whether it has a run, and the claims."""
    return query(url_of(folder), "SELECT state, run_id IS NOT NULL, claims FROM _syncblocks_tick ORDER BY id")


def is_over(folder: Path) -> bool:
    return query(url_of(folder), "SELECT count(*) FROM _syncblocks_pipeline_run WHERE is_active = TRUE") == [(0,)]


@pytest.mark.full
def test_a_missed_time_runs_by_itself_and_the_server_ends_with_0(folder: Path, zygote: Zygote) -> None:
    with Store.open(url_of(folder)):
        pass
    known = json.dumps({"cron": "* * * * *", "every_s": None, "timezone": "UTC", "missed": "latest", "overlap": "skip"})
    query(
        url_of(folder),
        "INSERT INTO _syncblocks_schedule (pipeline, file, schedule, looked_at, is_paused) "
        f"VALUES ('crm', 'x', '{known}', '2026-01-01 00:00:00.000000', 0)",
    )
    server = zygote.start(folder, ["serve", "--port", "0"])
    until(server, lambda: ("run", 1, 1) in states(folder) and is_over(folder))
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log()
    assert query(f"sqlite:///{folder}/out.db", "SELECT count(*) FROM rows") == [(2,)]
    output = folder / ".syncblocks" / "ticks"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in output.iterdir()}
    assert (modes, stat.S_IMODE(output.stat().st_mode)) == ({0o600}, 0o700)
    assert query(url_of(folder), "SELECT count(*) FROM _syncblocks_server") == [(0,)]


@pytest.mark.full
def test_kills_between_offer_claim_and_begin_lose_no_tick_and_double_none(folder: Path, zygote: Zygote) -> None:
    (folder / "crm.yaml").write_text(RARE)
    tick = order(folder)
    server = zygote.start(folder, ["serve", "--port", "0"], failpoint="store.offer_tick.after:1:kill")
    assert server.wait() == -signal.SIGKILL
    # Each child is killed when it has claimed the tick; another one takes its place at once.
    killed = {"SYNCBLOCKS_FAILPOINT": "store.claim_tick.after:1:kill"}
    server = zygote.start(folder, ["serve", "--port", "0"], environment=killed)
    until(server, lambda: states(folder)[0][2] >= 2)
    server.kill()
    # Each server starts a child, which begins the run and goes on.
    servers = [zygote.start(folder, ["serve", "--port", "0"]) for _ in range(2)]
    until(servers[0], lambda: states(folder)[0][0] == "run")
    for each in servers:
        each.kill()
    deadline = time.monotonic() + 60
    while not is_over(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with Store.open(url_of(folder)) as store:
        assert store.tick(tick).run_id == 1
        assert [run.status for run in store.runs("crm") if run.trigger == "api"] == ["success"]


@pytest.mark.full
def test_the_next_server_ends_the_run_of_a_dead_process_by_recover(folder: Path, zygote: Zygote) -> None:
    (folder / "crm.yaml").write_text(FILE.replace("schedule:", "# "))
    run = zygote.start(folder, ["run"], failpoint="store.claim.after:1:kill")
    assert run.wait() == -signal.SIGKILL
    with Store.open(url_of(folder)) as store:
        waiting = store.order_tick("crm", "asked", trigger="callback", causes=()).id
    server = zygote.start(folder, ["serve", "--port", "0"])
    until(server, lambda: is_over(folder))
    (log,) = (folder / ".syncblocks" / "ticks").glob("recover-*.log")
    assert f"tick {waiting}" not in log.read_text()
    server.signal(signal.SIGINT)
    assert server.wait() == 0, server.log()


@pytest.mark.full
def test_stop_runs_stops_what_the_server_has_started_and_else_it_goes_on(folder: Path, zygote: Zygote) -> None:
    (folder / "slow.py").write_text(
        "import time\n\n@transformer\ndef slow(records):\n    time.sleep(600)\n    return records\n"
    )
    (folder / "crm.yaml").write_text(RARE + "transformers: [{file: slow.py}]\n")
    order(folder)
    server = zygote.start(folder, ["serve", "--port", "0"])
    until(server, lambda: states(folder)[0][0] == "run")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log()
    ((owner,),) = query(url_of(folder), "SELECT owner FROM _syncblocks_pipeline_run WHERE is_active = TRUE")
    os.kill(json.loads(owner)["pid"], signal.SIGKILL)
    order(folder, "second")
    server = zygote.start(folder, ["serve", "--port", "0", "--stop-runs"])
    until(server, lambda: states(folder)[1][0] == "run")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log()
    assert is_over(folder)


@pytest.mark.full
def test_the_link_that_signs_in_goes_to_a_terminal_and_not_to_a_log(folder: Path) -> None:
    command = [SCRIPT, "serve", "--port", "0"]
    mine, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=folder, stderr=theirs, stdin=subprocess.DEVNULL) as server:
        os.close(theirs)
        said = b""
        while b"/login?code=" not in said:
            said += os.read(mine, 10_000)
        server.send_signal(signal.SIGTERM)
    os.close(mine)
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines = []
        while not (lines and lines[-1].startswith("to sign in: ")):
            lines.append(server.stderr.readline())
            assert lines[-1], lines
        server.send_signal(signal.SIGTERM)
        lines += server.stderr
    assert lines.count(f"to sign in: syncblocks token link {folder}\n") == 1
    assert "code=" not in "".join(lines)


@pytest.mark.full
def test_a_run_whose_process_hangs_past_its_run_timeout_is_ended(folder: Path, zygote: Zygote) -> None:
    (folder / "slow.py").write_text("import time\n\n@transformer\ndef slow(records):\n    time.sleep(600)\n")
    (folder / "crm.yaml").write_text(RARE + "transformers: [{file: slow.py}]\nrun_timeout_s: 1\n")
    run = zygote.start(folder, ["run"])
    active = "SELECT count(*) FROM _syncblocks_stream_run WHERE status = 'running'"
    until(run, lambda: Path(url_of(folder)[10:]).exists() and query(url_of(folder), active) == [(1,)])
    run.signal(signal.SIGSTOP)
    module = "syncblocks.sync.serve"
    soon = {f"{module}.late_runs.PATIENCE_S": 1.0, f"{module}.server.LATE_S": 0.5}
    server = zygote.start(folder, ["serve", "--port", "0"], constants=soon)
    until(server, lambda: is_over(folder))
    assert run.wait() == -signal.SIGKILL
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert [name for name in ("SIGTERM", "SIGKILL") if f"{name} to process {run.pid} on" not in server.log()] == []


@pytest.mark.full
def test_old_runs_go_with_their_output_while_a_server_lives(folder: Path, zygote: Zygote, run_cli: RunCLI) -> None:
    (folder / "crm.yaml").write_text(RARE)
    for key in ("1", "2"):
        assert run_cli(["run", "--tick", str(order(folder, key))], folder).returncode == 0
    query(
        url_of(folder), "UPDATE _syncblocks_tick SET due_at = '2020-01-01 00:00:00.000000'"
    )  # an order is kept a week
    output = folder / ".syncblocks" / "ticks"
    output.mkdir()
    for tick in (1, 2):
        (output / f"{tick}.log").write_text("output\n")
    (folder / "crm.yaml").write_text(RARE + "history: {keep_runs: 1}\n")
    server = zygote.start(folder, ["serve", "--port", "0"])
    until(server, lambda: query(url_of(folder), "SELECT id FROM _syncblocks_pipeline_run") == [(2,)])
    assert {path.name for path in output.iterdir()} == {"2.log", "prune-crm.log"}
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log()


@pytest.mark.full
def test_a_server_ends_soon_after_sigterm_though_its_run_store_blocks(folder: Path, zygote: Zygote) -> None:
    (folder / "crm.yaml").write_text(RARE)
    server = zygote.start(folder, ["serve", "--port", "0"])
    until(server, lambda: Path(url_of(folder)[10:]).exists() and query(url_of(folder), SERVERS) == [(1,)])
    with closing(sqlite3.connect(url_of(folder)[10:], isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log()  # the lock lasts longer
    assert "stopped while the run store does not answer" in server.log()


@pytest.mark.parametrize("option", ["--alert", "--heartbeat"])
def test_a_variable_that_is_not_set_ends_a_server_before_it_starts(run_cli: RunCLI, folder: Path, option: str) -> None:
    done = run_cli(["serve", "--port", "0", option, "GONE"], folder, env={"GONE": None})
    assert (done.returncode, f"{option}: the environment variable 'GONE' is not set" in done.stderr) == (2, True)
    assert not (folder / ".syncblocks").exists()


def test_a_folder_without_a_pipeline_file_is_refused(run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli(["serve", "--port", "0"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no pipeline file: make one with `syncblocks init`" in done.stderr
    done = run_cli(["serve", "gone"], tmp_path)
    assert (done.returncode, "gone: is no folder" in done.stderr) == (2, True)


def test_the_store_of_the_environment_is_that_of_all_commands(run_cli: RunCLI, folder: Path, postgres_url: str) -> None:
    secret = postgres_url.replace("postgres@", "postgres:pa55word@")
    env = {"SYNCBLOCKS_STORE": secret}
    for command in (["run"], ["status"], ["schedule", "pause"], ["runs", "list"]):
        done = run_cli(command, folder, env=env)
        assert (done.returncode, "pa55word" in done.stdout + done.stderr) == (0, False), done.stderr
    (folder / "crm.yaml").unlink()
    assert run_cli(["schedule", "forget", "crm"], folder, env=env).returncode == 0
    assert not (folder / ".syncblocks" / "store.db").exists()
    done = run_cli(["status"], folder, env={"SYNCBLOCKS_STORE": secret.replace("postgresql", "oracle")})
    assert (done.returncode, "pa55word" in done.stdout + done.stderr) == (2, False)


def test_pause_resume_reset_and_forget(run_cli: RunCLI, folder: Path) -> None:
    def said(*args: str, code: int = 0) -> dict[str, object]:
        done = run_cli(["schedule", *args, "--json"], folder)
        assert done.returncode == code, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    assert said("pause", "--until", "2100-01-01", "--reason", "db moves") == {
        "type": "schedule",
        "action": "paused",
        "pipeline": "crm",
        "until": "2100-01-01T00:00:00Z",
        "reason": "db moves",
    }
    assert (said("resume")["was_paused"], said("resume")["was_paused"]) == (True, False)
    who = f"{pwd.getpwuid(os.getuid()).pw_name} on {socket.gethostname()}"
    assert query(url_of(folder), "SELECT who, what FROM _syncblocks_action") == [(who, "pause"), (who, "resume")]
    assert said("reset")["skipped"] == 0
    assert "has passed" in str(said("pause", "--until", "2020-01-01", code=2))
    (folder / "crm.yaml").unlink()
    assert said("forget", "crm")["skipped"] == 0
    assert "knows no schedule of a pipeline 'crm'" in str(said("forget", "crm", code=2))
    assert query(url_of(folder), "SELECT count(*) FROM _syncblocks_schedule") == [(0,)]


@pytest.mark.full
def test_an_address_that_is_taken_and_public_urls(run_cli: RunCLI, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_cli(["serve", "--port", port, "--public-url", "https://sync.example:8443"], folder)
        assert (done.returncode, "another program listens there" in done.stderr) == (2, True), done.stderr
    for url in ("sync.example", "https://sync.example/", "https://user@sync.example", "https://a b", "ftp://x"):
        done = run_cli(["serve", "--port", "0", "--public-url", url], folder)
        assert (done.returncode, "is not of the form" in done.stderr) == (2, True), done.stderr
    done = run_cli(["serve", "--host", "0.0.0.0", "--port", "0"], folder)
    assert (done.returncode, "is reached from outside" in done.stderr) == (2, True), done.stderr
