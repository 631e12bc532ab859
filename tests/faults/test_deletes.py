"""`kill -9` around the transaction that deletes what the source no longer has: it is made whole, or not at all."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.sync.run.targets import Target, open_target
from tests.zygote import Zygote


def write(folder: Path, target: Target, mode: str) -> Path:
    document = {
        "pipeline": "shop",
        "source": {"connector": "sqlite", "config": {"path": "source.db"}},
        "destination": target.document,
        "streams": [
            {
                "stream": "t",
                "replication_method": "INCREMENTAL",
                "bookmark_properties": ["id"],
                "key_properties": ["id"],
                "deletes": {"mode": "soft" if mode == "history" else mode, "every": "1d"},
                "write_disposition": "history" if mode == "history" else "merge",
            }
        ],
    }
    path = folder / "shop.json"
    path.write_text(json.dumps(document))
    return path


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "source.db")) as database:
        for sql in statements:
            database.execute(sql)
        database.commit()


def live(target: Target, mode: str) -> list[int]:
    where = {"soft": " where _deleted_at is null", "history": " where _valid_to is null"}.get(mode, "")
    try:
        return sorted(row[0] for row in target.query(f"select id from t{where}"))
    except Exception:  # the first mark makes the column
        return sorted(row[0] for row in target.query("select id from t"))


#: Where the process dies, and whether the transaction is made by then.
PLACES = {
    "stream.before_deletes:1": False,
    "{}.commit.before:2": False,
    "{}.commit.inside:3": False,
    "{}.commit.after:3": True,
    "stream.after_commit:2": True,
}


@pytest.mark.thinned(1)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "postgres", "mysql"])
@pytest.mark.parametrize("mode", ["hard", "soft", "history"])
def test_a_kill_around_the_deletes_makes_all_of_them_or_none(
    zygote: Zygote, folder: Path, injected: Count, kind: str, mode: str, place: str
) -> None:
    with open_target(kind, folder) as target:
        file = write(folder, target, mode)
        change(folder, "create table t (id integer primary key)", "insert into t values (1), (2), (3), (4), (5)")

        def run(*more: str, failpoint: str = "") -> int | None:
            process = zygote.start(folder, ("run", file.name, *more), **({"failpoint": failpoint} if failpoint else {}))
            process.wait()
            assert failpoint or process.code == 0, process.log()[-3000:]
            return process.code

        run()
        change(folder, "delete from t where id in (2, 4)", "insert into t values (6)")
        assert run("--deletes", failpoint=f"{place.format(kind)}:kill") == -signal.SIGKILL
        injected(1)
        is_made = PLACES[place]
        assert live(target, mode) == ([1, 3, 5, 6] if is_made else [1, 2, 3, 4, 5, 6])
        # The time of the last comparison is that of the last transaction that was made.
        run("--deletes")
        assert live(target, mode) == [1, 3, 5, 6]
        assert len(target.query("select id from t")) == (4 if mode == "hard" else 6)
