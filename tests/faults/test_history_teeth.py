"""Former mistakes, put back one by one: the histories find each of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.files.source import FileSource
from syncblocks.connectors.incremental import bookmarks, window
from syncblocks.connectors.incremental.committed import CommittedVersions
from syncblocks.connectors.sql.identifiers import Naming
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.flow.spool import Spool
from syncblocks.sync.plan import stream_planning
from syncblocks.sync.plan.columns import table_columns
from syncblocks.sync.plan.evolution import Ignored
from syncblocks.sync.verify import repair, verification
from tests.faults.histories import History, drawn
from tests.faults.test_histories import Bench

pytestmark = pytest.mark.full

Patch = pytest.MonkeyPatch

#: Histories without a server are enough, and take a second each.
EMBEDDED = ("sqlite", "duckdb", "csv", "jsonl")
MOST = 12


def every_version_counts_as_committed(patch: Patch) -> None:
    """A record that goes back to a former value at its bookmark is lost."""
    begin = CommittedVersions.__init__

    def init(self: Any, versions: Iterable[Any] = (), **options: Any) -> None:
        self.all = list(versions)
        begin(self, self.all, **options)

    def unread(self: Any, *, is_complete: bool) -> list[Any]:
        return list(self.all)

    def is_replaced(_self: Any, _key: Any) -> bool:
        return False

    patch.setattr(CommittedVersions, "__init__", init)
    patch.setattr(CommittedVersions, "unread", unread)
    patch.setattr(CommittedVersions, "is_replaced", is_replaced)


def a_column_belongs_to_the_first_name(patch: Patch) -> None:
    """Of names that differ by case only, the first one takes the column that is there."""

    def column_names(
        self: Naming, names: Sequence[str], held: Sequence[str] = (), _known: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        spelled = {self.fold(column): column for column in held}
        taken: set[str] = set()
        found = {}
        for name in names:
            column = self.plain(name) if self.fold(self.plain(name)) not in taken else self.marked(name)
            taken.add(self.fold(column))
            found[name] = spelled.get(self.fold(column), column)
        return found

    patch.setattr(Naming, "column_names", column_names)


def ignore_leaves_out_what_the_file_renames(patch: Patch) -> None:
    """`on_schema_change: ignore` leaves out what the table lacks, whoever has added it."""

    def ignored(stream: Any, arriving: Any, _before: Any, rules: Any, **_: Any) -> Ignored:
        needed = {*table_columns(arriving, rules), *arriving.key_properties, *arriving.read.bookmark_properties}
        found = zip(stream.schema.names, arriving.schema.names, strict=True)
        return Ignored(columns=frozenset(own for own, name in found if name not in needed))

    patch.setattr(stream_planning, "ignored", ignored)


def verify_compares_what_is_never_read(patch: Patch) -> None:
    """The comparison and its repair know nothing of `null_bookmarks`."""
    for module in (bookmarks, repair, window, verification):
        patch.setattr(module, "leaves_out_incomplete", lambda *_: False)
    patch.setattr(verification, "_unread_columns", lambda _: frozenset())


def counts_fail_at_a_malformed_line(patch: Patch) -> None:
    """`verify` does not know of `on_rejected` where it only counts."""

    def count(self: FileSource, stream: Stream) -> int:
        events = self.read([replace(stream, read=replace(stream.read, max_rejected=None))], {stream.name: None})
        return sum(event.num_rows for _, event in events if isinstance(event, pa.RecordBatch))

    patch.setattr(FileSource, "count", count)


def callbacks_get_rejected_records(patch: Patch) -> None:
    """The data of callbacks is what was sent, not what was written."""
    patch.setattr(Spool, "leave_out", lambda *_: None)


#: Mistake -> values of options under which it shows.
MISTAKES: Mapping[Callable[[Patch], None], Mapping[str, Collection[Any]]] = {
    every_version_counts_as_committed: {"change": ("former value",), "method": ("INCREMENTAL",)},
    a_column_belongs_to_the_first_name: {
        "case": ("one then both", "another order"),
        "destination": ("sqlite", "duckdb"),
    },
    ignore_leaves_out_what_the_file_renames: {"on_schema_change": ("ignore",), "transformer": ("rename later",)},
    verify_compares_what_is_never_read: {"null_bookmarks": ("never", "once"), "change": ("null bookmark",)},
    counts_fail_at_a_malformed_line: {
        "change": ("malformed line",),
        "transformer": ("function", "function fails once"),
    },
    callbacks_get_rejected_records: {"change": ("null key",), "callbacks": ("data", "input")},
}


@cache
def embedded() -> list[History]:
    found = drawn("teeth", 400)
    return [each for each in found if {each.options["source"], each.options["destination"]} <= set(EMBEDDED)]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_history_finds_a_former_mistake(
    tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture, mistake: Callable[[Patch], None]
) -> None:
    caplog.set_level(logging.CRITICAL)
    telling = [each for each in embedded() if all(each.options[k] in v for k, v in MISTAKES[mistake].items())][:MOST]
    with monkeypatch.context() as patch:
        mistake(patch)
        found = next((number for number, each in enumerate(telling) if _is_wrong(tmp_path, number, each)), None)
    assert found is not None, f"none of {len(telling)} histories finds it"
    assert not _is_wrong(tmp_path, MOST + found, telling[found]), "without the mistake nothing is wrong"


def _is_wrong(folder: Path, number: int, history: History) -> bool:
    place = folder / str(number)
    place.mkdir()
    bench = Bench(place, number, history, {})
    bench.live()
    return bool(bench.wrong)
