"""`kill -9` while older records get the values of a new column: the next run begins the filling again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.sync.run.targets import open_target
from tests.sync.run.test_filling import NEW, START, change, document, run
from tests.zygote import Zygote

pytestmark = pytest.mark.full


@pytest.mark.parametrize("kind", ["duckdb", "mysql"])
@pytest.mark.parametrize("place", ["stream.after_fill_commit:1", "stream.after_fill_commit:2", "{}.commit.before:2"])
@pytest.mark.thinned(1)
def test_killed_the_filling_begins_again(zygote: Zygote, folder: Path, injected: Count, kind: str, place: str) -> None:
    with open_target(kind, folder) as target:
        (folder / "shop.json").write_text(json.dumps(document(target.document)))
        change(folder, *START)
        run(folder, target.document)
        change(folder, *NEW)
        killed = zygote.start(folder, ("run", "shop.json"), failpoint=f"{place.format(kind)}:kill")
        killed.wait()
        assert killed.code == -9, killed.log()[-2000:]
        injected(1)
        run(folder, target.document)
        rows = sorted(target.query("select id, name, color from t"))
        assert rows == [(1, "a", "red1"), (2, "b", "red2"), (3, "c", "new")]
