"""Types of a result's columns, out of what drivers tell of a cursor: DB-API has names for few of them.

Source: PEP 249, Cursor.description; MySQL, Client/Server Protocol, Column Definition.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

Type = sa.types.TypeEngine[Any]
#: Name, type code, display size, internal size, precision, scale, and whether NULL may come.
Told = Sequence[Any]

#: A column of a driver that gives Python's own types.
_OF_PYTHON: dict[Any, Any] = {
    bool: sa.Boolean,
    int: sa.BigInteger,
    float: sa.DOUBLE_PRECISION,
    str: sa.Text,
    bytes: sa.LargeBinary,
    bytearray: sa.LargeBinary,
    date: sa.Date,
    time: sa.Time,
    datetime: sa.DateTime,
    uuid.UUID: sa.Uuid,
}

#: Group of types of DB-API's -> type, of precision and scale. DATETIME may be a day as well as a time.
_OF_GROUPS: dict[str, Callable[[int | None, int | None], Type]] = {
    "STRING": lambda *_: sa.Text(),
    "NUMBER": lambda precision, scale: sa.Numeric(precision, scale) if precision else sa.Numeric(),
}

#: MySQL's type code -> type. Integers are one size larger than they say: nothing tells whether they have a sign.
_OF_MYSQL: dict[int, Any] = {
    1: sa.SmallInteger,
    2: sa.Integer,
    3: sa.BigInteger,
    4: sa.REAL,
    5: sa.DOUBLE_PRECISION,
    6: sa.Text,
    7: sa.DateTime,
    8: sa.BigInteger,
    9: sa.Integer,
    10: sa.Date,
    11: sa.Time,
    12: sa.DateTime,
    13: sa.Integer,
    16: sa.LargeBinary,
    245: sa.JSON,
}
_MYSQL_DECIMALS = (0, 246)

#: Bytes of a number of Firebird's -> its type, or its digits.
_FIREBIRD_INTEGERS: dict[int, Any] = {2: sa.SmallInteger, 4: sa.Integer, 8: sa.BigInteger}
_FIREBIRD_DIGITS = {2: 4, 4: 9, 8: 18, 16: 38}
#: Bytes of a moment with a zone.
_FIREBIRD_ZONED = 12


class Named(sa.types.UserDefinedType[Any]):
    """A type of which only the name is known."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        """Return the name."""
        return self.name


def types_told(connection: Connection, told: Sequence[Told], relation: Any) -> list[Type]:
    """Return the types of a result's columns; of those that the driver does not tell only a name.

    Args:
        connection: within the caller's transaction; PostgreSQL and MySQL are asked for more.
        told: of each column.
        relation: the query as a subquery; None: it cannot be one.
    """
    name = connection.dialect.name
    if name in ("postgresql", "cockroachdb"):
        return _postgres(connection, told)
    if name in ("mysql", "mariadb"):
        return _mysql(connection, told, relation)
    return [_firebird(each) if name.startswith("firebird") else _general(each, connection) for each in told]


def _general(told: Told, connection: Connection) -> Type:
    code, precision, scale = told[1], told[4], told[5]
    if code is Decimal:
        return sa.Numeric(precision or None, abs(scale or 0)) if precision else sa.Numeric()
    if isinstance(code, type) and code in _OF_PYTHON:
        found: Type = _OF_PYTHON[code]()
        return found
    groups = vars(connection.dialect.dbapi) if connection.dialect.dbapi else {}
    for group, make in _OF_GROUPS.items():
        if code is not None and group in groups and code == groups[group]:
            return make(precision, scale)
    return Named(str(code))


def _firebird(told: Told) -> Type:
    _, code, _, size, _, scale, _ = told
    if code in (None, Decimal):
        return sa.Numeric(_FIREBIRD_DIGITS[size], -scale) if scale < 0 and size in _FIREBIRD_DIGITS else sa.Numeric()
    if code is datetime:
        return sa.DateTime(timezone=size == _FIREBIRD_ZONED)
    make = _FIREBIRD_INTEGERS.get(size, sa.BigInteger) if code is int else _OF_PYTHON.get(code)
    return Named(str(code)) if make is None else make()


def _mysql(connection: Connection, told: Sequence[Told], relation: Any) -> list[Type]:
    types = [_of_mysql(each) for each in told]
    unsure = [place for place, found in enumerate(types) if found is None]
    if relation is None:
        return [sa.Text() if found is None else found for found in types]
    if unsure:
        # Texts and bytes have the same codes. An aggregate has a row, and a character set without looking at any.
        names: list[Any] = [sa.column(told[place][0]) for place in unsure]
        asked: Any = sa.select(*(sa.func.charset(sa.func.max(name)) for name in names))
        (row,) = connection.execute(asked.select_from(relation).where(sa.text("1 = 0"))).fetchall()
        for place, charset in zip(unsure, row, strict=True):
            types[place] = sa.LargeBinary() if charset == "binary" else sa.Text()
    return [found for found in types if found is not None]


def _of_mysql(told: Told) -> Type | None:
    _, code, _, length, _, scale, _ = told[:7]
    if code in _MYSQL_DECIMALS:
        # The length counts a point and the sign.
        return sa.Numeric(length - (scale > 0) - 1, scale) if length and scale is not None else sa.Numeric()
    found: Type | None = _OF_MYSQL[code]() if code in _OF_MYSQL else None
    return found


def _postgres(connection: Connection, told: Sequence[Told]) -> list[Type]:
    codes = sorted({int(each[1]) for each in told})
    columns: Any = map(sa.literal_column, ("oid", "pg_catalog.format_type(oid, null)", "typtype"))
    asked: Any = sa.select(*columns).select_from(sa.text("pg_catalog.pg_type"))
    asked = asked.where(sa.literal_column("oid").in_(codes))
    names = {int(oid): ("text" if kind == "e" else name) for oid, name, kind in connection.execute(asked)}
    return [_of_postgres(each, names.get(int(each[1]), str(each[1])), connection) for each in told]


def _of_postgres(told: Told, name: str, connection: Connection) -> Type:
    _, _, width, _, precision, scale, _ = told
    if name == "numeric":
        return sa.Numeric(precision, scale)
    if name in ("character", "character varying"):
        return sa.CHAR(width) if name == "character" else sa.VARCHAR(width)
    if name.endswith("with time zone"):
        return sa.DateTime(timezone=True) if name.startswith("timestamp") else sa.TIME(timezone=True)
    known: Any = connection.dialect
    found = known.ischema_names.get(name)
    return found() if isinstance(found, type) else Named(name)


__all__ = ["types_told"]
