"""The shape of a stream: its columns and keys when it was last written, and the changes since. Pure; JSON values."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from syncblocks.connectors.field_facts import facts_of, is_unseen
from syncblocks.connectors.stream import Stream

#: {"columns": {name: type}, "left_out": [names that the pipeline left out], "keys": [names], "ignored": [names that
#: `on_schema_change: ignore` left out], "required": [names of columns that are never NULL there], "decided": whether no
#: function may have put NULL into them}; kept by the run store. An earlier version did not write the last three.
Shape = Mapping[str, Any]

#: One change, as in `Commit.schema_changes`: column, change (added, retyped, nullable, dropped, keys), before, after.
Change = Mapping[str, Any]


def shape_of(
    stream: Stream,
    left_out: Sequence[str] = (),
    before: Shape | None = None,
    ignored: Sequence[str] | None = (),
    required: Sequence[str] | None = None,
    *,
    is_decided: bool = True,
) -> Shape:
    """Return a stream's shape.

    Args:
        stream: as the source yields it.
        left_out: the source's columns that the pipeline leaves out.
        before: its former shape, whose types are kept for columns in which no value was seen this time.
        ignored: columns that `on_schema_change: ignore` leaves out; None if unknown.
        required: columns that are never NULL at the source; None if unknown.
        is_decided: whether no function makes the values.
    """
    columns = {}
    known = {} if before is None else before["columns"]
    for field in stream.schema:
        native = facts_of(field).native_type
        columns[field.name] = sys.intern(native or str(field.type))
        if field.name in known and is_unseen(field):
            columns[field.name] = known[field.name]
    shape = {"columns": columns, "left_out": list(left_out), "keys": list(stream.key_properties)}
    shape |= {} if ignored is None else {"ignored": list(ignored)}
    return shape if required is None else shape | {"required": list(required), "decided": is_decided}


def ceased(before: Shape | None, stream: Stream, required: Collection[str]) -> list[str]:
    """Return the columns of a stream that were never NULL when it was last written, and may be now.

    `required` are those that are never NULL as they arrive.
    """
    former = before.get("required", ()) if before is not None and before.get("decided") else ()
    return [name for name in stream.schema.names if name in former and name not in required]


def differences(before: Shape | None, after: Shape) -> tuple[Change, ...]:
    """Return the changes of the source; columns that the pipeline began or ceased to leave out are no change."""
    if before is None:
        return ()
    old, new = before["columns"], after["columns"]
    found = [_change(name, "added", None, new[name]) for name in new if name not in old and name not in _out(before)]
    found += [_change(name, "retyped", old[name], new[name]) for name in new if name in old and old[name] != new[name]]
    if "required" in before and "required" in after:
        ceased = [name for name in before["required"] if name in new and name not in after["required"]]
        found += [_change(name, "nullable", f"{new[name]} not null", new[name]) for name in ceased]
    found += [_change(name, "dropped", old[name], None) for name in old if name not in new and name not in _out(after)]
    if before["keys"] != after["keys"]:
        found.append(_change("", "keys", ", ".join(before["keys"]), ", ".join(after["keys"])))
    return tuple(found)


def _change(column: str, change: str, before: str | None, after: str | None) -> Change:
    return {"column": column, "change": change, "before": before, "after": after}


def _out(shape: Shape) -> Sequence[str]:
    left_out: Sequence[str] = shape["left_out"]
    return left_out
