"""`syncblocks schedule`: the next times, in the schedule's zone and in UTC, and what became of the last ones."""

from __future__ import annotations

import json
from pathlib import Path

from syncblocks.sync.schedules import Schedule
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.sync.serve.serve_helpers import begin
from tests.sync.store.store_helpers import FixedClock

FILE = """\
pipeline: crm
owner: data-team
schedule: {cron: "30 2 * * *", timezone: Europe/Berlin}
source: {connector: csv, config: {path: data, password: "{{ secret('gone') }}"}}
destination: {connector: duckdb}
streams: [{stream: "*"}]
"""
AFTER = ["--after", "2027-03-27"]


def test_the_next_times_are_shown_in_the_zone_and_in_utc(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "crm.yaml").write_text(FILE)
    done = run_cli(["schedule", "next", "--count", "2", *AFTER], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:3] == [
        "Europe/Berlin                  UTC",
        "Sat 2027-03-27 02:30:00 +0100  2027-03-27 01:30:00Z",
        "Sun 2027-03-28 03:00:00 +0200  2027-03-28 01:00:00Z",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["crm.yaml"]


def test_json_has_each_time_twice(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "crm.yaml").write_text(FILE)
    done = run_cli(["schedule", "next", "crm.yaml", "--json", *AFTER], tmp_path)
    found = json.loads(done.stdout)
    assert (found["type"], found["pipeline"], found["timezone"], found["owner"]) == (
        "schedule",
        "crm",
        "Europe/Berlin",
        "data-team",
    )
    assert len(found["times"]) == 5
    assert found["times"][1] == {"at": "2027-03-28T01:00:00Z", "local": "2027-03-28T03:00:00+02:00"}


def test_a_file_without_a_schedule_and_a_wrong_one_end_with_2(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "crm.yaml").write_text(FILE.replace("schedule:", "# "))
    done = run_cli(["schedule", "next"], tmp_path)
    assert done.returncode == 2
    assert "crm.yaml: schedule: is missing" in done.stderr
    (tmp_path / "crm.yaml").write_text(FILE.replace("30 2 * * *", "30 2 * *"))
    done = run_cli(["schedule", "next", "--json"], tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["key"] == "schedule.cron"


def test_ticks_says_what_became_of_the_last_times(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "crm.yaml").write_text(FILE.replace("30 2 * * *", "*/5 * * * *"))
    done = run_cli(["schedule", "ticks"], tmp_path)
    assert (done.returncode, done.stdout) == (0, "crm: no time of its schedule was decided yet\n")
    assert [path.name for path in tmp_path.iterdir()] == ["crm.yaml"]
    clock = FixedClock()
    with Store.open(f"sqlite:///{tmp_path}/.syncblocks/store.db", clock=clock) as store:
        schedule = Schedule(cron="*/5 * * * *", timezone="Europe/Berlin")
        store.schedules.see({"crm": ("crm.yaml", schedule)})
        for _ in range(3):
            clock.move(300)
            store.schedules.look({"crm": schedule})
        run = begin(store, 1)
    done = run_cli(["schedule", "ticks"], tmp_path)
    assert done.stdout.splitlines()[1:] == [
        "Fri 2026-01-02 04:10:00 +0100  2 times skipped  the former run still goes, or has not begun",
        f"Fri 2026-01-02 04:05:00 +0100  run {run}",
    ]
    told = json.loads(run_cli(["schedule", "ticks", "--json", "--limit", "1"], tmp_path).stdout)
    assert [(each["state"], each["skipped_count"]) for each in told["ticks"]] == [("skipped", 2)]
