"""Types and columns, as a pipeline file names them and messages show them."""

from __future__ import annotations

import json
import re

import pyarrow as pa

from ..errors import ConnectorConfigError

#: Names of types in `config.types`.
TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "text": pa.string(),
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "integer": pa.int64(),
    "bigint": pa.int64(),
    "uint64": pa.uint64(),
    "float": pa.float32(),
    "float32": pa.float32(),
    "double": pa.float64(),
    "float64": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "binary": pa.binary(),
    "uuid": pa.uuid(),
    "json": pa.json_(pa.string()),
}

#: How a type of numbers with all their digits is written.
DECIMAL = "decimal(p,s)"

#: Names of types elsewhere -> the name here.
_OTHER_NAMES = {
    "int": "integer",
    "smallint": "int16",
    "tinyint": "int8",
    "long": "bigint",
    "number": "double",
    "real": "float",
    "decimal": DECIMAL,
    "numeric": DECIMAL,
    "money": DECIMAL,
    "str": "string",
    "char": "string",
    "varchar": "string",
    "datetime": "timestamp",
    "datetimetz": "timestamptz",
    "bytes": "binary",
    "bytea": "binary",
    "blob": "binary",
    "jsonb": "json",
    "object": "json",
    "array": "json",
}

#: Names that YAML reads as these texts, also within `{}` and `[]`.
_PLAIN = re.compile(r"(?!(?:null|true|false|yes|no|on|off)\Z)[^\W\d](?:[\w ./+-]*\w)?", re.IGNORECASE)

_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")


def near_type(name: str) -> str | None:
    """Return the name of the type that was probably meant; None: nothing is similar."""
    key = name.strip().lower().partition("(")[0].strip()
    if key in _OTHER_NAMES:
        return _OTHER_NAMES[key]
    import difflib

    return next(iter(difflib.get_close_matches(key, [*TYPES, DECIMAL], n=1)), None)


def parse_type(name: str) -> pa.DataType:
    """Return the Arrow type of a name such as `decimal(12,2)`.

    Raises:
        ConnectorConfigError: no such type.
    """
    key = name.strip().lower()
    match = _DECIMAL.fullmatch(key)
    if match:
        precision, scale = int(match[1]), int(match[2] or 0)
        if 1 <= precision <= 76 and scale <= precision:
            return (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale)
    if key not in TYPES:
        near = near_type(name)
        meant = f"; did you mean {near!r}? Known" if near else "; known"
        raise ConnectorConfigError(f"no type {name!r}{meant}: {', '.join(TYPES)}, {DECIMAL}", key="types")
    return TYPES[key]


def type_name(kind: pa.DataType) -> str | None:
    """Return the name by which `parse_type` knows a type; None: it has no name."""
    if pa.types.is_decimal(kind) and 0 <= kind.scale <= kind.precision:
        return f"decimal({kind.precision},{kind.scale})"
    return next((name for name, known in TYPES.items() if known == kind), None)


def type_text(kind: pa.DataType) -> str:
    """Return a type as messages name it: by the name to write under `types`, if it has one."""
    return type_name(kind) or str(kind)


def yaml_text(name: str) -> str:
    """Return a column's name as it is written in a pipeline file: with quotes, if YAML needs them."""
    if _PLAIN.fullmatch(name):
        return name
    quoted = json.dumps(name, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)


__all__ = ["DECIMAL", "TYPES", "near_type", "parse_type", "type_name", "type_text", "yaml_text"]
