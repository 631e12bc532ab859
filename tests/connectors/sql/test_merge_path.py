"""How a merge runs: the product files between `Destination.load` and the merge's SQL, as the docs list them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pytest

import syncblocks
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.stream import Checkpoint, Event, Stream
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.postgres.postgres_pair import destination as destination
from tests.connectors.postgres.postgres_pair import order, rows, script

ROOT = Path(syncblocks.__file__).parent
DOCS = Path(__file__).parents[3] / "docs" / "connectors.md"

#: Where it is decided how the load goes on.
DECISIONS = ["sql/load/load.py", "sql/load/merge.py", "sql/load/target.py", "postgres/write_statements.py"]

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])
STREAM = Stream(name="s", schema=SCHEMA, key_properties=("id",))


class Entered:
    """Notes the files of the product whose functions are called, until the merge's SQL is sent."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.sql = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        is_import = code.co_name == "__getattr__"  # of a module, for a name that another one imports
        if event != "call" or is_import or self.sql or not code.co_filename.startswith(str(ROOT)):
            return
        file = Path(code.co_filename).relative_to(ROOT).as_posix().removeprefix("connectors/")
        if file not in self.files:
            self.files.append(file)
        sql = frame.f_locals.get("sql", "")
        if code.co_name == "execute" and "insert into" in sql and "_syncblocks_stg_" in sql:
            self.sql = sql


def listed(label: str) -> list[str]:
    """Return the files of one list of the docs' section."""
    section = DOCS.read_text().partition("## How a merge runs")[2].partition("\n## ")[0]
    part = section.partition(f"**{label}**")[2].partition("**")[0]
    return re.findall(r"`((?:[a-z0-9_]+/)*[a-z0-9_]+\.py)`", part)


@pytest.fixture
def entered(postgres_url: str, destination: PostgresDestination) -> Entered:
    script(postgres_url, "create table people (id bigint primary key, name text); insert into people values (1, 'a')")
    load = order(destination, STREAM, "people", WriteDisposition.MERGE)
    batch = pa.RecordBatch.from_pylist([{"id": 1, "name": "b"}, {"id": 2, "name": "c"}], schema=SCHEMA)
    events: list[Event] = [batch, Checkpoint(is_final=True)]
    found = Entered()
    former = sys.getprofile()
    sys.setprofile(found)
    try:
        list(destination.load(load, iter(events)))
    finally:
        sys.setprofile(former)
    assert rows(postgres_url, "select id, name from people order by id") == [(1, "b"), (2, "c")]
    return found


def test_a_merge_enters_the_files_that_the_docs_list(entered: Entered) -> None:
    assert entered.sql, "the merge's SQL was sent"
    decisions, helpers = listed("Decisions"), listed("Helpers")
    assert decisions == DECISIONS
    assert len(decisions) <= 4
    assert not set(decisions) & set(helpers)
    # `arrow/compute.py` keeps what it has loaded, so that only the first merge of a process enters it.
    assert {*entered.files, "arrow/compute.py"} == {*decisions, *helpers}
