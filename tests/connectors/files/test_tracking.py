"""Which files are new or changed, by what a store says of them."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.connectors.files.local import LocalStorage
from syncblocks.connectors.files.objects import _entry
from syncblocks.connectors.files.paths import DataFile
from syncblocks.connectors.files.storage import Entry, Listing
from syncblocks.connectors.files.tracking import NewFiles, file_read
from syncblocks.connectors.stream import FileRead

AT = datetime(2026, 4, 1, 10, tzinfo=UTC)

#: As s3fs, gcsfs, adlfs, sftp and ftp list a file.
ITEMS: dict[str, dict[str, Any]] = {
    "s3": {"size": 3, "LastModified": AT, "ETag": '"9b2-4"'},
    "gcs": {"size": 3, "updated": "2026-04-01T10:00:00.000Z", "md5Hash": "abc=", "etag": "CJ"},
    "azure": {"size": 3, "last_modified": AT, "etag": "0x8D"},
    "sftp": {"size": 3, "mtime": AT.replace(tzinfo=None)},
    "ftp": {"size": 3, "modify": "20260401100000"},
}


def new(item: dict[str, Any], known: dict[str, Any]) -> list[str]:
    read = file_read(_entry("a.csv", known))
    file = DataFile(LocalStorage.__new__(LocalStorage), "a.csv", listed=_entry("a.csv", item))
    return [each.name for each in NewFiles.among([file], [read]).files]


@pytest.mark.parametrize("store", ITEMS)
def test_a_file_is_changed_if_its_size_or_its_content_is(store: str) -> None:
    item = ITEMS[store]
    assert _entry("a.csv", item).modified == AT
    assert new(item, item) == []
    assert new({**item, "size": 4}, item) == ["a.csv"]
    later = {**item, **{key: "20260402100000" for key in item if key == "modify"}}
    later |= {key: datetime(2026, 4, 2, tzinfo=UTC) for key in ("LastModified", "updated", "last_modified", "mtime")}
    has_hash = bool(_entry("a.csv", item).etag)
    assert new({key: later[key] for key in item}, item) == ([] if has_hash else ["a.csv"]), "the content is the same"
    if has_hash:
        other = {key: "other" for key in ("ETag", "md5Hash", "etag") if key in item}
        assert new({**item, **other}, item) == ["a.csv"], "as large, at the same time, and another content"


def test_names_and_times_of_any_kind_are_compared() -> None:
    torn, plain = Entry("\udcff.csv", 3, AT), Entry("b.csv", 3, AT)
    listing, storage = Listing(), LocalStorage.__new__(LocalStorage)
    for entry in (torn, plain):
        listing.add(entry)

    def found(*known: FileRead) -> list[str]:
        return [
            each.name
            for each in NewFiles(listing, lambda entry: DataFile(storage, entry.name, listed=entry), known).files
        ]

    assert found(file_read(torn), file_read(plain)) == []
    assert found(file_read(plain)) == [torn.name], "the name has bytes that are no text"
    assert found(file_read(torn), file_read(plain)._replace(modified="once")) == [plain.name], "no time that is known"
    assert found(file_read(torn), file_read(plain)._replace(modified="2026-04-01T12:00:00+02:00")) == []
    assert found() == [plain.name, torn.name]


@pytest.mark.skipif(sys.platform == "darwin", reason="there every name is UTF-8")
@pytest.mark.parametrize("is_column", [True, False])
def test_a_name_that_is_no_text_is_told_where_it_is_to_be_kept(tmp_path: Path, is_column: bool) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "torn\udcff.csv").write_text("id\n1\n")
    tracked = {"replication_method": "INCREMENTAL", "bookmark_properties": ["_file_modified"]}
    document = {
        "pipeline": "p",
        "source": {
            "connector": "csv",
            "config": {"path": "data", "streams": {"all": "*.csv"}, "file_columns": is_column},
        },
        "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
        "streams": [{"stream": "all", "write_disposition": "append", **({} if is_column else tracked)}],
    }
    (stream,) = run_pipeline(load_pipeline(document, folder=tmp_path)).streams
    assert re.search(r"torn\\udcff\.csv' is not valid UTF-8: rename the file", stream.error or ""), stream
