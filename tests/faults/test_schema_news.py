"""A column that is added is told of once, by the run that has added it, wherever a process dies on the way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.arrivals import RECORDER
from tests.faults.conftest import Count
from tests.faults.workshop import Workshop, postgres
from tests.zygote import Zygote

pytestmark = pytest.mark.full

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}
#: Kills at these points of the run that adds the column; {} is the destination's name.
POINTS = (
    "{}.commit.before:1",
    "store.hold.before:1",
    "store.hold.inside:1",
    "store.hold.after:1",
    "{}.commit.inside:1",
    "{}.commit.after:1",
    "store.let_out.before:1",
    "store.let_out.inside:1",
    "store.let_out.after:1",
    "stream.after_commit:1",
)


def make(
    zygote: Zygote, folder: Path, destination: str, url: str, settings: dict[str, Any], kept: Path | None
) -> Workshop:
    """Return a workshop whose table has been synced, and has another column since.

    What comes before is run once and copied from `kept`, where the folder holds all of it.
    """
    if kept is not None and kept.exists():
        shutil.copytree(kept, folder)
    workshop = Workshop(zygote, folder, destination=destination, url=url)
    (folder / "recorder.py").write_text(RECORDER, encoding="utf-8")
    workshop.document["callbacks"] = [{"file": "recorder.py", "on": ["stream"]}]
    workshop.source_settings.update({"checkpoint_records": 2, "batch_size": 2})
    workshop.stream("a", 3, **settings)
    if kept is None or not kept.exists():
        workshop.write()
        assert workshop.run().code == 0
        if kept is not None:
            shutil.copytree(folder, kept)
    workshop.tables["a"]["columns"]["extra"] = "int64"
    workshop.grow("a", 5)
    workshop.tables["a"]["records"][-1]["extra"] = 1
    workshop.write()
    return workshop


def has_column(workshop: Workshop) -> bool:
    if workshop.destination == "postgres":
        with postgres(workshop.url) as connection:
            names = connection.execute("select column_name from information_schema.columns where table_name = 'a'")
            return ("extra",) in names.fetchall()
    with workshop._embedded(workshop.folder / f"destination.{workshop.destination}") as connection:
        columns = connection.execute("select name from pragma_table_info('a')").fetchall()
    return ("extra",) in columns


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("destination", "disposition"),
    [("sqlite", "append"), ("sqlite", "replace"), ("duckdb", "append"), ("postgres", "append")],
)
def test_an_added_column_is_told_of_once_wherever_the_process_dies(
    zygote: Zygote, folder: Path, postgres_url: str, destination: str, disposition: str, injected: Count, is_full: bool
) -> None:
    from tests.faults.test_failpoints import wipe

    found, hits = [], 0
    is_all = is_full or (destination, disposition) == ("sqlite", "append")
    for number, name in enumerate(POINTS if is_all else POINTS[3:7]):
        point = name.format(destination)
        settings = INCREMENTAL if disposition == "append" else {}
        url = postgres_url if destination == "postgres" else ""
        settings = {"write_disposition": disposition, **settings}
        workshop = make(zygote, folder / str(number), destination, url, settings, None if url else folder / "kept")
        reached = workshop.folder / "reached"
        process = workshop.run(failpoint=f"{point}:kill", trace=reached)
        if process.code != -9:
            found.append(f"{point} was not reached: {process.code}, {reached.read_text().split()}")
            continue
        hits += 1
        wanted = 2 if has_column(workshop) else 3
        last = workshop.run()
        told = {
            (call["run"], call["idempotency_key"]) for call in workshop.calls() if call["status"] == "schema_changed"
        }
        if last.code != 0 or [run for run, _ in told] != [wanted]:
            found.append(f"{point}: exit code {last.code}, run {wanted} added the column, told of by {told}")
        if url:
            wipe(url)
    injected(hits)
    assert found == []
