"""Columns read in a type that somebody says: each value is exact in that type, or refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError
from .fidelity import as_text, plain


def is_readable(kind: pa.DataType, said: pa.DataType) -> bool:
    """Tell whether values of a type may be values of another one: numbers are numbers, and texts may be anything.

    Times without a zone may be moments, in UTC.
    """
    own, said = plain(kind), plain(said)
    if own == said or pa.types.is_null(own) or pa.types.is_string(said):
        return True
    if pa.types.is_string(own):
        return not pa.types.is_nested(said)
    families = (_family(own), _family(said))
    return families == ("moment", "zoned") or families[0] == families[1] != ""


def read_as(array: pa.Array, said: pa.DataType, column: str) -> pa.Array:
    """Return a column in another type.

    Raises:
        FatalConnectorError: with the first value that is none of the type.
    """
    if array.type == said:
        return array
    from .conform import python_value, shown
    from .text import first_invalid  # its kernels take time to load, and few streams need them
    from .type_names import type_text

    try:
        return _read(array, said, column)
    except (pa.ArrowException, ValueError, ArithmeticError) as error:
        value = python_value(array[first_invalid(array, lambda part: _read(part, said, column))])
        raise FatalConnectorError(
            f"column {column!r}: {shown(value)} is not a {type_text(said)}, the type that `types` declares; "
            "declare another type"
        ) from error


def _read(array: pa.Array, said: pa.DataType, column: str) -> pa.Array:
    from . import compute as pc
    from .decimals import from_texts
    from .text import checked_json, from_text

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), said)
    if pa.types.is_string(plain(said)):
        return as_text(array, column).cast(said)
    if pa.types.is_string(plain(array.type)):
        return checked_json(from_text(array.cast(pa.string()), said, is_empty_null=False))
    if pa.types.is_decimal(said) and not pa.types.is_decimal(array.type):
        # Arrow would round doubles; 10.1 is what its text says. Of integers it asks for the digits of their widest.
        return from_texts(as_text(array, column), said)
    made = pc.cast(array, said, safe=True)
    if not made.cast(array.type).equals(array):
        raise ValueError("changed")
    return made


#: Form of `decode` -> what a text must look like.
DECODED = {
    "base64": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "hex": r"^(?:\\x|0x)?(?:[0-9a-fA-F]{2})*$",  # as PostgreSQL (`\x`) and SQL Server (`0x`) write bytes
}


def decoded(array: pa.Array, form: str, column: str) -> pa.Array:
    """Return the bytes that texts write.

    Args:
        array: texts.
        form: of `DECODED`.
        column: its name, for the message.

    Raises:
        FatalConnectorError: with the first value that is not written so.
    """
    import base64
    import binascii

    from . import compute as pc
    from .conform import shown

    texts = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    texts = texts.cast(pa.string())
    wrong = pc.fill_null(pc.invert(pc.match_substring_regex(texts, DECODED[form])), False)
    if pc.any(wrong).as_py():
        value = texts.filter(wrong)[0].as_py()
        raise FatalConnectorError(f"column {column!r}: {shown(value)} is not {form}, the form that `decode` declares")
    if form == "hex":
        texts = pc.replace_substring_regex(texts, r"^(?:\\x|0x)", "")
    read = base64.b64decode if form == "base64" else binascii.unhexlify
    return pa.array([None if text is None else read(text) for text in texts.to_pylist()], pa.binary())


def _family(kind: Any) -> str:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_timestamp(kind):
        return "zoned" if kind.tz else "moment"
    if types.is_date(kind):
        return "moment"
    if types.is_time(kind):
        return "time"
    if types.is_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    return ""


__all__ = ["DECODED", "decoded", "is_readable", "read_as"]
