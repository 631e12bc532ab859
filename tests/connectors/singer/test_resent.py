"""Records that a tap sends again, recognised by the hashes of the bookmark."""

from __future__ import annotations

import pyarrow as pa

from syncblocks.connectors.singer.resent import ResentRecords


def records(is_merged: bool, bookmark: dict[str, object] | None) -> ResentRecords:
    return ResentRecords("s", "at", bookmark, keys=["id"], is_merged=is_merged)


def test_a_merge_takes_a_record_once_more_for_the_value_of_a_new_column_and_an_append_does_not() -> None:
    narrow, wide = (
        pa.RecordBatch.from_pylist([{"id": 1, "at": 5}]),
        pa.RecordBatch.from_pylist([{"id": 1, "at": 5, "new": 9}]),
    )
    for is_merged in (True, False):
        first = records(is_merged, None)
        first.take(narrow)
        second = records(is_merged, first.at(5, is_complete=True))
        assert second.take(wide).num_rows == is_merged
        third = records(is_merged, second.at(5, is_complete=True))
        assert third.take(wide).num_rows == 0
