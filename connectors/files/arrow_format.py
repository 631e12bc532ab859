"""Arrow IPC files, which are Feather files of version 2 as well, and IPC streams. They are read, not written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.batch_validation import DAMAGE, demand_valid, has_union, is_odd
from ..arrow.conform import reason, shown
from ..arrow.flatten import flat_schema, leaf_of, path_of
from ..arrow.times import is_fine
from ..arrow.type_names import yaml_text
from ..errors import FatalConnectorError
from .foreign_types import own_columns
from .formats import sliced
from .paths import DataFile
from .read_rejections import ReadRejections
from .settings import BLOCK_BYTES
from .split_files import Unit
from .typed_format import TypedFormat

#: What the files begin with; a stream begins with its schema.
_FILE, _OLD_FEATHER = b"ARROW1", b"FEA1"
_NS_OF_US = 1_000


class ArrowFormat(TypedFormat):
    """Batches of Arrow, in a file with an index at its end or one after the other."""

    suffix = "arrow"
    suffixes: Sequence[str] = (".arrow", ".feather", ".ipc", ".arrows")

    def own_schema(self, file: DataFile) -> pa.Schema:
        """Return a file's columns."""
        with _opened(file) as reader:
            return self._flattened(file, reader.schema)

    def _flattened(self, file: DataFile, schema: pa.Schema) -> pa.Schema:
        try:
            odd = next((field for field in schema if is_odd(field.type)), None)
            twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
            found = flat_schema(own_columns(schema), file.levels, file.label)
        except UnicodeDecodeError as error:
            raise FatalConnectorError(f"{file.label}: a column's name is not a text: {error}") from error
        if odd is not None:
            raise FatalConnectorError(f"{file.label}: column {shown(odd.name)} has an unsupported type: {odd.type}")
        if twice:
            raise FatalConnectorError(
                f"{file.label}: column {shown(twice[0])} exists twice: correct the program that writes the file"
            )
        return found

    def read(
        self, file: DataFile, wanted: pa.Schema, known: frozenset[str], rejected: ReadRejections | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the records of each batch, in parts of about a block."""
        with _opened(file) as reader:
            own = self._flattened(file, reader.schema)
            self.refuse_other_types(file, own, wanted)
            present = [field for field in own if field.name in wanted.names]
            union = next((field for field in present if has_union(field.type)), None)
            if union is not None:
                raise FatalConnectorError(
                    f"{file.label}: column {shown(union.name)} is {union.type}, and unions cannot be read: write "
                    "one column for each of its types, or exclude it with `columns: {exclude: "
                    f"[{yaml_text(union.name)}]}}`"
                )
            for batch in _batches(file, reader):
                size = max(1, BLOCK_BYTES * batch.num_rows // max(batch.nbytes, 1))
                for part in sliced(batch, min(size, self._settings.batch_size)):
                    found = [(field.name, leaf_of(part, path_of(field))) for field in present]
                    columns = {name: _plain(column) for name, column in found if column is not None}
                    yield self.fitted(file, pa.record_batch(columns) if columns else part.select([]), wanted)

    def nanoseconds(self, file: DataFile, names: Sequence[str]) -> frozenset[str]:
        """Return those of some columns of nanoseconds that have a digit below the microsecond; reads all values."""
        found: set[str] = set()
        with _opened(file) as reader:
            present = [
                name for name in names if name in reader.schema.names and is_fine(reader.schema.field(name).type)
            ]
            for batch in _batches(file, reader) if present else ():
                for name in present:
                    numbers = _plain(batch.column(name)).cast(pa.int64())
                    whole = pc.multiply(pc.divide(numbers, _NS_OF_US), _NS_OF_US)
                    if pc.any(pc.not_equal(numbers, whole)).as_py():
                        found.add(name)
        return frozenset(found)

    def count(self, file: DataFile) -> int:
        """Count the records."""
        with _opened(file) as reader:
            return sum(batch.num_rows for batch in _batches(file, reader))

    def unit(self, file: DataFile) -> Unit:
        return ""

    def split(self, file: DataFile, count: int, range_bytes: int) -> list[tuple[DataFile, str]]:
        """Read every file as a whole."""
        return [(file, file.label)]


def _plain(column: pa.Array) -> pa.Array:
    """Return a column without run ends, which no cast knows, and without a dictionary, whose texts nobody checks."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    return pc.run_end_decode(column) if pa.types.is_run_end_encoded(column.type) else column


@contextmanager
def _opened(file: DataFile) -> Iterator[pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
    with file.open_raw() as raw:
        try:
            start = raw.read(len(_FILE))
            raw.seek(0)
            source = pa.PythonFile(raw, mode="r")
            reader = pa.ipc.open_file(source) if start == _FILE else pa.ipc.open_stream(source)
        except (*DAMAGE, ValueError) as error:
            if start.startswith(_OLD_FEATHER):
                why = "is a Feather file of version 1: rewrite it with pyarrow.feather.write_feather"
                raise FatalConnectorError(f"{file.label}: {why}") from error
            raise FatalConnectorError(f"{file.label}: not an Arrow IPC file: {reason(error)}") from error
        yield reader


def _batches(file: DataFile, reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    """Yield the batches, each of them checked: a damaged one would be read past its end."""
    try:
        if isinstance(reader, pa.RecordBatchFileReader):
            batches: Iterator[pa.RecordBatch] = (reader.get_batch(n) for n in range(reader.num_record_batches))
        else:
            batches = iter(reader)
        for batch in batches:
            demand_valid(batch)
            if batch.num_rows:  # of an empty union Arrow tells no size, but ends the process
                yield batch
    except DAMAGE as error:
        raise FatalConnectorError(f"{file.label}: cannot be read: {reason(error)}") from error


__all__ = ["ArrowFormat"]
