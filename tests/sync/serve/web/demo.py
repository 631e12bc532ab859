"""A folder whose pipelines stand in every way that a page shows, made through the run store itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from syncblocks.callbacks.protocols import Delivery
from syncblocks.sync.freshness.look import look_at, read_heads
from syncblocks.sync.pipeline_files import pipeline_files
from syncblocks.sync.schedules import Schedule
from syncblocks.sync.store.model import AttemptPlan, BlockOutcome, ErrorInfo, StateCopy, StreamOutcome
from tests.sync.serve.serve_helpers import Place
from tests.sync.store.store_helpers import RAISED, AnyCallbacks, attempt_plan, stream_plan

HOSTILE = "<script>alert(1)</script>"
LONG = "a_very_long_name_of_a_stream_that_somebody_has_made_of_the_whole_path_of_a_file_" * 3
BERLIN = "Europe/Berlin"
REFUSED = (
    'connection to server at "db-replica.internal" (10.20.0.17), port 5432 failed: Connection refused\n'
    "\tIs the server running on that host and accepting TCP/IP connections?\n"
    "Traceback (most recent call last):\n" + '  File "source.py", line 71, in read\n' * 12
)


class Demo:
    """Fills a place. Its runs are as old as its clock says."""

    def __init__(self, place: Place, *, is_hostile: bool) -> None:
        self.place = place
        self._is_hostile = is_hostile
        self.now = place.clock.time
        with place.store() as store:
            self._store = store
            self._fill()
        place.clock.time = self.now

    def _fill(self) -> None:
        self._write("orders", cron="*/15 * * * *", tags=["shop"], owner="data-team", expect={"every": "1h"})
        self._write(
            "crm", cron="0 * * * *", tags=["sales"], expect={"within": "30m"}, runbook="https://wiki.example/crm"
        )
        self._write("billing", cron="30 2 * * *", tags=["finance"])
        self._write("inventory", cron="0 6 * * *", tags=["shop"])
        self._write("events", cron="*/5 * * * *", missed="all", overlap="wait")
        self._write("weather", cron="0 5 * * 1", zone="America/New_York")
        self._write("reports", cron=None, tags=["finance"])
        (self.place.folder / "marketing.yaml").write_text("source: {connector: csv\ndestination: no\n")
        for place in range(34):
            minutes = 15 * (33 - place) + 4
            status = "failure" if place in (11, 12) else "success"
            change = (
                ({"column": "discount", "change": "added", "before": None, "after": "decimal"},) if place == 25 else ()
            )
            rows = {"orders": 900 + place * 37 % 400, "customers": 40 + place % 7, "refunds": place % 4}
            self.run("orders", minutes, rows, status=status, seconds=40 + place % 9, changes=change)
        for hours in range(12, 2, -1):
            self.run("crm", hours * 60 + 4, {"accounts": 300 + hours, "contacts": 5_200 + hours}, seconds=300)
        for hours in (2, 1, 0):
            failed = {"accounts": REFUSED}
            self.run("crm", hours * 60 + 4, {"accounts": 0, "contacts": 5_200}, failed=failed, seconds=12)
        for days in range(9, 0, -1):
            self.run("billing", days * 1440 + 32, {"invoices": 80 + days, "payments": 64}, told=days < 3)
        for days in range(5, 1, -1):
            self.run("inventory", days * 1440, {"stock": 12_000 - days})
        self.run("reports", 50_000, {"totals": 12})
        if self._is_hostile:
            self._write(HOSTILE, cron="0 4 * * *", tags=[HOSTILE, "x"], owner=HOSTILE)
            self.run(HOSTILE, 600, {HOSTILE: 7, LONG: 3})
            self.run(HOSTILE, 240, {HOSTILE: 0, LONG: 3}, failed={HOSTILE: f"{HOSTILE} broke: {LONG}"})
        self._kill_callback("billing")
        self._schedules()
        self._at(11 * 60)
        heads, _ = read_heads(pipeline_files(self.place.folder))
        look_at(self._store, heads)  # from now on the expectations count
        self._at(2)
        self._store.begin_run("events", execution_date=self.place.clock.time)

    def _write(
        self, name: str, *, cron: str | None, zone: str = BERLIN, missed: str = "", overlap: str = "", **keys: Any
    ) -> None:
        more = {key: value for key, value in (("missed", missed), ("overlap", overlap)) if value}
        stem = "".join(each if each.isalnum() else "-" for each in name)
        self.place.write(name, cron, f"{stem}.yaml", keys=keys, **({"timezone": zone, **more} if cron else {}))

    def _at(self, minutes: float) -> datetime:
        self.place.clock.time = self.now - timedelta(minutes=minutes)
        return self.place.clock.time

    def run(
        self,
        pipeline: str,
        minutes: float,
        rows: dict[str, int],
        *,
        status: str = "success",
        failed: dict[str, str] | None = None,
        seconds: float = 20,
        changes: Sequence[dict[str, Any]] = (),
        told: bool = False,
    ) -> int:
        """Let a run of a pipeline begin so many minutes ago; the streams in `failed` end with these errors."""
        begun = self._at(minutes)
        errors = dict.fromkeys(rows, REFUSED) if status == "failure" else failed or {}
        plan: AttemptPlan = attempt_plan([stream_plan(name) for name in rows], parents=("stream",) if told else ())
        run = self._store.begin_run(pipeline, execution_date=begun).id
        self._store.begin_attempt(run, plan)
        self._store.claim(run, list(rows))
        for stream in plan.streams:
            self.place.clock.move(seconds / len(rows))
            bookmark = {"updated_at": f"{begun - timedelta(minutes=7):%Y-%m-%dT%H:%M:%S}"}
            error = errors.get(stream.stream)
            number = rows[stream.stream]
            blocks = tuple(
                BlockOutcome(
                    block=block.block,
                    status="success" if error is None or block.block == "load" else "failure",
                    rows=number,
                    rows_rejected=number // 500 if block.block == "export" else None,
                    size_bytes=number * 120,
                    bookmark_before={"updated_at": f"{begun - timedelta(minutes=22):%Y-%m-%dT%H:%M:%S}"},
                    bookmark_after=bookmark,
                    schema_changes=tuple(changes) if block.block == "export" else (),
                    error=None if error is None else ErrorInfo(type="OperationalError", message=error),
                )
                for block in stream.blocks
            )
            state = None
            if error is None:
                state = StateCopy(
                    stream=stream.stream,
                    destination_table=stream.destination_table,
                    source="csv",
                    bookmark=bookmark,
                    rows=number,
                )
            self._store.close_stream(run, StreamOutcome(stream=stream.stream, blocks=blocks, state=state))
        self._store.end_attempt(run)
        self._store.finish_run(run)
        return run

    def _kill_callback(self, pipeline: str) -> None:
        """Let the first callback that is due fail, which has one attempt."""
        self._at(30)
        outbox = self._store.outbox(pipeline, AnyCallbacks(attempts=1))
        found = outbox.lease("alerts")
        assert isinstance(found, Delivery)
        outbox.mark(found, RAISED)

    def _schedules(self) -> None:
        self._at(24 * 60)
        crons = {"orders": "*/15 * * * *", "crm": "0 * * * *", "inventory": "0 6 * * *", "events": "*/5 * * * *"}
        known = {name: Schedule(cron=cron, timezone=BERLIN) for name, cron in crons.items()}
        schedules = self._store.schedules
        schedules.see({name: (str(self.place.folder / f"{name}.yaml"), each) for name, each in known.items()})
        for hours in (6, 3):
            self._at(hours * 60)
            schedules.look({"crm": known["crm"]})
        self._at(180)
        until = self.now + timedelta(hours=30)
        file = str(self.place.folder / "inventory.yaml")
        schedules.pause(
            "inventory", file, known["inventory"], until=until, reason="the stock database moves", who="page"
        )


def demo(folder: Path, *, is_hostile: bool = True) -> Place:
    """Return a filled place, with names that nobody should have if it `is_hostile`."""
    place = Place(folder)
    Demo(place, is_hostile=is_hostile)
    return place
