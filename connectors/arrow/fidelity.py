"""How exactly a destination keeps a column: as it is, in a wider type, as text, or with loss. Pure.

A destination states the type it stores for each column (`Kept`); `fidelity` compares it with the type that arrives. The
engine refuses a lossy column before a run, unless the pipeline decides about it (`on_lossy`).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import pyarrow as pa
from msgspec import Struct

from ..errors import FatalConnectorError
from ..field_facts import facts_of
from .type_names import type_text


class Fidelity(StrEnum):
    """How exactly a column is kept, best first."""

    #: The same values in the same type.
    EXACT = "exact"
    #: The same values in a type that holds more.
    WIDENED = "widened"
    #: Every value in full, as text: the destination has no such type.
    TEXT = "text"
    #: Some value of the type would change, or the destination has no type for it.
    LOSSY = "lossy"


class Kept(Struct, frozen=True, kw_only=True):
    """How a destination stores one column of a stream."""

    #: Name in the table; may be shortened, or changed where two names are the same to the system.
    column: str
    #: Type that the column will have, as the destination writes it; empty: there is none.
    type: str
    #: Arrow type of the stored values; None: there is no type for them.
    arrow: pa.DataType | None
    #: Type that the table's column has now; None: there is no such column.
    held: str | None = None
    #: The system stores the values as text, though it declares (or infers) a type.
    is_text: bool = False
    #: Source and destination are one system with one type: nothing needs comparing.
    is_native: bool = False
    #: The table computes the column: values that arrive for it are not written.
    is_computed: bool = False
    #: Remark for the plan: a zone that is dropped, or why there is no type.
    note: str = ""


_RANKS = (Fidelity.EXACT, Fidelity.WIDENED, Fidelity.TEXT, Fidelity.LOSSY)
_UNITS = ("s", "ms", "us", "ns")

#: Native types whose values are texts; a text of any other native type (also an array of texts, and a type of the
#: user's own that is called `my_text`) holds values of that type.
_TEXT_NAMES = re.compile(
    r"(?:(?:national |native |varying )?(?:n|bp|ci|tiny|medium|long)?(?:var)?(?:char|character|text|clob|string)2?"
    r'(?: varying| large object)?|"char"|name|memo|tsvector|enum|set)\s*(?:\(.*\))?',
    re.IGNORECASE | re.DOTALL,
)


def fidelity(field: pa.Field, kept: Kept) -> Fidelity:
    """Return how exactly a column is kept."""
    if kept.arrow is None:
        return Fidelity.LOSSY
    if kept.is_native:
        return Fidelity.EXACT
    found = compare(field.type, kept.arrow)
    is_text = kept.is_text or (is_text_of_something(field) and _is_text(plain(kept.arrow)))
    return worst(found, Fidelity.TEXT) if is_text and not pa.types.is_null(field.type) else found


def is_text_of_something(field: pa.Field) -> bool:
    """Tell whether a text column holds values of another type of the source (inet, numeric, ranges)."""
    native = facts_of(field).native_type
    return bool(native) and _is_text(plain(field.type)) and _TEXT_NAMES.fullmatch(native.strip()) is None


def worst(*found: Fidelity) -> Fidelity:
    """Return the least exact of some fidelities."""
    return max(found, key=_RANKS.index, default=Fidelity.EXACT)


def plain(kind: Any) -> pa.DataType:
    """Return the type without encodings that exist in memory only: dictionaries, run ends, views, long offsets."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    return kind


def compare(arriving: pa.DataType, kept: pa.DataType) -> Fidelity:
    """Return how exactly one Arrow type keeps every value of another."""
    arriving, kept = plain(arriving), plain(kept)
    types = pa.types
    if arriving == kept or types.is_null(arriving):
        return Fidelity.EXACT
    if isinstance(arriving, pa.BaseExtensionType) and arriving != pa.uuid() and arriving != pa.json_():
        return compare(arriving.storage_type, kept)
    if kept == pa.json_():
        # A text is no JSON: only an existing JSON column parses it, and refuses other texts.
        return Fidelity.WIDENED if _is_text(arriving) else Fidelity.TEXT if types.is_nested(arriving) else _LOSSY
    if _is_text(kept):
        return Fidelity.TEXT
    for is_kind, compared in _COMPARED:
        if is_kind(arriving):
            return compared(arriving, kept)
    # An existing column of another type parses the texts, and refuses texts that it cannot hold.
    return Fidelity.WIDENED if _is_text(arriving) else _LOSSY


_LOSSY = Fidelity.LOSSY


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind))


def _if(is_so: bool) -> Fidelity:
    return Fidelity.WIDENED if is_so else Fidelity.LOSSY


def _integers(arriving: Any, kept: Any) -> Fidelity:
    types = pa.types
    digits = len(str(2**arriving.bit_width if types.is_unsigned_integer(arriving) else 2 ** (arriving.bit_width - 1)))
    if types.is_integer(kept):
        low, high = _limits(arriving)
        least, most = _limits(kept)
        return _if(least <= low and high <= most)
    if types.is_decimal(kept):
        return _if(kept.precision - kept.scale >= digits and kept.scale >= 0)
    if types.is_floating(kept):
        bits = {16: 11, 32: 24, 64: 53}[kept.bit_width]
        return _if(arriving.bit_width - (not types.is_unsigned_integer(arriving)) <= bits)
    return _LOSSY


