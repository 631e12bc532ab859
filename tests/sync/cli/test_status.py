"""`syncblocks status`: how the pipelines of a folder stand, by their heads and run stores alone."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks.sync.freshness import look_at_folder
from syncblocks.sync.schedules import Schedule
from syncblocks.sync.store import Store
from tests.callbacks.listener import Listener, http_listener
from tests.conftest import RunCLI
from tests.sync.cli.cli_pipelines import HANGING, start, wait_until_hanging
from tests.sync.store.store_helpers import attempt_plan, begin, outcome, query, stream_plan

LATE = "'d_late', 'l_paused', 'm_unscheduled'"
HEAD = """\
source: {connector: csv, config: {path: %s, password: "{{ secret('gone') }}"}}
destination: {connector: duckdb}
streams: [{stream: "*"}]
"""


def store_of(folder: Path) -> str:
    return f"sqlite:///{folder}/.syncblocks/store.db"


def write(folder: Path, name: str, more: str = "") -> None:
    (folder / f"{name}.yaml").write_text(HEAD % "data" + more)


def test_a_look_makes_nothing_where_nothing_is_expected(run_cli: RunCLI, tmp_path: Path) -> None:
    write(tmp_path, "crm", "schedule: {every: 1d}\n")
    (tmp_path / "notes.yaml").write_text("a: b\n")
    done = run_cli(["status"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    head, crm = done.stdout.splitlines()
    assert (head.split(), crm.split()[:3]) == (["pipeline", "status", "next", "run"], ["crm", "never", "ran"])
    assert crm.endswith(" 00:00:00Z")
    assert {path.name for path in tmp_path.iterdir()} == {"crm.yaml", "notes.yaml"}


def test_each_pipeline_has_one_word_and_the_worst_comes_first(run_cli: RunCLI, tmp_path: Path) -> None:
    for name, more in {
        "a_fine": "schedule: {every: 1d}\nowner: data\n",
        "b_plain": "",
        "c_failed": "",
        "d_late": "expect: {every: 1h}\n",
        "e_new": "expect: {every: 1h}\n",
        "f_running": "",
        "g_broken": "schedule: {every: 1}\n",
        "h_twin": "pipeline: i_twin\n",
        "i_twin": "",
        "j_waiting": "",
        "k_few": "expect: {rows: {min: 100}}\n",
        "l_paused": "schedule: {every: 1d}\nexpect: {within: 1h, every: 1h}\n",
        "m_unscheduled": "expect: {every: 1h}\n",
        "n_refused": "",
    }.items():
        write(tmp_path, name, more)
    with Store.open(store_of(tmp_path)) as store:
        plan = stream_plan("s")
        for name in ("a_fine", "b_plain", "c_failed", "d_late", "f_running", "k_few", "l_paused", "m_unscheduled"):
            run = begin(store, attempt_plan([plan], parents=()), name)
            if name != "f_running":
                store.claim(run.id, ["s"])
                store.close_stream(run.id, outcome(plan, "failure" if name == "c_failed" else "success"))
                store.finish_run(run.id)
        store.order_tick("j_waiting", "1", trigger="0", causes=())
        for name in ("a_fine", "n_refused"):  # `a_fine` has run since
            store.order_tick(name, "1", trigger="0", causes=())
        refused = (
            "update _syncblocks_tick set state = 'refused', why = 'no key', kind = 'schedule', due_at = '2020-01-01'"
        )
        query(store.url, f"{refused}, due_at = '2020-01-01' where pipeline in ('a_fine', 'n_refused')")
        for name in ("l_paused", "m_unscheduled"):
            store.schedules.pause(name, f"{name}.yaml", Schedule(every_s=86_400), reason="a move")
        ended = "update _syncblocks_block_run set ended_at = '2026-01-02 03:04:05' where run_id in"
        query(store.url, f"{ended} (select id from _syncblocks_pipeline_run where pipeline in ({LATE}))")
        done = run_cli(["status", "--json"], tmp_path)
        shown = run_cli(["status", str(tmp_path)], tmp_path)
    assert (done.returncode, shown.returncode) == (1, 1)
    told = json.loads(done.stdout)["pipelines"]
    assert [(each["pipeline"], each["status"]) for each in told] == [
        ("g_broken.yaml", "broken"),
        ("h_twin.yaml", "broken"),
        ("i_twin.yaml", "broken"),
        ("d_late", "late"),
        ("m_unscheduled", "late"),
        ("n_refused", "failed"),
        ("k_few", "on time"),
        ("c_failed", "failed"),
        ("j_waiting", "waiting"),
        ("l_paused", "paused"),
        ("f_running", "running"),
        ("e_new", "never ran"),
        ("b_plain", "no schedule"),
        ("a_fine", "on time"),
    ]
    late: dict[str, Any] = told[3]
    assert (late["at"], late["last_success"]) == ("2026-01-02T04:04:05Z", "2026-01-02T03:04:05Z")
    assert [each["what"] for each in late["findings"]] == ["no success for 1h"]
    assert "i_twin.yaml" in told[1]["why"]
    assert told[-1]["owner"] == "data"
    assert "late since 2026-01-02 04:04:05Z" in shown.stdout
    assert "failed (its start was refused: no key)" in shown.stdout
    assert "paused until it is resumed (a move)" in shown.stdout
    assert "d_late: no success for 1h" in shown.stdout


def test_a_folder_without_pipelines_and_a_variable_that_is_not_set_end_with_2(run_cli: RunCLI, tmp_path: Path) -> None:
    assert "holds no pipeline file" in run_cli(["status"], tmp_path).stderr
    assert "is no folder" in run_cli(["status", "gone"], tmp_path).stderr
    write(tmp_path, "crm")
    done = run_cli(["status", "--alert", "ALERTS"], tmp_path, env={"ALERTS": None})
    assert done.returncode == 2
    assert "'ALERTS' is not set" in done.stderr


def test_a_store_that_cannot_be_opened_is_broken_and_the_others_are_shown(run_cli: RunCLI, tmp_path: Path) -> None:
    write(tmp_path, "crm")
    write(tmp_path, "erp", "store: sqlite:///bad.db\n")
    write(tmp_path, "hr", "store: \"{{ env_var('GONE') }}\"\n")
    (tmp_path / "bad.db").write_text("no database")
    done = run_cli(["status"], tmp_path)
    assert done.returncode == 2
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:4]] == [
        ["erp.yaml", "broken"],
        ["hr.yaml", "broken"],
        ["crm", "never"],
    ]


@pytest.mark.full
def test_a_failed_run_is_shown_and_is_late_only_if_something_is_expected(run_cli: RunCLI, tmp_path: Path) -> None:
    for name, more in (("plain", ""), ("expecting", "expect: {every: 1h}\n")):
        write(tmp_path, name, more)
    with Store.open(store_of(tmp_path)) as store:
        for name in ("plain", "expecting"):
            run = begin(store, attempt_plan([plan := stream_plan("s")], parents=()), name)
            store.claim(run.id, ["s"])
            store.close_stream(run.id, outcome(plan, "failure"))
            store.finish_run(run.id)
    done = run_cli(["status"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "plain: run 1 ended as failure" in done.stdout
    assert "expecting: " not in done.stdout
    with http_listener() as listener:
        env = {"ALERTS": f"json://127.0.0.1:{listener.port}"}
        for _ in range(2):
            assert run_cli(["status", "--alert", "ALERTS"], tmp_path, env=env).returncode == 0
        assert len(listener.requests) == 1
        assert names_in(listener, 0).keys() == {"plain"}


def test_a_schedule_whose_file_is_gone_and_a_clock_behind_are_shown(run_cli: RunCLI, tmp_path: Path) -> None:
    write(tmp_path, "crm", "schedule: {every: 1d}\n")
    with Store.open(store_of(tmp_path)) as store:
        for name in ("crm", "away", "spoilt"):
            store.schedules.see({name: (str(tmp_path / f"{name}.yaml"), Schedule(every_s=86_400))})
        query(store.url, "update _syncblocks_schedule set looked_at = '2100-01-02 03:04:05' where pipeline = 'crm'")
    (tmp_path / "spoilt.yaml").write_text("source: [\ndestination: x\n")
    done = run_cli(["status", "--json"], tmp_path)
    told = {each["pipeline"]: each for each in json.loads(done.stdout)["pipelines"]}
    assert (done.returncode, told.keys()) == (1, {"crm", "away", "spoilt.yaml"})
    assert told["away"]["why"] == "its file away.yaml is gone; `syncblocks schedule forget away` if this is meant"
    assert (told["crm"]["status"], told["crm"]["findings"][0]["kind"]) == ("waiting", "clock")
    (tmp_path / "spoilt.yaml").unlink()
    (tmp_path / "crm.yaml").rename(tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text((tmp_path / "other.yaml").read_text() + "pipeline: crm\n")
    for name in ("away", "spoilt"):
        assert run_cli(["schedule", "forget", name], tmp_path).returncode == 0
    (only,) = json.loads(run_cli(["status", "--json"], tmp_path).stdout)["pipelines"]
    assert (only["pipeline"], Path(only["file"]).name) == ("crm", "other.yaml")


# -- two in the morning ----------------------------------------------------------------------------------------------


def sqlite_tables(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "left.sqlite")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def write_night(folder: Path) -> None:
    """Write a folder of pipelines that all went well, and one that never ran."""
    for name, text in {"fine": "id\n1\n", "down": "id\n1\n", "empty": "id\n", "killed": "id\n1\n"}.items():
        (folder / name).mkdir()
        (folder / name / "rows.csv").write_text(text)
    sqlite_tables(folder, "create table a (id integer primary key)", "create table b (id integer primary key)")
    (folder / "hang.py").write_text(HANGING)
    streams = 'streams: [{stream: "*"}]\n'
    for name, more in {
        "fine": "expect: {every: 1d, rows: {min: 1}}\n",
        "down": "expect: {every: 1h}\n",
        "empty": "expect: {rows: {min: 1}}\n",
        "killed": "transformers: [{file: hang.py}]\nexpect: {every: 1d}\n",
        "never": "expect: {every: 1d}\n",
        "spoilt": "expect: {every: 1d}\n",
    }.items():
        target = f"destination: {{connector: duckdb, config: {{path: {name}.duckdb}}}}\n"
        source = f"source: {{connector: csv, config: {{path: {name}}}}}\n"
        (folder / f"{name}.yaml").write_text(source + target + streams + more)
    (folder / "left.yaml").write_text(
        "source: {connector: sqlite, config: {path: left.sqlite}}\n"
        "destination: {connector: duckdb, config: {path: left.duckdb}}\n" + streams
    )


def names_in(listener: Listener, place: int) -> dict[str, str]:
    """Pipeline, and stream, of each line of a message -> what it says."""
    message: str = listener.requests[place].event["message"]
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in message.splitlines()}


@pytest.mark.full
def test_two_in_the_morning(run_cli: RunCLI, tmp_path: Path) -> None:
    """Killed, down, never started, without rows, broken, gone from its glob: each is told once, and once when over."""
    import os

    write_night(tmp_path)
    for name in ("fine", "down", "empty", "left"):
        assert run_cli(["run", f"{name}.yaml"], tmp_path).returncode == 0, name
    with http_listener([200, 500, 200]) as listener:
        env = {"ALERTS": f"json://127.0.0.1:{listener.port}/t0ken"}
        look = ["status", "--alert", "ALERTS"]
        assert run_cli(look, tmp_path, env=env).returncode == 1
        assert names_in(listener, 0).keys() == {"empty"}

        # The night comes.
        (tmp_path / "down").rename(tmp_path / "elsewhere")
        assert run_cli(["run", "down.yaml"], tmp_path).returncode == 1
        sqlite_tables(tmp_path, "drop table b")
        assert run_cli(["run", "left.yaml"], tmp_path).returncode == 0
        (tmp_path / "spoilt.yaml").write_text("source: {\ndestination: x\nschedule: [\n")
        os.mkfifo(tmp_path / "started")
        os.mkfifo(tmp_path / "go")
        killed = start(tmp_path, "run", "killed.yaml")
        wait_until_hanging(tmp_path)
        killed.kill()
        killed.communicate()
        url = store_of(tmp_path)
        of_down = "(select id from _syncblocks_pipeline_run where pipeline = 'down')"
        for statement in (
            f"update _syncblocks_block_run set ended_at = '2026-01-02 03:04:05' where run_id in {of_down}",
            "update _syncblocks_expectation set seen_at = '2026-01-02 03:04:05' where pipeline = 'never'",
        ):
            query(url, statement)

        missed = run_cli(look, tmp_path, env=env)
        assert (missed.returncode, "the next look tries again" in missed.stderr) == (2, True)
        assert "t0ken" not in missed.stdout + missed.stderr
        for _ in range(2):
            assert run_cli(look, tmp_path, env=env).returncode == 1
        assert len(listener.requests) == 3
        told = names_in(listener, 2)
        assert names_in(listener, 1) == told
        assert told.keys() == {"killed", "down", "never", "spoilt.yaml", "left, stream b"}
        assert "is dead" in told["killed"]
        assert "no success for 1h; since 2026-01-02 04:04 UTC; last success 2026-01-02 03:04 UTC" in told["down"]
        assert "no success for 1d; since 2026-01-03 03:04 UTC; no success yet" in told["never"]
        assert "spoilt.yaml:" in told["spoilt.yaml"]

        # And the morning.
        (tmp_path / "elsewhere").rename(tmp_path / "down")
        (tmp_path / "empty" / "rows.csv").write_text("id\n1\n")
        (tmp_path / "never").mkdir()
        (tmp_path / "never" / "rows.csv").write_text("id\n1\n")
        (tmp_path / "spoilt.yaml").write_text((tmp_path / "never.yaml").read_text())
        sqlite_tables(tmp_path, "create table b (id integer primary key)")
        for name in ("down", "empty", "never", "left"):
            assert run_cli(["run", f"{name}.yaml"], tmp_path).returncode == 0, name
        run_cli(["recover", "killed.yaml"], tmp_path)
        assert run_cli(look, tmp_path, env=env).returncode == 0
        assert len(listener.requests) == 3
        query(url, "update _syncblocks_alert set ended_at = '2026-01-02 03:04:05'")
        for _ in range(2):
            assert run_cli(look, tmp_path, env=env).returncode == 0
        assert len(listener.requests) == 4
        over = names_in(listener, 3)
        assert over.keys() == {*told, "empty"}
        assert all(text.startswith("over since") for text in over.values())


def test_a_wrong_run_store_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("store: oracle://h/x\nsource: {}\ndestination: {}\n")
    with look_at_folder(tmp_path) as look:
        (found,) = look.looked
    assert found.why.endswith("p.yaml:1: store: there is no such kind of run store; allowed: sqlite, postgresql")
