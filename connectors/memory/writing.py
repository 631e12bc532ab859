"""Compute the table after a commit from the table and the staged batches. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import FatalConnectorError
from ..filters import without_deleted
from ..replace_range import RangeWatch
from ..stream import DELETED_AT, Checkpoint, Load, RejectedRecord
from ..write_spec import ConflictMethod, WriteDisposition, WriteSpec

#: Of records with the same key none counts more than another.
_WITHOUT_REPEATS = (WriteDisposition.REPLACE, WriteDisposition.REPLACE_RANGE)


def written_table(
    load: Load,
    schema: pa.Schema,
    staged: Sequence[pa.RecordBatch],
    old: pa.Table | None,
    checkpoint: Checkpoint,
    rejected: Sequence[RejectedRecord] = (),
) -> pa.Table:
    """Return the table with the staged batches written: appended, in its place or a range's, or merged by key."""
    if load.fills and old is not None and not staged:
        return old
    if old is None or load.write.disposition is WriteDisposition.REPLACE:
        old = schema.empty_table()
    try:
        schemas = [old.schema, schema, *(batch.schema for batch in staged)]
        wide = pa.unify_schemas([_nullable(each) for each in schemas], promote_options="permissive")
        old = _widened(old, wide)
        new = pa.concat_tables(
            [_widened(pa.Table.from_batches([batch]), wide) for batch in staged] or [old.slice(0, 0)]
        )
    except pa.ArrowException as error:
        raise FatalConnectorError(
            f"table {load.key.destination_table!r} cannot store the stream's columns: {error}", stream=load.key.stream
        ) from error
    if load.write.disposition is WriteDisposition.REPLACE_RANGE:
        old = _outside(load, old, new, checkpoint, rejected)
        if load.write.latest_by:
            keys = keys_of(new, load.stream.key_properties)
            found = _latest(load.write, {}, new.slice(0, 0), new, keys)
            new = new.take(pa.array(sorted(found.values()), pa.int64()))
    if load.write.disposition in _WITHOUT_REPEATS and load.stream.key_properties:
        keys = keys_of(new, load.stream.key_properties)
        if len(set(keys)) < len(keys) or any(None in key for key in keys):
            raise FatalConnectorError(
                f"records of {load.key.stream!r} have the same key, or none", stream=load.key.stream
            )
    if load.write.disposition is WriteDisposition.REPLACE:
        return without_deleted(new, load.write.deleted_when)
    if load.write.disposition is not WriteDisposition.MERGE:
        return pa.concat_tables([old, new])
    if load.fills:
        return _filled(load, old, new)
    if checkpoint.is_final and load.removed is not None:
        old = _without(old, load)
    if checkpoint.is_final and load.marked is not None:
        old = _marked(old, load)
    return _merged(load, old, new)


def _outside(
    load: Load, old: pa.Table, new: pa.Table, checkpoint: Checkpoint, rejected: Sequence[RejectedRecord]
) -> pa.Table:
    """Return the records of a table that are outside of the written range, and whose keys do not arrive."""
    watch = RangeWatch(load)
    for batch in new.to_batches():
        watch.check(batch)
    paths = watch.demand_files(checkpoint.files) if watch.range.is_by_files else []
    held, arrived = old.column(watch.range.column), new.column(watch.range.column).combine_chunks()
    arrived = pa.concat_arrays([arrived, watch.of_rejected(rejected, arrived.type)])
    old = old.filter(pc.invert(watch.deleted(held.combine_chunks(), arrived, paths)))
    names = load.stream.key_properties
    keys = set(keys_of(new, names)) if names else set()
    return old.filter(pa.array([key not in keys for key in keys_of(old, names)], pa.bool_())) if names else old


def removed_records(load: Load, old: pa.Table | None) -> int:
    """Count the records of a table that the final commit of a load deletes, or newly marks as deleted."""
    count = 0
    if old is not None and load.removed is not None:
        count += len(set(keys_of(load.removed, load.stream.key_properties)) & set(_keys(old, load)))
    if load.marked is not None:
        count += load.marked.num_rows - load.marked.column(DELETED_AT).null_count
    return count


def replaced_records(load: Load, staged: Sequence[pa.RecordBatch], old: pa.Table | None) -> int | None:
    """Count the staged records that another one of the same key replaces, see `Commit.replaced`."""
    method, names = load.write.conflict_method, load.stream.unique_properties or load.stream.key_properties
    if load.write.disposition is not WriteDisposition.MERGE or load.fills:
        return None
    if method is ConflictMethod.IGNORE:
        return 0
    keys = [key for batch in staged for key in keys_of(batch, names)]
    if method is ConflictMethod.UPDATE_ONLY:
        held = set() if old is None else set(keys_of(old, names))
        keys = [key for key in keys if key in held]
    return len(keys) - len(set(keys))