def _limits(kind: Any) -> tuple[int, int]:
    bits = kind.bit_width
    return (0, 2**bits - 1) if pa.types.is_unsigned_integer(kind) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _floats(arriving: Any, kept: Any) -> Fidelity:
    return _if(pa.types.is_floating(kept) and kept.bit_width >= arriving.bit_width)


def _decimals(arriving: Any, kept: Any) -> Fidelity:
    types = pa.types
    if types.is_decimal(kept):
        if (arriving.precision, arriving.scale) == (kept.precision, kept.scale):
            return Fidelity.EXACT
        whole = kept.precision - kept.scale >= arriving.precision - arriving.scale
        return _if(whole and kept.scale >= arriving.scale)
    if types.is_integer(kept) and arriving.scale <= 0:
        least, most = _limits(kept)
        bound = 10 ** (arriving.precision - arriving.scale)
        return _if(least < 1 - bound and bound <= most)
    return _LOSSY


def _timestamps(arriving: Any, kept: Any) -> Fidelity:
    if not pa.types.is_timestamp(kept) or (arriving.tz is None) != (kept.tz is None):
        return _LOSSY
    # The zone belongs to the column; the value is an instant.
    return Fidelity.EXACT if arriving.unit == kept.unit else _finer(arriving, kept)


def _finer(arriving: Any, kept: Any) -> Fidelity:
    return _if(_UNITS.index(kept.unit) >= _UNITS.index(arriving.unit))


def _times(arriving: Any, kept: Any) -> Fidelity:
    return _finer(arriving, kept) if pa.types.is_time(kept) else _LOSSY


def _dates(arriving: Any, kept: Any) -> Fidelity:
    if pa.types.is_date(kept):
        return Fidelity.EXACT
    return _if(pa.types.is_timestamp(kept) and kept.tz is None)


def _durations(arriving: Any, kept: Any) -> Fidelity:
    if pa.types.is_duration(kept):
        return _finer(arriving, kept)
    return _if(pa.types.is_interval(kept))


def _booleans(_: Any, kept: Any) -> Fidelity:
    return _if(pa.types.is_integer(kept))


def _bytes(_: Any, kept: Any) -> Fidelity:
    return _if(pa.types.is_binary(kept))


def _lists(arriving: Any, kept: Any) -> Fidelity:
    types = pa.types
    if not (types.is_list(kept) or types.is_large_list(kept)) or types.is_map(arriving) != types.is_map(kept):
        return _LOSSY
    return compare(arriving.value_type, kept.value_type)


def _maps(arriving: Any, kept: Any) -> Fidelity:
    if not pa.types.is_map(kept):
        return _LOSSY
    return worst(compare(arriving.key_type, kept.key_type), compare(arriving.item_type, kept.item_type))


def _structs(arriving: Any, kept: Any) -> Fidelity:
    if not pa.types.is_struct(kept) or [field.name for field in arriving] != [field.name for field in kept]:
        return _LOSSY
    return worst(*(compare(one.type, other.type) for one, other in zip(arriving, kept, strict=True)))


_COMPARED = (
    (pa.types.is_boolean, _booleans),
    (pa.types.is_integer, _integers),
    (pa.types.is_floating, _floats),
    (pa.types.is_decimal, _decimals),
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_time, _times),
    (pa.types.is_date, _dates),
    (pa.types.is_duration, _durations),
    (lambda kind: pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind) or kind == pa.uuid(), _bytes),
    (pa.types.is_map, _maps),
    (pa.types.is_struct, _structs),
    (pa.types.is_nested, _lists),
)


def as_text(array: pa.Array, column: str) -> pa.Array:
    """Write every value in full as text, in the forms of `arrow.text`: digits, ISO 8601, base64, JSON.

    Raises:
        FatalConnectorError: a date outside the years 1 to 9999, which the form cannot write.
    """
    from .text import to_text  # its kernels take time to load, and few streams need them

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array.type, pa.BaseExtensionType) and array.type not in (pa.uuid(), pa.json_()):
        array = array.storage
    return to_text(array, column).cast(pa.string())


def cut(array: pa.Array, kind: pa.DataType, column: str) -> pa.Array:
    """Cast with loss: cut off digits that the type cannot hold.

    Raises:
        FatalConnectorError: a value is out of the type's range.
    """
    from . import compute as pc

    options = pc.CastOptions(
        kind, allow_time_truncate=True, allow_decimal_truncate=True, allow_float_truncate=True, allow_int_overflow=False
    )
    try:
        made = pc.cast(array, options=options)
        return _earlier(array, made) if pa.types.is_timestamp(kind) and pa.types.is_timestamp(array.type) else made
    except pa.ArrowException as error:
        raise FatalConnectorError(
            f"column {column!r}: a value of {type_text(array.type)} does not fit {type_text(kind)}: {error}"
        ) from error


def _earlier(array: pa.Array, made: pa.Array) -> pa.Array:
    """Correct instants before 1970: Arrow rounds their numbers towards 0, to the next microsecond."""
    from . import compute as pc

    is_later = pc.greater(made.cast(array.type), array)
    return pc.subtract(made.cast(pa.int64()), is_later.cast(pa.int64())).cast(made.type)


__all__ = ["Fidelity", "Kept", "as_text", "compare", "cut", "fidelity", "is_text_of_something", "plain", "worst"]
