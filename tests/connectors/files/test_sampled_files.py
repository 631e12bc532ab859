"""A folder of many files: some are opened before the load, the others by it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.field_facts import notices_of
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.split_files import SAMPLE_FILES, sampled
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.files.files_pair import only, records_of

FILES = range(SAMPLE_FILES + 20)
#: Number of a file that is not looked at.
OTHER = f"{next(number for number in FILES if number not in sampled(FILES)):03}"  # type: ignore[arg-type]


def test_a_sample_has_the_first_and_the_last_file_and_no_file_twice() -> None:
    for count in (1, SAMPLE_FILES, SAMPLE_FILES + 1, 12_345):
        found = sampled(range(count))  # type: ignore[arg-type]  # any sequence
        assert (found[0], found[-1], len(found)) == (0, count - 1, min(count, SAMPLE_FILES))
        assert sorted(set(found)) == list(found)  # type: ignore[type-var]


def test_a_file_that_was_not_looked_at_adds_its_columns_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for number in FILES:
        (tmp_path / "m" / f"{number:03}.csv").write_text("id,v\n1,2\n")
    odd = tmp_path / "m" / f"{OTHER}.csv"
    odd.write_text("id,extra\n1,x\n")
    source = CSVSource({"path": str(tmp_path), "types": {"extra": "string"}}, tmp_path)
    stream = only(source)
    assert (stream.schema.names, stream.sampled_files) == (["id", "v"], (SAMPLE_FILES, len(FILES)))
    assert "no stream has a column 'extra'" in notices_of(stream.schema)[0]
    events = [event for _, event in source.read([stream], {})]
    assert [event.schema.names for event in events if isinstance(event, Stream)] == [["id", "v", "extra"]]
    assert sum(event.num_rows for event in events if isinstance(event, pa.RecordBatch)) == len(FILES)
    odd.write_text("id,v\n1.5,2\n")
    with pytest.raises(FatalConnectorError, match=rf"{odd.name}:2: column 'id': '1\.5' is no int64; `types: "):
        records_of(source, stream)


@pytest.mark.parametrize(("kind", "said"), [("csv", "id,v,v2,w\n1,2,3,4\n"), ("jsonl", '{"id":1,"v2":3,"w":4}\n')])
def test_settings_of_columns_hold_for_those_of_files_that_were_not_looked_at(
    kind: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / f"1.{kind}").write_text("id,v\n1,2\n" if kind == "csv" else '{"id":1,"v":2}\n')
    stream = only(source := (CSVSource if kind == "csv" else JSONLSource)({"path": str(tmp_path)}, tmp_path))
    (tmp_path / "m" / f"2.{kind}").write_text(said)
    for settings, found in (({"included": ("id", "v")}, {"id", "v"}), ({"excluded": ("v?",)}, {"id", "v", "w"})):
        chosen = replace(stream, read=replace(stream.read, **settings))
        events = [event for _, event in source.read([chosen], {}) if isinstance(event, pa.RecordBatch)]
        assert set().union(*(event.schema.names for event in events)) == found
