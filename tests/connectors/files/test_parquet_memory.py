"""What is held of a Parquet file while it is read: some pages of each column, and of one in a store little more."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from syncblocks.connectors.arrow.parquet_size import fitting_records
from syncblocks.connectors.files.local import LocalStorage
from syncblocks.connectors.files.parquet_format import ParquetFormat, _Opened
from syncblocks.connectors.files.paths import DataFile
from syncblocks.connectors.files.ranges import part_of
from syncblocks.connectors.files.storage import Storage
from tests.peaks import peak_of_code

COLUMNS = 8

#: With the allocator that the command line has.
READ = """import os, sys
from pathlib import Path
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
from syncblocks.connectors.files.parquet_format import ParquetFormat, _Opened
from syncblocks.connectors.files.paths import DataFile
from syncblocks.connectors.arrow.parquet_size import fitting_records
from syncblocks.connectors.files.local import LocalStorage
made, file = ParquetFormat(), DataFile(LocalStorage(Path(sys.argv[1])), sys.argv[2])
wanted = made.footer(file).schema
assert sum(batch.num_rows for batch in made.read(file, wanted, frozenset())) == int(sys.argv[3])"""


def write(path: Path, records: int, group: int) -> pa.Table:
    """Write columns of 100 bytes a record that nothing makes smaller, in row groups of so many records."""
    texts = pa.array([f"{number:0100}" for number in range(records)])
    table = pa.table({f"c{place}": texts for place in range(COLUMNS)})
    pyarrow.parquet.write_table(table, path, row_group_size=group, use_dictionary=False, compression="none")
    return table


@pytest.mark.full
def test_a_row_group_of_any_size_is_read_by_its_pages(tmp_path: Path) -> None:
    write(tmp_path / "small.parquet", 1000, 1000)
    write(tmp_path / "large.parquet", 150_000, 150_000)
    size = (tmp_path / "large.parquet").stat().st_size
    assert size > 100_000_000
    base = peak_of_code(READ, tmp_path, str(tmp_path), "small.parquet", "1000")
    assert peak_of_code(READ, tmp_path, str(tmp_path), "large.parquet", "150000") - base < size // 2


#: Tables of 80 MB and more that are small files.
BOMBS: dict[str, Callable[[], tuple[pa.Table, dict[str, Any]]]] = {
    "one wide text": lambda: (
        pa.table(
            {"t": pa.DictionaryArray.from_arrays(pa.array([None, *[0] * 99], pa.int32()), pa.array(["a" * 1_000_000]))}
        ),
        {"store_schema": False},
    ),
    "one wide JSON text": lambda: (pa.table({"t": pa.array(['"' + "a" * 1_000_000 + '"'] * 100, pa.json_())}), {}),
    "equal numbers": lambda: (pa.table({"l": pa.array([np.full(1_000_000, 7)] * 10)}), {}),
    "long prefixes": lambda: (
        pa.table({"t": ["b" * 40_000] * 2000}),
        {"use_dictionary": False, "column_encoding": {"t": "DELTA_BYTE_ARRAY"}},
    ),
}


#: How wide a text of a dictionary is, is not looked up in a store: there are at most 256 records a batch.
@pytest.mark.parametrize(
    ("case", "form"),
    [(case, form) for case in BOMBS for form in ("local", "stored") if form == "local" or "wide" not in case],
)
def test_a_small_file_of_many_bytes_is_read_in_small_batches(case: str, form: str, tmp_path: Path) -> None:
    table, options = BOMBS[case]()
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", compression="zstd", **options)
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    made, _, file = stored(tmp_path / "t.parquet")
    if form == "local":
        file = DataFile(LocalStorage(tmp_path), "t.parquet")
    sizes, records = [], 0
    for batch in made.read(file, made.footer(file).schema, frozenset()):
        sizes.append(batch.nbytes)
        records += batch.num_rows
    assert records == table.num_rows
    assert max(sizes) <= 17 << 20


def test_json_of_few_values_is_read_in_whole_batches(tmp_path: Path) -> None:
    texts = pa.array(['{"channel": "web"}', "[1, 2]"] * 20_000, pa.json_())
    pyarrow.parquet.write_table(pa.table({"doc": texts}), tmp_path / "t.parquet")
    file = DataFile(LocalStorage(tmp_path), "t.parquet")
    source = _Opened(file)
    with source as opened:
        assert fitting_records(opened, None, 4 << 20, 65_536, source.with_dictionary) == 65_536


class Store:
    """A storage elsewhere: counts what is fetched."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.fetched: list[int] = []

    def open_input(self, name: str) -> BinaryIO:
        fetched = self.fetched

        class Counted(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(size)
                fetched.append(len(data))
                return data

        return Counted(self._data)

    def label(self, name: str) -> str:
        return name


def stored(path: Path, **changes: Any) -> tuple[ParquetFormat, Store, DataFile]:
    store = Store(path.read_bytes())
    made = ParquetFormat()
    for name, value in changes.items():
        setattr(made, name, value)
    return made, store, DataFile(cast("Storage", store), "t.parquet")


def test_a_file_in_a_store_is_fetched_some_row_groups_at_a_time(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", 20_000, 1_000)  # 20 of 0.8 MB
    made, store, file = stored(tmp_path / "t.parquet", ahead_bytes=3_000_000)
    batches = made.read(file, table.schema, frozenset())
    found = [next(batches)]
    assert 2_000_000 < sum(store.fetched) < 4_000_000
    assert len(store.fetched) < 3 * COLUMNS + 10
    assert pa.Table.from_batches([*found, *batches]).equals(table)
    part = part_of(file, groups=(3, 4, 19))
    records = pa.Table.from_batches(made.read(part, table.schema, frozenset()))
    assert records.equals(pa.concat_tables([table.slice(3000, 2000), table.slice(19000)]))


def test_a_row_group_too_large_to_be_fetched_ahead_is_fetched_by_and_by(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", 100_000, 100_000)
    made, store, file = stored(tmp_path / "t.parquet", ahead_bytes=3_000_000)
    batches = made.read(file, table.schema, frozenset())
    found = [next(batches)]
    assert sum(store.fetched) < 45_000_000  # of 82 MB: 4 MB of each column
    assert pa.Table.from_batches([*found, *batches]).equals(table)
