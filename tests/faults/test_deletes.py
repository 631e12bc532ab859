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


@pytest.mark.full
@pytest.mark.one_of
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


#: Where the process dies, and whose deletion is made by then.
JOINED_PLACES = {
    "stream.before_deletes:1": [],
    "stream.before_deletes:2": [],
    "{}.commit.inside:5": [],
    "{}.commit.after:5": ["child"],
    "stream.after_commit:3": ["child"],
    "{}.commit.before:4": ["child"],
    "{}.commit.after:6": ["child", "parent"],
}


@pytest.mark.full
@pytest.mark.thinned(1)
@pytest.mark.parametrize("place", JOINED_PLACES)
@pytest.mark.parametrize("kind", ["postgres", "mysql"])
@pytest.mark.parametrize("action", ["kill", "sigterm"])
def test_a_kill_between_deletes_that_foreign_keys_join_leaves_each_whole(
    zygote: Zygote, folder: Path, injected: Count, kind: str, action: str, place: str
) -> None:
    with open_target(kind, folder) as target:
        (folder / "seen.py").write_text(
            "from pathlib import Path\n\n"
            "@callback('success')\n@callback('failure')\n@callback('cancelled')\n"
            "def seen(pipeline_run, index, is_last_block_run, **kwargs):\n"
            "    with Path(__file__).with_suffix('.log').open('a') as log:\n"
            "        log.write(f'{pipeline_run.id} {index} {is_last_block_run}\\n')\n"
        )
        document = {
            "pipeline": "shop",
            "source": {"connector": "sqlite", "config": {"path": "source.db"}},
            "destination": target.document,
            "callbacks": [{"file": "seen.py"}],
            "streams": [
                {"stream": name, "write_disposition": "merge", "key_properties": ["id"], "deletes": "hard"}
                for name in ("child", "parent")
            ],
        }
        (folder / "shop.json").write_text(json.dumps(document))
        change(
            folder,
            "create table parent (id integer primary key)",
            "create table child (id integer primary key, p integer)",
            "insert into parent values (1), (2)",
            "insert into child values (1, 1), (2, 2)",
        )
        target.query("create table parent (id bigint primary key)")
        target.query("create table child (id bigint primary key, p bigint, foreign key (p) references parent (id))")

        def run(failpoint: str = "") -> int | None:
            process = zygote.start(folder, ("run", "shop.json"), **({"failpoint": failpoint} if failpoint else {}))
            process.wait()
            assert failpoint or process.code == 0, process.log()[-3000:]
            return process.code

        def ids(name: str) -> list[int]:
            return sorted(row[0] for row in target.query(f"select id from {name}"))

        run()
        change(folder, "delete from child where id = 2", "delete from parent where id = 2")
        code = run(f"{place.format(kind)}:{action}")
        injected(1)
        assert ids("child") in ([1], [1, 2])
        if action == "kill":
            assert code == -signal.SIGKILL
            assert {name: ids(name) for name in ("child", "parent")} == {
                name: [1] if name in JOINED_PLACES[place] else [1, 2] for name in ("child", "parent")
            }
        run()
        assert (ids("child"), ids("parent")) == ([1], [1])
        ended: dict[str, list[tuple[str, ...]]] = {}
        for line in (folder / "seen.log").read_text().splitlines():
            number, *what = line.split()
            ended.setdefault(number, []).append(tuple(what))
        # A call whose end a kill has cut off is made again.
        assert all(sorted(set(each)) == [("0", "False"), ("1", "True")] for each in ended.values())
        assert len(ended) == 3
