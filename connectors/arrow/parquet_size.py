"""How many records of a Parquet file fit into a batch.

The metadata tell the size of values as they are encoded. Decoded, they can be a million times as large: a dictionary
has a value once, however often it stands in the column, and a run of equal numbers is one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

#: Most bytes of a batch whose values are as wide as the widest one.
MOST_BYTES = 16 << 20
#: Records of a batch where the widest value is not known.
_UNSURE_RECORDS = 256
_PROBED_RECORDS = 1024

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "FIXED_LEN_BYTE_ARRAY": 16}
_DICTIONARY = frozenset({"RLE_DICTIONARY", "PLAIN_DICTIONARY"})

#: Opens the file again, such that one column comes as a dictionary.
Reopen = Callable[[str], pyarrow.parquet.ParquetFile]


def fitting_records(
    opened: pyarrow.parquet.ParquetFile,
    groups: Sequence[int] | None,
    size_bytes: int,
    most_records: int,
    reopen: Reopen | None,
) -> int:
    """Return how many records of some row groups have about a size, and never a multiple of `MOST_BYTES`.

    Args:
        opened: the file, with a buffer and without fetching ahead.
        groups: row groups; None: all.
        size_bytes: wanted size of a batch.
        most_records: most records of a batch.
        reopen: see `Reopen`; None: looking into the file costs too much.

    Raises:
        OSError: for a footer that contradicts itself.
    """
    fitting = most_records
    for place in range(opened.metadata.num_row_groups) if groups is None else groups:
        group = opened.metadata.row_group(place)
        columns = _columns(opened, place)
        decoded = sum(max(c.total_uncompressed_size, c.num_values * _WIDTHS.get(c.physical_type, 0)) for c in columns)
        fitting = min(fitting, size_bytes * max(group.num_rows, 1) // max(decoded, 1))
        for number, column in enumerate(columns):
            if column.physical_type != "BYTE_ARRAY" or column.total_uncompressed_size * fitting <= MOST_BYTES:
                continue
            if not _DICTIONARY.isdisjoint(column.encodings):
                # Not the path that the column says: it may be another one, or no text.
                path = opened.metadata.schema.column(number).path
                widest = None if reopen is None else _widest(reopen, path, column, place)
                values = -(-column.num_values // max(group.num_rows, 1))
                known = _UNSURE_RECORDS if widest is None else MOST_BYTES // max(widest * values, 1)
                fitting = min(fitting, known)
            elif "DELTA_BYTE_ARRAY" in column.encodings:
                fitting = min(fitting, _UNSURE_RECORDS)
    return max(1, fitting)


def _columns(opened: pyarrow.parquet.ParquetFile, group: int) -> list[pyarrow.parquet.ColumnChunkMetaData]:
    """Return what the footer says of a row group's columns.

    If the footer of a column contradicts itself, pyarrow's metadata objects end the process, and a reader raises. So a
    reader is made first, for batches of no records: it reads no byte, and takes microseconds a column.
    """
    count = opened.metadata.num_columns
    if count:  # a reader of no columns divides by the size of a batch
        list(opened.reader.iter_batches(0, row_groups=[group]))
    made = opened.metadata.row_group(group)
    return [made.column(number) for number in range(count)]


def _widest(reopen: Reopen, path: str, column: pyarrow.parquet.ColumnChunkMetaData, group: int) -> int:
    """Return the bytes of the widest value in a column's dictionary, or of the whole column."""
    for batch in reopen(path).iter_batches(batch_size=_PROBED_RECORDS, row_groups=[group], columns=[path]):
        for dictionary in _dictionaries(batch.column(0)):
            return int(pc.max(pc.binary_length(dictionary)).as_py())
        break
    return int(column.total_uncompressed_size)


def _dictionaries(array: pa.Array) -> Iterator[pa.Array]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        if len(array.dictionary):
            yield array.dictionary
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from _dictionaries(part)
    elif pa.types.is_map(kind):
        yield from _dictionaries(array.keys)
        yield from _dictionaries(array.items)
    elif pa.types.is_nested(kind) and not pa.types.is_union(kind):
        yield from _dictionaries(array.values)


def joined(batches: Iterable[pa.RecordBatch], size_bytes: int, most_records: int) -> Iterator[pa.RecordBatch]:
    """Join small batches of one schema up to about a size, and to at most so many records."""
    held: list[pa.RecordBatch] = []
    records = size = 0
    for batch in batches:
        if held and (size + batch.nbytes > size_bytes or records + batch.num_rows > most_records):
            yield held[0] if len(held) == 1 else pa.concat_batches(held)
            held, records, size = [], 0, 0
        held.append(batch)
        records += batch.num_rows
        size += batch.nbytes
    if held:
        yield held[0] if len(held) == 1 else pa.concat_batches(held)