def keys_of(records: pa.Table | pa.RecordBatch, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return each record's key."""
    return list(zip(*(records.column(name).to_pylist() for name in names), strict=True))


def _filled(load: Load, old: pa.Table, new: pa.Table) -> pa.Table:
    """Write some columns into the records that are there."""
    places = {key: place for place, key in enumerate(_keys(new, load))}
    keys = _keys(old, load)
    for name in load.stream.schema.names:
        if name in load.stream.key_properties or not new.num_rows:
            continue
        held, own, place = old.column(name).to_pylist(), new.column(name).to_pylist(), old.schema.get_field_index(name)
        values = [own[places[key]] if key in places else value for key, value in zip(keys, held, strict=True)]
        old = old.set_column(place, old.schema.field(place), pa.array(values, old.schema.field(place).type))
    return old


def _keys(table: pa.Table, load: Load) -> list[tuple[Any, ...]]:
    return keys_of(table, load.stream.key_properties)


def _marked(table: pa.Table, load: Load) -> pa.Table:
    """Write the marks of `Load.marked` into a table that has their column."""
    assert load.marked is not None
    marks = dict(zip(_keys(load.marked, load), load.marked.column(DELETED_AT).to_pylist(), strict=True))
    held = table.column(DELETED_AT).to_pylist()
    values = [marks.get(key, value) for key, value in zip(_keys(table, load), held, strict=True)]
    place = table.schema.get_field_index(DELETED_AT)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values, field.type))


def _without(table: pa.Table, load: Load) -> pa.Table:
    assert load.removed is not None
    names = load.stream.key_properties
    gone = set(keys_of(load.removed, names))
    return table.filter(pa.array([key not in gone for key in keys_of(table, names)], pa.bool_()))


def _merged(load: Load, old: pa.Table, new: pa.Table) -> pa.Table:
    keys = load.stream.unique_properties or load.stream.key_properties
    if not keys or any(new.column(name).null_count for name in keys):
        raise FatalConnectorError(f"a record of {load.key.stream!r} has no key to merge by", stream=load.key.stream)
    old_keys, new_keys = keys_of(old, keys), keys_of(new, keys)
    is_first, places = load.write.conflict_method is ConflictMethod.IGNORE, range(len(new_keys))
    last = {new_keys[place]: place for place in (reversed(places) if is_first else places)}
    if load.write.latest_by:
        last = _latest(load.write, dict(zip(old_keys, range(len(old_keys)), strict=True)), old, new, new_keys)
    if load.write.conflict_method is ConflictMethod.UPDATE_ONLY:
        last = {key: place for key, place in last.items() if key in set(old_keys)}
    if is_first:
        for key in old_keys:
            last.pop(key, None)
    else:
        new = _carried(load, old, new, dict(zip(old_keys, range(len(old_keys)), strict=True)), new_keys)
        old = old.filter(pa.array([key not in last for key in old_keys], pa.bool_()))
    counting = new.take(pa.array(sorted(last.values()), pa.int64()))
    return pa.concat_tables([old, without_deleted(counting, load.write.deleted_when)])


def _latest(
    write: WriteSpec,
    places: Mapping[tuple[Any, ...], int],
    old: pa.Table,
    new: pa.Table,
    keys: Sequence[tuple[Any, ...]],
) -> dict[tuple[Any, ...], int]:
    """Return where the latest record of each key stands, without those for which the table has a newer one."""
    ages, held = (table.column(write.latest_by).to_pylist() for table in (new, old))
    found: dict[tuple[Any, ...], int] = {}
    for position, key in enumerate(keys):
        if key not in found or not _is_older(ages[position], ages[found[key]], is_lowest=write.latest_is_lowest):
            found[key] = position
    return {
        key: at
        for key, at in found.items()
        if key not in places or not _is_older(ages[at], held[places[key]], is_lowest=write.latest_is_lowest)
    }


def _is_older(value: Any, other: Any, *, is_lowest: bool) -> bool:
    if value is None or other is None:
        return value is None and other is not None
    return _age(value) > _age(other) if is_lowest else _age(value) < _age(other)


def _age(value: Any) -> tuple[Any, ...]:
    """Return what orders values: NULL below all, NaN above all."""
    if value is None:
        return (0,)
    return (2,) if value != value else (1, value.encode() if isinstance(value, str) else value)


def _carried(
    load: Load, old: pa.Table, new: pa.Table, places: Mapping[tuple[Any, ...], int], keys: Sequence[tuple[Any, ...]]
) -> pa.Table:
    """Give arriving records what the old ones of their keys have in the columns that stay as they are."""
    for name in load.write.kept:
        held, own = old.column(name).to_pylist(), new.column(name).to_pylist()
        values = [held[places[key]] if key in places else value for key, value in zip(keys, own, strict=True)]
        place = new.schema.get_field_index(name)
        new = new.set_column(place, new.schema.field(place), pa.array(values, new.schema.field(place).type))
    return new


def _widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True).remove_metadata() for field in schema])


def changes(old: pa.Table | None, new: pa.Table) -> tuple[Mapping[str, Any], ...]:
    """Return the columns added or changed; none for a table that was not there."""
    if old is None:
        return ()
    before = {field.name: str(field.type) for field in old.schema}
    return tuple(
        {
            "column": field.name,
            "change": "changed" if field.name in before else "added",
            "before": before.get(field.name),
            "after": str(field.type),
        }
        for field in new.schema
        if before.get(field.name) != str(field.type)
    )
