"""A COMMIT that outlives its client: the server goes on with it after `kill -9`, while the next start is waiting."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.workshop import Workshop, postgres
from tests.zygote import Zygote

pytestmark = pytest.mark.full

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}

#: The final commit of a stream takes two seconds, and then fails if `wish` says so.
LATE = """
create schema test;
create table test.wish (shall_fail boolean);
insert into test.wish values ({shall_fail});
create function late() returns trigger language plpgsql as $$
declare fails boolean := (select shall_fail from test.wish);
begin
    perform pg_sleep(2);
    if fails then raise exception 'refused at the last moment'; end if;
    return null;
end $$;
create constraint trigger late after update on _syncblocks_ledger deferrable initially deferred for each row
    when (new.completed_by is distinct from old.completed_by) execute function late();
"""


@pytest.mark.parametrize("shall_fail", [False, True], ids=["went through", "failed"])
@pytest.mark.parametrize(
    "settings",
    [
        {"write_disposition": "append"},
        {"write_disposition": "append", **INCREMENTAL},
        {"write_disposition": "merge", **INCREMENTAL},
        {"write_disposition": "replace"},
    ],
    ids=["append", "incremental", "merge", "replace"],
)
def test_a_commit_under_way_when_its_client_is_killed_is_waited_for_and_believed(
    zygote: Zygote, folder: Path, postgres_url: str, settings: dict[str, Any], shall_fail: bool, injected: Count
) -> None:
    workshop = Workshop(zygote, folder, destination="postgres", url=postgres_url)
    workshop.stream("a", 6, **settings)
    workshop.write()
    assert workshop.run().code == 0
    with postgres(postgres_url) as connection:
        connection.execute(LATE.format(shall_fail=shall_fail))
        workshop.grow("a", 0 if settings == {"write_disposition": "append"} else 5)
        workshop.write()
        process = workshop.start()
        _wait_for_sleep(connection)
        process.kill()
        last = workshop.start()
        time.sleep(0.3)
        connection.execute("update test.wish set shall_fail = false")
        assert last.wait() == 0, last.log()
    injected()
    statuses = [
        row["status"]
        for row in workshop.store_rows("select status from _syncblocks_stream_run order by run_id")
        if row["status"]
    ]
    assert statuses == ["success", "failure" if shall_fail else "success", "success"]
    assert untrue(workshop, last) + violations(workshop, kills=1) == []


def _wait_for_sleep(connection: Any) -> None:
    """Wait until a backend of this database sleeps in its COMMIT."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        sleeping = connection.execute(
            "select 1 from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
        ).fetchall()
        if sleeping:
            return
        time.sleep(0.01)
    raise AssertionError("no commit hangs")
