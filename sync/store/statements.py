"""SQL statements over the tables, built from the names of their columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any


def insert(table: str, columns: Iterable[str] | str) -> str:
    """Return the statement that writes a row; each value is named like its column."""
    names = _names(columns)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"


def update(table: str, columns: Iterable[str] | str, where: str) -> str:
    """Return the statement that sets columns; each value is named like its column."""
    return f"UPDATE {table} SET {', '.join(f'{name} = :{name}' for name in _names(columns))} WHERE {where}"


def one_of(column: str, values: Collection[Any]) -> tuple[str, dict[str, Any]]:
    """Return the condition that a column holds one of some values, and the values by name.

    All of them are one list: databases limit the variables of a statement, and read many of them slowly. One alone is
    compared: without statistics PostgreSQL looks a list up in no index, and reads all streams of a run for one of them.
    """
    if len(values) == 1:
        return f"{column} = :one_{column}", {f"one_{column}": next(iter(values))}
    return f"{column} = ANY(:in_{column})", {f"in_{column}": list(values)}


def _names(columns: Iterable[str] | str) -> list[str]:
    return columns.split() if isinstance(columns, str) else list(columns)
