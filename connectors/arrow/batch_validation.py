"""Check a batch of a file before its values are read: lengths that lie would be read past the end of the memory."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

#: What Arrow raises at damaged bytes. A damaged length may ask for more memory than there is, or than a file can have;
#: a damaged name is no text.
DAMAGE = (OSError, MemoryError, OverflowError, UnicodeDecodeError, pa.ArrowException)

#: Bits of a decimal -> its digits, before or behind the point.
_MOST_DIGITS = {32: 9, 64: 18, 128: 38, 256: 76}


def demand_valid(batch: pa.RecordBatch) -> None:
    """Check all values of a batch, and those of its dictionaries, which Arrow leaves out.

    Raises:
        pa.ArrowInvalid: something is damaged.
    """
    for field in batch.schema:
        if is_odd(field.type):
            raise pa.ArrowInvalid(f"column {field.name!r} has an unsupported type: {field.type}")
    batch.validate(full=True)
    for column in batch.columns:
        for dictionary in _dictionaries(column):
            dictionary.validate(full=True)


def is_odd(kind: pa.DataType) -> bool:
    """Tell whether a type counts digits that no decimal has: kernels read past the end of their tables.

    Raises:
        UnicodeDecodeError: a name within it is no text.
    """
    if pa.types.is_decimal(kind):
        return bool(abs(kind.scale) > _MOST_DIGITS[kind.bit_width])
    if isinstance(kind, pa.BaseExtensionType):
        return is_odd(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return is_odd(kind.value_type)
    fields = [kind.field(place) for place in range(kind.num_fields)]
    return any(is_odd(field.type) for field in fields if field.name is not None)


def has_union(kind: pa.DataType) -> bool:
    """Tell whether a type is a union, or has one within."""
    if isinstance(kind, pa.BaseExtensionType):
        return has_union(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return has_union(kind.value_type)
    return pa.types.is_union(kind) or any(has_union(kind.field(place).type) for place in range(kind.num_fields))


def repeated_name(kind: pa.DataType) -> str:
    """Return a name that two fields of a struct in a type share; empty: none do."""
    if isinstance(kind, pa.BaseExtensionType):
        return repeated_name(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return repeated_name(kind.value_type)
    fields = [kind.field(place) for place in range(kind.num_fields)]
    seen: set[str] = set()
    for name in (field.name for field in fields if pa.types.is_struct(kind)):
        if name in seen:
            return str(name)
        seen.add(name)
    return next(filter(None, (repeated_name(field.type) for field in fields)), "")


def _dictionaries(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the dictionaries of an array and of what it holds, those within others as well."""
    types, kind = pa.types, array.type
    if not _has_dictionary(kind):
        return
    held: list[pa.Array] = []
    if types.is_dictionary(kind):
        yield array.dictionary
        held = [array.dictionary]
    elif isinstance(kind, pa.BaseExtensionType):
        held = [array.storage]
    elif types.is_struct(kind):
        held = [array.field(place) for place in range(kind.num_fields)]
    elif types.is_map(kind):
        held = [array.keys, array.items]
    elif types.is_nested(kind) or types.is_run_end_encoded(kind):
        held = [array.values]
    for each in held:
        yield from _dictionaries(each)


def _has_dictionary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_dictionary(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return True
    if pa.types.is_run_end_encoded(kind):
        return _has_dictionary(kind.value_type)
    return not pa.types.is_union(kind) and any(
        _has_dictionary(kind.field(place).type) for place in range(kind.num_fields)
    )


__all__ = ["DAMAGE", "demand_valid", "is_odd"]
