"""MERGE of changes: the last change of a key counts, deletes remove records, missing values stay unchanged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ...arrow import compute as pc
from ...arrow.casts import cast_array
from ...log_based import DELETE, MARK, MARK_ALL, OPERATION, TRUNCATE, UNCHANGED, UPSERT, plain_columns
from ...stream import DELETED_AT
from ...struct_helpers import replace
from ..identifiers import REMOVED, SEQUENCE
from ..tables import Column, StagingTable
from .events import LoadEvents
from .folded import last_of_each_key
from .ingest import ingest
from .merge import Merge
from .staging import stage_beside

#: Numbers the changes whose values are looked up.
_ROW = "_syncblocks_row"

#: Bytes of changes that wait to be staged at once: the first ones of a transaction, and the others.
_FIRST_BYTES, _LATER_BYTES = 16 << 20, 4 << 20

#: Records that are sent together.
_SENT_RECORDS = 8192


class Changes(Merge):
    """Applies the changes of one load in order; all changes up to a checkpoint share one transaction."""

    def begin(self) -> None:
        """Begin a transaction."""
        super().begin()
        self._waiting, self._waiting_bytes = list[pa.RecordBatch](), 0
        self._has_deletes = self._has_marks = False

    def receive(self, events: LoadEvents) -> None:
        """Stage the changes up to the next marker; apply staged changes early if later ones depend on them."""
        for batch in events.data():
            assert isinstance(batch, pa.RecordBatch)
            first = batch.column(OPERATION)[0].as_py()
            if first in (TRUNCATE, MARK_ALL):
                self._empty() if first == TRUNCATE else self._mark_all(batch)
                continue
            if batch.column(UNCHANGED).null_count < batch.num_rows:
                self._apply()
                batch = self._completed(batch)
            self._waiting.append(batch)
            self._waiting_bytes += batch.nbytes
            if self._waiting_bytes >= (_FIRST_BYTES if self.staged is None else _LATER_BYTES):
                self._stage_waiting()
        self._stage_waiting()  # the next event may be another schema

    def _stage_waiting(self) -> None:
        """Stage the waiting changes; of those that come first, of each key only the last one, where Arrow can tell."""
        if not self._waiting:
            return
        waiting = pa.Table.from_batches(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        has_marks = self._has(waiting, MARK)  # the change before a mark is needed as well
        self._has_deletes |= self._has(waiting, DELETE)
        self._has_marks |= has_marks
        folded = None
        # Of a key whose last record is rejected an earlier one counts.
        if self.staged is None and not has_marks and self.context.rejected is None:
            folded = last_of_each_key(waiting, self.context.load.stream.key_properties)
        has_each_key_once = folded is not None
        sent = waiting if folded is None else folded
        self.records += waiting.num_rows - sent.num_rows
        batches = LoadEvents(iter(sent.to_batches(max_chunksize=_SENT_RECORDS)))
        del waiting, folded, sent
        staged = self.staged = replace(self.stage(), has_each_key_once=has_each_key_once)
        self.records += ingest(self.context, batches, staged.name, staged.types, not_null=self.not_null())

    def lock(self, *, is_final: bool) -> None:
        """Apply what is staged. `write` then only adds columns that the target lacks."""
        self._apply()
        super().lock(is_final=is_final)

    def target_columns(self) -> list[Column]:
        """Return the columns of the stream's records, without the columns that describe the change."""
        own = self._own_names()
        return [column for column in super().target_columns() if column.name in own]

    def _own_names(self) -> set[str]:
        stream, names = self.context.columns.stream, self.context.columns.names
        return {names[name] for name in stream.schema.names[: plain_columns(stream)]}

    def _apply(self) -> None:
        """Bring the changes that have arrived into the target, within the transaction."""
        self._stage_waiting()
        staged, context = self.staged, self.context
        if staged is None:
            return
        if self._has_marks:
            self._mark_staged(staged)
        if self._has_deletes:
            self._delete_staged(staged)
        super().lock(is_final=False)
        self.write()
        self.staged, self._has_deletes, self._has_marks = None, False, False
        self.table = context.target.reflect()

    def _delete_staged(self, staged: StagingTable) -> None:
        """Keep the last change of each key, and apply the deletes among them."""
        context = self.context
        key, quote = context.columns.merge_key(), context.dialect.naming.quote
        source, target = context.dialect.naming.table(staged.name), context.dialect.naming.table(context.target.name)
        operation, session = quote(OPERATION), context.session
        context.target.execute(context.dialect.writes.before_merge())
        if not staged.has_each_key_once:
            context.target.execute([context.dialect.writes.keep_last(staged, key)])
            self.staged = replace(staged, has_each_key_once=True)
        if self.table is not None:
            is_same = " and ".join(f"{self._staged_key(staged, name, 's')} = t.{quote(name)}" for name in key)
            count = session.execute(
                f"delete from {target} as t using {source} as s where {is_same} and s.{operation} = '{DELETE}'"
            )
            self.removed += max(count, 0)
        session.execute(f"delete from {source} where {operation} = '{DELETE}'")

    @staticmethod
    def _has(batch: pa.RecordBatch | pa.Table, operation: str) -> bool:
        return bool(pc.any(pc.equal(batch.column(OPERATION), pc.constant(operation))).as_py())

    def _mark_staged(self, staged: StagingTable) -> None:
        """Mark records whose last change is a mark, in the staging table and in the target."""
        context = self.context
        key, quote, table = context.columns.merge_key(), context.dialect.naming.quote, context.dialect.naming.table
        source, session = table(staged.name), context.session
        columns, number, operation = ", ".join(map(quote, key)), quote(SEQUENCE), quote(OPERATION)
        session.execute(
            f"delete from {source} where {operation} = '{MARK}' and ({columns}, {number}) not in "
            f"(select {columns}, max({number}) from {source} group by {columns})"
        )
        mark = context.columns.names[DELETED_AT]
        for name, condition in ((staged.name, f" and t.{operation} = '{UPSERT}'"), (context.target.name, "")):
            if name == context.target.name and self._mark_column() is None:
                continue
            is_same = " and ".join(
                f"{self._staged_key(staged, each, 's') if not condition else f's.{quote(each)}'} = t.{quote(each)}"
                for each in key
            )
            marking = f"from {source} as s where {is_same} and s.{operation} = '{MARK}'"
            session.execute(
                f"update {table(name)} as t set {quote(mark)} = "
                f"(select {self._staged_key(staged, mark, 's')} {marking}) where exists (select 1 {marking}){condition}"
            )
        self.removed += max(session.execute(f"delete from {source} where {operation} = '{MARK}'"), 0)

    def _staged_key(self, staged: StagingTable, name: str, alias: str) -> str:
        """Write a staged key, cast to the type of the target's column."""
        column, text = staged.columns[name], f"{alias}.{self.context.dialect.naming.quote(name)}"
        return text if staged.types[name] == column.type else f"cast({text} as {column.type})"

    def _empty(self) -> None:
        """Discard the staged changes, and delete all records of the target."""
        self._stage_waiting()
        context = self.context
        if self.staged is not None:
            context.target.execute([context.dialect.tables.drop(self.staged.name)])
            self.staged, self._has_deletes, self._has_marks = None, False, False
        if self.table is not None:
            self.removed += max(
                context.session.execute(f"delete from {context.dialect.naming.table(context.target.name)}"), 0
            )

    def _mark_column(self) -> Column | None:
        """Return the target's column for marks, and add it if it is missing; None: there is no target yet."""
        if self.table is None:
            return None
        target, columns = self.context.target, self.target_columns()
        if target.lacks(self.table, columns):
            self.table = target.evolve(target.lock(self.table) or self.table, columns)
        mark = self.context.columns.names[DELETED_AT]
        return next(each for each in self.table.columns if each.name == mark)

    def _mark_all(self, batch: pa.RecordBatch) -> None:
        """Apply the staged changes, then mark all records of the target that are not marked."""
        self._apply()
        context, column = self.context, self._mark_column()
        if column is None:
            return
        mark = column.name
        moment = pa.table([batch.column(DELETED_AT)], names=[mark])
        staged = stage_beside(context, REMOVED, [column], moment)
        quote, naming = context.dialect.naming.quote, context.dialect.naming.table
        count = context.session.execute(
            f"update {naming(context.target.name)} set {quote(mark)} = (select {quote(mark)} from "
            f"{naming(staged.name)}) where {quote(mark)} is null"
        )
        self.removed += max(count, 0)
        context.target.execute([context.dialect.tables.drop(staged.name)])

    def _completed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Fill the values that changes leave out; the target has them under the former key.

        Raises:
            FatalConnectorError: the target lacks such a record.
        """
        context, table, stream = self.context, self.table, self.context.columns.stream
        listed = {row: json.loads(text) for row, text in enumerate(batch.column(UNCHANGED).to_pylist()) if text}
        names = sorted({name for each in listed.values() for name in each})
        if table is None:
            raise context.error("its table does not exist any more: run again")
        key, own = context.load.stream.key_properties, context.columns.names
        olds = batch.schema.names[plain_columns(stream) + 2 :]
        rows = pa.array(list(listed), pa.int64())
        origins = pa.table(
            [rows, *(batch.column(old).take(rows) for old in olds)], names=[_ROW, *(own[name] for name in key)]
        )
        columns = [column for column in table.columns if column.name in {own[name] for name in key}]
        number = Column(name=_ROW, type=context.dialect.facts.bigint_type)
        staged = stage_beside(
            context, REMOVED, [number, *columns], origins.select([_ROW, *(column.name for column in columns)])
        )
        held = [name for name in names if own[name] in {column.name for column in table.columns}]
        found = self._held(staged, [own[name] for name in key], held)
        context.target.execute([context.dialect.tables.drop(staged.name)])
        # The log leaves out no NULL: one in the table is of a column that was added or renamed.
        for row, (change, left_out) in enumerate(listed.items()):
            values = dict(zip(held, found.get(change, ()), strict=False))
            lacking = [name for name in left_out if values.get(name) is None]
            if change not in found or lacking:
                what = f"no {', '.join(lacking)} in the record" if change in found else "no record"
                shown = ", ".join(f"{name} = {origins.column(own[name])[row].as_py()!r}" for name in key)
                raise context.error(
                    f"the log leaves out {', '.join(left_out)} of a changed record, as its value is unchanged, and the "
                    f"table has {what} of this key ({shown}): `syncblocks state reset` copies the table anew"
                )
        names = held
        filled = {name: {change: found[change][place] for change in listed} for place, name in enumerate(names)}
        arrays = [
            _filled(array, filled[name], {change for change, left_out in listed.items() if name in left_out}, name)
            if name in filled
            else array
            for name, array in zip(batch.schema.names, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)

    def _held(self, staged: StagingTable, key: Sequence[str], names: Sequence[str]) -> dict[int, tuple[Any, ...]]:
        """Look up values in the target: number of a change -> its values; bytes unchanged, other types as text."""
        context, naming = self.context, self.context.dialect.naming
        stream, own = context.columns.stream, context.columns.names
        selected = [f"s.{naming.quote(_ROW)}"]
        for name in names:
            column = f"t.{naming.quote(own[name])}"
            is_bytes = pa.types.is_binary(stream.schema.field(name).type)
            selected.append(column if is_bytes else f"cast({column} as {context.dialect.facts.text_type})")
        is_same = " and ".join(f"{self._staged_key(staged, name, 's')} = t.{naming.quote(name)}" for name in key)
        rows = context.session.query(
            f"select {', '.join(selected)} from {naming.table(staged.name)} as s "
            f"join {naming.table(context.target.name)} as t on {is_same}"
        )
        return {int(row[0]): tuple(row[1:]) for row in rows}


def _filled(array: pa.Array, values: dict[int, Any], places: set[int], name: str) -> pa.Array:
    """Put values into some places of a column."""
    kind = array.type
    storage = array.storage if isinstance(kind, pa.BaseExtensionType) else array
    text = storage.type if pa.types.is_binary(storage.type) else pa.string()
    given = pa.array([values.get(place) if place in places else None for place in range(len(array))], text)
    given = cast_array(given, storage.type, name, "")
    index = [place + len(array) if place in places else place for place in range(len(array))]
    made = pa.concat_arrays([storage, given]).take(pa.array(index, pa.int64()))
    return kind.wrap_array(made) if isinstance(kind, pa.BaseExtensionType) else made


__all__ = ["Changes"]
