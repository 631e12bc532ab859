"""One table in ranges over the workers of a Dask cluster: one snapshot, one commit, many processes."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import Progress
from tests.cluster import Cluster
from tests.sync.pipelines import statuses
from tests.sync.run.test_ranges import Pair

#: Notes who takes a range, past the program.
WATCH = """
create table public.taken (worker text, stream text, range_order text);
create function note() returns trigger language plpgsql as
  $$ begin insert into public.taken values (new.worker, new.stream, new.range_order); return null; end $$;
create trigger note after update of worker on _syncblocks_range_claim for each row execute function note()
"""


class Spread(Pair):
    """The table of a `Pair`, loaded by a cluster's workers."""

    def __init__(self, folder: Path, url: str, cluster: Cluster) -> None:
        super().__init__(folder, url)
        self.document |= {"store": url, "executor": {"dask": cluster.address}}

    def takers(self) -> list[dict[str, Any]]:
        """The processes that took ranges, a line for each range."""
        return [json.loads(worker) for (worker,) in self.execute("select worker from public.taken")]


class Watched(Progress):
    """Begins to note who takes ranges, once the run store is there."""

    def __init__(self, spread: Spread) -> None:
        self.spread = spread

    def run_started(self, run: Any, plan: Any) -> None:
        self.spread.execute(WATCH)


@pytest.fixture
def spread(tmp_path: Path, postgres_url: str, cluster: Cluster) -> Spread:
    return Spread(tmp_path, postgres_url, cluster)


@contextmanager
def written_to(url: str) -> Iterator[list[tuple[int, int, int]]]:
    """Change the table all the time; yield what was done: changed, deleted and added record of each transaction."""
    done: list[tuple[int, int, int]] = []
    begun, ending = threading.Event(), threading.Event()

    def work() -> None:
        chance, ids = random.Random(7), list(range(1, 1001))
        with psycopg.connect(url) as connection:
            while not ending.is_set():
                number = len(done) + 1
                gone = ids.pop(chance.randrange(len(ids)))
                changed = chance.choice(ids)
                ids.append(10_000 + number)
                connection.execute("update src.t set v = %s where id = 0", [str(number)])
                connection.execute("update src.t set v = v || '!' where id = %s", [changed])
                connection.execute("delete from src.t where id = %s", [gone])
                connection.execute("insert into src.t values (%s, 'new')", [ids[-1]])
                connection.commit()
                done.append((changed, gone, ids[-1]))
                begun.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        yield done
    finally:
        ending.set()
        thread.join()


def test_workers_read_one_moment_of_a_table_that_is_written_to(spread: Spread) -> None:
    spread.execute("insert into src.t values (0, '0')")
    expected = dict(spread.execute("select id, v from src.t"))
    with written_to(spread.url) as done:
        result = spread.run(Watched(spread))
    assert statuses(result) == {"src.t": "success"}
    found = dict(spread.execute("select id, v from public.t"))
    moment = int(found[0])
    assert 0 < moment < len(done), "it was written to before and after the snapshot"
    for changed, gone, added in done[:moment]:
        expected[changed] += "!"
        del expected[gone]
        expected[added] = "new"
    assert found == {**expected, 0: str(moment)}
    assert spread.execute("select count(*) from public.t") == [(1001,)]
    takers = spread.takers()
    assert len(takers) > 3
    assert len({taker["pid"] for taker in takers}) >= 2
    assert spread.execute("select count(*) from _syncblocks_range_claim") == [(0,)]
    assert spread.leftovers() == []
