"""Which columns of two copies can be compared, and in which form: by type and system of both. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pyarrow as pa

from .values import Compared, Form

#: Types of PostgreSQL whose values are texts as they stand.
_POSTGRES_TEXTS = ("text", "character varying", "character", "name", '"char"')

#: Families that a key may have: their order is the same everywhere.
KEY_FORMS = frozenset(
    {Form.INTEGER, Form.DECIMAL, Form.BOOLEAN, Form.TEXT, Form.BINARY, Form.DATE, Form.TIMESTAMP, Form.UUID}
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a column holds, whatever system it is in."""

    family: str
    scale: int | None = None
    #: Of texts: written in a way that may depend on the system. Of JSON: not kept as it was written.
    is_own: bool = False


def compared_columns(
    source: pa.Field, destination: pa.Field, *, systems: tuple[str, str], is_key: bool = False, keeps_json: bool = False
) -> tuple[Compared, Compared] | str:
    """Return how a column is compared, for each side; a string is the reason why it cannot be.

    Args:
        source: as the source reads it.
        destination: as the destination's table is read back.
        systems: where each side's checksums are computed: `postgres`, `mysql` or `duckdb` (files and others as well).
        is_key: it must also be in a form that has an order.
        keeps_json: the destination's `json` keeps the text as it is written (MariaDB).
    """
    form = _form(source, destination, systems, is_key=is_key, keeps_json=keeps_json)
    if not isinstance(form, tuple):
        return form
    chosen, scale = form
    return (
        Compared(name=source.name, field=source, form=chosen, scale=scale),
        Compared(name=destination.name, field=destination, form=chosen, scale=scale),
    )


def _form(
    source: pa.Field, destination: pa.Field, systems: tuple[str, str], *, is_key: bool, keeps_json: bool
) -> tuple[Form, int | None] | str:
    natives = _native(source, systems[0]), _native(destination, systems[1])
    is_same = systems[0] == systems[1] and bool(natives[0]) and natives[0] == natives[1]
    left, right = _kind(source, natives[0], systems[0]), _kind(destination, natives[1], systems[1])
    if keeps_json and right.family == "json":
        right = replace(right, is_own=False)
    if not is_key:
        if is_same and systems == ("postgres", "postgres"):
            return Form.NATIVE, None
        if source.type == destination.type and systems == ("duckdb", "duckdb") and left.family == "other":
            return Form.NATIVE, None
    form = _shared(left, right, source, destination, systems, is_same=is_same)
    if form is None:
        return f"{natives[0] or source.type} and {natives[1] or destination.type} have no form in common"
    if is_key and form[0] not in KEY_FORMS:
        return f"a key of type {source.type} has no order that all systems share"
    return form


def _shared(
    left: _Kind, right: _Kind, source: pa.Field, destination: pa.Field, systems: tuple[str, str], *, is_same: bool
) -> tuple[Form, int | None] | None:
    families = {left.family, right.family}
    if families <= {"integer", "boolean"}:
        return (Form.BOOLEAN if families == {"boolean"} else Form.INTEGER), None
    if families <= {"integer", "decimal"}:
        is_even = left.scale is not None and left.scale == right.scale
        return Form.DECIMAL, left.scale if is_even else None
    if families <= {"integer", "float"}:
        return Form.FLOAT, None
    if "json" in families:
        return _json(left, right, systems, is_same=is_same)
    if left.family == "decimal" and right.family == "text" and pa.types.is_string(source.type) and not right.is_own:
        return Form.TEXT, None  # too many digits for any decimal: it went over as the text that it was read as
    if families <= {"text", "uuid"}:
        if right.is_own and not is_same:
            return None
        return (Form.UUID if "uuid" in families else Form.TEXT), None
    if left.family == "interval" and families <= {"interval", "text"}:
        return Form.INTERVAL, None
    if families == {"timestamp"}:
        if (source.type.tz is None) != (destination.type.tz is None):
            return None
        is_fine = source.type.unit == destination.type.unit == "ns"
        return (Form.TIMESTAMP_NS if is_fine else Form.TIMESTAMP), None
    plain = {"date": Form.DATE, "time": Form.TIME, "binary": Form.BINARY}
    if left.family == right.family and left.family in plain:
        return plain[left.family], None
    return None


def _json(left: _Kind, right: _Kind, systems: tuple[str, str], *, is_same: bool) -> tuple[Form, int | None] | None:
    if not {left.family, right.family} <= {"json", "text"}:
        return None
    if not right.is_own or is_same:
        return Form.JSON, None
    return (Form.JSONB, None) if systems == ("postgres", "postgres") and left.family == right.family else None


def _kind(field: pa.Field, native: str, system: str) -> _Kind:
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind == pa.json_():
        return _Kind("json", is_own=native == "jsonb" or (system == "mysql" and native == "json"))
    if kind == pa.uuid() or native.lower() == "uuid":
        return _Kind("uuid")
    types = pa.types
    for is_type, family in _FAMILIES:
        if is_type(kind):
            return _Kind(family, 0 if family == "integer" else None)
    if types.is_decimal(kind):
        return _Kind("decimal", kind.scale)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _text(field, native, system)
    return _Kind("other")


_FAMILIES = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_integer, "integer"),
    (pa.types.is_floating, "float"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
    (pa.types.is_timestamp, "timestamp"),
    (pa.types.is_binary, "binary"),
    (pa.types.is_large_binary, "binary"),
    (pa.types.is_fixed_size_binary, "binary"),
    (pa.types.is_interval, "interval"),
    (pa.types.is_null, "text"),
)


def _text(field: pa.Field, native: str, system: str) -> _Kind:
    """A text may stand for another type, which was read as text for want of a better one."""
    if (field.metadata or {}).get(b"read_as") == b"text":
        return _Kind("text")
    base = re.sub(r"\(.*\)", "", native).strip().lower()
    if base in ("numeric", "decimal") and system in ("postgres", "mysql"):
        return _Kind("decimal")
    is_own = system == "postgres" and base not in _POSTGRES_TEXTS
    is_own |= system == "mysql" and base in ("inet4", "inet6", "geometry", "point", "polygon", "linestring")
    is_own |= system == "duckdb" and base not in ("varchar", "text", "json") and not base.startswith("enum")
    return _Kind("text", is_own=bool(native) and is_own)


def _native(field: pa.Field, system: str) -> str:
    """Return the system's own name of the type; empty if it is another system's, which the records only came from."""
    metadata = field.metadata or {}
    return metadata.get(b"native_type", b"").decode() if metadata.get(b"native_system") == system.encode() else ""


__all__ = ["compared_columns"]
