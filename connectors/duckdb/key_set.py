"""A set of keys in DuckDB, as canonical texts: finds records of the other side whose keys are in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from ..arrow import compute as pc
from ..compared_values import ComparedColumn
from ..errors import FatalConnectorError
from .checksums import DuckDBCanonical
from .record_checksums import MEMORY_BYTES, carry, numbered, scratch_database

#: Column with a record's position in its batch.
_PLACE = "place"


@contextmanager
def open_key_set(key: Sequence[ComparedColumn], memory_bytes: int = MEMORY_BYTES) -> Iterator[KeySet]:
    """Open an empty set; the context closes it.

    Args:
        key: key columns of the side whose keys are added.
        memory_bytes: memory limit before it spills to disk.
    """
    with scratch_database(memory_bytes) as connection:
        yield KeySet(connection, key)


class KeySet:
    """Keys of one side of a comparison."""

    def __init__(self, connection: Any, key: Sequence[ComparedColumn]) -> None:
        self._connection = connection
        self._key = key
        self._canonical = DuckDBCanonical()

    def fill(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Replace the set by the keys of some records; return the number of records."""
        count = 0
        columns = ", ".join(f"k{number} varchar" for number in range(len(self._key)))
        self._run(f"create or replace table keys ({columns})")
        for batch in batches:
            count += batch.num_rows
            self._over(batch, self._key, f"insert into keys select {self._texts(self._key)} from incoming as t")
        return count

    def remove(self, batch: pa.RecordBatch, key: Sequence[ComparedColumn]) -> None:
        """Remove the keys of some records of the other side; arguments as in `contains`."""
        texts = ", ".join(f"{text} as k{number}" for number, text in enumerate(self._texts_of(key)))
        same = " and ".join(f"i.k{number} = k.k{number}" for number in range(len(key)))
        self._over(batch, key, f"delete from keys as k using (select {texts} from incoming as t) as i where {same}")

    def count(self) -> int:
        """Return the number of keys."""
        return int(self._run("select count(*) as number from keys")["number"][0])

    def contains(self, batch: pa.RecordBatch, key: Sequence[ComparedColumn]) -> pa.Array:
        """Return for each record of the other side whether its key is in the set.

        Args:
            batch: the records.
            key: the other side's key columns, in the order of the set's.
        """
        import numpy as np

        texts = ", ".join(f"{text} as k{number}" for number, text in enumerate(self._texts_of(key)))
        same = " and ".join(f"i.k{number} = k.k{number}" for number in range(len(key)))
        found = self._over(
            batch,
            key,
            f"select {_PLACE} from (select {_PLACE}, {texts} from incoming as t) as i semi join keys as k on {same}",
        )
        flags = np.zeros(batch.num_rows, dtype=np.uint8)
        if found is not None:
            flags[found[_PLACE]] = 1
        return pc.equal(pa.Array.from_buffers(pa.uint8(), batch.num_rows, [None, pa.py_buffer(flags)]), pc.constant(1))

    def _texts(self, key: Sequence[ComparedColumn]) -> str:
        return ", ".join(self._texts_of(key))

    def _texts_of(self, key: Sequence[ComparedColumn]) -> list[str]:
        return [self._canonical.text(f"t.{column.name}", column) for column in numbered(key, 0)]

    def _over(self, batch: pa.RecordBatch, key: Sequence[ComparedColumn], sql: str) -> Any:
        """Run a statement over the keys of some records, `incoming`; return its result, None without records."""
        if not batch.num_rows:
            return None
        columns = numbered(key, 0)
        arrays = [carry(batch.column(own.name), column) for own, column in zip(key, columns, strict=True)]
        place = pa.array(range(batch.num_rows), pa.int64())
        names = [*(column.name for column in columns), _PLACE]
        self._connection.register("incoming", pa.table([*arrays, place], names=names))
        try:
            return self._run(sql)
        finally:
            self._connection.unregister("incoming")

    def _run(self, sql: str) -> Any:
        import duckdb

        try:
            return self._connection.execute(sql).fetchnumpy()
        except duckdb.Error as error:
            raise FatalConnectorError(f"keys cannot be compared: {error}") from error


__all__ = ["KeySet", "open_key_set"]
