"""What the records of a Delta table say about a key and a bookmark, before `state adopt` takes it over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..stream import TableRecords


def examined(table: Any, key: Sequence[str], bookmark: Sequence[str]) -> TableRecords:
    """Look up keys and the newest bookmark by the library's own SQL."""
    from deltalake import QueryBuilder

    session = QueryBuilder().register("t", table)

    def first(sql: str) -> tuple[Any, ...] | None:
        rows = pa.table(session.execute(sql)).to_pylist()
        return tuple(rows[0].values()) if rows else None

    newest = ambiguous = None
    if bookmark:
        names, known = _list(bookmark), " and ".join(f"{_quoted(name)} is not null" for name in bookmark)
        order = ", ".join(f"{_quoted(name)} desc" for name in bookmark)
        newest = first(f"select {names} from t where {known} order by {order} limit 1")
    if key:
        names, missing = _list(key), " or ".join(f"{_quoted(name)} is null" for name in key)
        ambiguous = first(f"select {names} from t where {missing} limit 1") or first(
            f"select {names} from t group by {names} having count(*) > 1 limit 1"
        )
    return TableRecords(newest=newest, has_index=False, needs_index=False, ambiguous=ambiguous, statement="")


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
