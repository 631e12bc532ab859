"""Choose the form in which a column of two copies is compared, by the types and systems of both. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa
from msgspec import Struct

from ..arrow.type_names import type_text
from ..compared_values import DIGITS, ComparedColumn, TextForm
from ..field_facts import Precision, facts_of, with_facts
from ..struct_helpers import replace
from .nested import is_carried, is_same_shape, is_written

#: Types of PostgreSQL whose values are plain texts.
_POSTGRES_TEXTS = ("text", "character varying", "character", "name", '"char"')

#: Families that a key may have: they have the same order in every system.
KEY_FORMS = frozenset(
    {
        TextForm.INTEGER,
        TextForm.DECIMAL,
        TextForm.BOOLEAN,
        TextForm.TEXT,
        TextForm.BINARY,
        TextForm.DATE,
        TextForm.TIMESTAMP,
        TextForm.UUID,
    }
)


#: Forms that items of lists may have.
_ITEM_FORMS = frozenset({*KEY_FORMS, TextForm.FLOAT, TextForm.TIME, TextForm.INTERVAL})

#: Field of an array that is read as text -> the field of its items.
ItemOf = Callable[[pa.Field], pa.Field | None]


def no_item(_: pa.Field) -> pa.Field | None:
    """Return no item field: a text is a text."""
    return None


class _Chosen(NamedTuple):
    """The fields of `ComparedColumn` that two sides share."""

    form: TextForm
    scale: int | None = None
    item: TextForm | None = None
    digits: int = 6


class _Kind(Struct, frozen=True):
    """What a column holds, in any system."""

    family: str
    scale: int | None = None
    #: The items of a list of scalars.
    item: pa.Field | None = None
    #: Texts: their form may depend on the system. JSON: the system does not keep the text as it was written.
    is_own: bool = False


def compared_columns(
    source: pa.Field,
    destination: pa.Field,
    *,
    systems: tuple[str, str],
    is_key: bool = False,
    keeps_json: tuple[bool, bool] = (False, False),
    is_in_lines: bool = False,
    is_text: bool = False,
    array_items: tuple[ItemOf, ItemOf] = (no_item, no_item),
) -> tuple[ComparedColumn, ComparedColumn] | str:
    """Return how a column is compared, for each side; or, as a string, why it cannot be compared.

    Args:
        source: the column as the source reads it.
        destination: the column as the destination's table is read back.
        systems: where each side's checksums are computed: `postgres`, `mysql` or `duckdb` (files and others as well).
        is_key: the form must have an order.
        keeps_json: whether each side's `json` keeps the text as it is written (MariaDB).
        is_in_lines: the destination is JSON lines.
        is_text: the values arrived as texts, since the destination has no such type.
        array_items: each side's items of an array that is read as text (`ComputesChecksums.array_item`).
    """
    form = _form(
        source,
        destination,
        systems,
        is_key=is_key,
        keeps_json=keeps_json,
        is_text=is_text,
        array_items=array_items,
    )
    if isinstance(form, str):
        return form
    if is_in_lines and form.form is TextForm.JSON:
        form = _Chosen(TextForm.JSON_LINE)
    chosen = form._asdict()
    left, right = (_is_read(form.form, system) for system in systems)
    left |= is_text and form.form is TextForm.TEXT
    return (
        ComparedColumn(name=source.name, field=source, is_read=left, **chosen),
        ComparedColumn(name=destination.name, field=destination, is_read=right, **chosen),
    )


def _is_read(form: TextForm, system: str) -> bool:
    return form is TextForm.JSON_VALUE or (form is TextForm.JSONB and system != "postgres")


def _form(
    source: pa.Field,
    destination: pa.Field,
    systems: tuple[str, str],
    *,
    is_key: bool,
    keeps_json: tuple[bool, bool],
    is_text: bool,
    array_items: tuple[ItemOf, ItemOf],
) -> _Chosen | str:
    natives = _native(source, systems[0]), _native(destination, systems[1])
    is_same = systems[0] == systems[1] and bool(natives[0]) and natives[0] == natives[1]
    left, right = (
        _kind(field, native, system, keeps_json=is_kept, item_of=item_of)
        for field, native, system, is_kept, item_of in zip(
            (source, destination), natives, systems, keeps_json, array_items, strict=True
        )
    )
    names = natives[0] or type_text(source.type), natives[1] or type_text(destination.type)
    if is_text and not pa.types.is_interval(source.type):  # its text is the one that it is compared by
        is_plain = right.family == "text" and not right.is_own and not is_key
        return _Chosen(TextForm.TEXT) if is_plain else f"the destination stores it as {names[1]}"
    if not is_key:
        if is_same and systems == ("postgres", "postgres"):
            return _Chosen(TextForm.NATIVE)
        if source.type == destination.type and systems == ("duckdb", "duckdb") and _is_carried(source.type):
            return _Chosen(TextForm.NATIVE)
    form = (
        _lists(left, right, systems)
        or _nested(left, right, source, destination, systems)
        or _shared(left, right, source, destination, systems, is_same=is_same)
    )
    if form is None:
        return f"{names[0]} and {names[1]} have no common form"
    if is_key and form.form not in KEY_FORMS:
        return f"a key of type {type_text(source.type)} has no order that all systems share"
    return form


def _lists(left: _Kind, right: _Kind, systems: tuple[str, str]) -> _Chosen | None:
    """Compare two lists of scalars, or a list with its JSON, if their items can be compared."""
    if left.item is None:
        return None
    other, is_same = right.item, False
    if other is None:
        # A source that reads arrays as texts has sent its own texts, not JSON.
        if left.family != "other" or right.family not in ("json", "text") or right.is_own:
            return None
        if pa.types.is_duration(left.item.type):
            return None  # in JSON a duration is a number of its unit
        other, is_same, systems = left.item, True, (systems[0], systems[0])
    kinds = [
        _kind(item, _native(item, system), system) for item, system in zip((left.item, other), systems, strict=True)
    ]
    form = _shared(kinds[0], kinds[1], left.item, other, systems, is_same=is_same)
    unit = getattr(left.item.type, "unit", "us")
    if form is None or form.form not in _ITEM_FORMS or unit not in DIGITS:
        return None
    return _Chosen(TextForm.LIST, item=form.form, digits=DIGITS[unit])


def _nested(
    left: _Kind, right: _Kind, source: pa.Field, destination: pa.Field, systems: tuple[str, str]
) -> _Chosen | None:
    """Compare nested values by their JSON."""
    if not pa.types.is_nested(source.type) or not is_written(source.type):
        return None
    if right.family == "other":
        return _Chosen(TextForm.NESTED) if is_same_shape(source.type, destination.type) else None
    if right.family == "json" and right.is_own:
        return _Chosen(TextForm.NESTED_JSONB if systems[1] == "postgres" else TextForm.JSON_VALUE)
    return _Chosen(TextForm.NESTED) if right.family in ("json", "text") and not right.is_own else None


def _shared(
    left: _Kind, right: _Kind, source: pa.Field, destination: pa.Field, systems: tuple[str, str], *, is_same: bool
) -> _Chosen | None:
    families = {left.family, right.family}
    if families <= {"integer", "boolean"}:
        return _Chosen(TextForm.BOOLEAN if families == {"boolean"} else TextForm.INTEGER)
    if families <= {"integer", "decimal"}:
        is_even = left.scale is not None and left.scale == right.scale
        return _Chosen(TextForm.DECIMAL, left.scale if is_even else None)
    if families <= {"integer", "float"}:
        return _Chosen(TextForm.FLOAT)
    if "json" in families:
        return _json(left, right, systems, is_same=is_same)
    if left.family == "decimal" and right.family == "text" and not right.is_own and _is_wide(source.type):
        return _Chosen(TextForm.TEXT)  # too many digits for any decimal: the text that was read has arrived
    if families <= {"text", "uuid"}:
        if right.is_own and not is_same:
            return None
        return _Chosen(TextForm.UUID if "uuid" in families else TextForm.TEXT)
    if left.family == "interval" and families <= {"interval", "text"}:
        if pa.types.is_duration(source.type) and right.family == "text":
            return None  # a number of its unit
        return _Chosen(TextForm.INTERVAL)
    if families == {"timestamp"}:
        if (source.type.tz is None) != (destination.type.tz is None):
            return None
        is_fine = source.type.unit == destination.type.unit == "ns"
        return _Chosen(TextForm.TIMESTAMP_NS if is_fine else TextForm.TIMESTAMP)
    plain = {"date": TextForm.DATE, "time": TextForm.TIME, "binary": TextForm.BINARY}
    if left.family == right.family and left.family in plain:
        return _Chosen(plain[left.family])
    return None


def _is_carried(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind)) and (is_carried(kind) or not is_written(kind))


def _is_wide(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_decimal256(kind))


def _json(left: _Kind, right: _Kind, systems: tuple[str, str], *, is_same: bool) -> _Chosen | None:
    if not {left.family, right.family} <= {"json", "text"}:
        return None
    if not right.is_own or (is_same and left.is_own):
        return _Chosen(TextForm.JSON)
    if right.family != "json" or (systems == ("postgres", "postgres") and left.family != "json"):
        return None  # a cast to jsonb fails where a text is no JSON
    return _Chosen(TextForm.JSONB if systems[1] == "postgres" else TextForm.JSON_VALUE)


def _kind(field: pa.Field, native: str, system: str, *, keeps_json: bool = False, item_of: ItemOf = no_item) -> _Kind:
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind == pa.json_():
        is_own = native == "jsonb" or (system == "mysql" and native == "json" and not keeps_json)
        # The system behind SQLAlchemy is unknown, and its drivers parse JSON.
        return _Kind("json", is_own=is_own or facts_of(field).native_system == "sqlalchemy")
    if kind == pa.uuid() or native.lower() == "uuid":
        return _Kind("uuid")
    types = pa.types
    for is_type, family in _FAMILIES:
        if is_type(kind):
            return _Kind(family, 0 if family == "integer" else None)
    if types.is_decimal(kind):
        # The system does not write all numbers of a column without a limit with as many digits.
        return _Kind("decimal", None if facts_of(field).precision is Precision.WIDENS else kind.scale)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return replace(_text(field, native, system), item=item_of(field) if native else None)
    return _Kind("other", item=_list_item(field, native, system))


def _list_item(field: pa.Field, native: str, system: str) -> pa.Field | None:
    types, kind = pa.types, field.type
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return None
    item = kind.value_type
    if any(is_type(item) for is_type in _NO_ITEMS) or (isinstance(item, pa.BaseExtensionType) and item != pa.uuid()):
        return None
    base = re.sub(r"\[\d*\]$", "", native)
    found = pa.field("item", item)
    return with_facts(found, native_type=base, native_system=system) if base else found


#: Types that lists cannot carry, or that have more than one text in lists.
_NO_ITEMS = (
    pa.types.is_nested,
    pa.types.is_dictionary,
    pa.types.is_float16,
    pa.types.is_null,
    pa.types.is_date64,
)


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
    (pa.types.is_duration, "interval"),
    (pa.types.is_null, "text"),
)


def _text(field: pa.Field, native: str, system: str) -> _Kind:
    """A text may hold values of another type that Arrow lacks."""
    if facts_of(field).read_as == "text":
        return _Kind("text")
    base = re.sub(r"\(.*\)", "", native).strip().lower()
    if base in ("numeric", "decimal") and system in ("postgres", "mysql"):
        return _Kind("decimal")
    is_own = system == "postgres" and base not in _POSTGRES_TEXTS
    is_own |= system == "mysql" and base in ("inet4", "inet6", "geometry", "point", "polygon", "linestring")
    is_own |= system == "duckdb" and base not in ("varchar", "text", "json") and not base.startswith("enum")
    return _Kind("text", is_own=bool(native) and is_own)


def _native(field: pa.Field, system: str) -> str:
    """Return the system's own name of the type; empty: the name is of the system that the records came from."""
    facts = facts_of(field)
    return facts.base_type or facts.native_type if facts.native_system == system else ""


__all__ = ["ItemOf", "compared_columns", "no_item"]
