"""Keys that are different texts but equal to the system: by case, accents, or blanks at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from ..arrow import compute as pc
from ..errors import FatalConnectorError
from ..sql.identifiers import TableName
from .session import AlchemySession


def refuse_colliding_keys(
    session: AlchemySession, table: TableName, held: Mapping[str, Any], staged: Mapping[str, Any], texts: Sequence[str]
) -> None:
    """Compare equal keys character by character, in Python: no SQL for such a comparison is known to all systems.

    Args:
        session: of the merge; other writers are shut out.
        table: the target.
        held: columns of its key.
        staged: columns of the key in the staging table.
        texts: names of the columns that are texts.

    Raises:
        FatalConnectorError: two keys collide, and a merge would keep one of the two records.
    """
    columns = list(staged.values())
    repeated = sa.select(*columns).group_by(*columns).having(sa.func.count() > 1).subquery("r")
    ones = dict(zip(staged, repeated.c, strict=True))
    for known in (ones, held):
        # The target's column first: of two collations, SQLite goes by that of the left one.
        is_same = sa.and_(*(known[name] == staged[name] for name in staged))
        pairs = sa.select(*(known[name] for name in texts), *(staged[name] for name in texts)).where(is_same)
        _refuse_different(session, table, pairs, texts)


def _refuse_different(session: AlchemySession, table: TableName, pairs: Any, texts: Sequence[str]) -> None:
    schema = pa.schema([pa.field(name, pa.string()) for name in (*texts, *texts)])
    with closing(session.stream(pairs, schema, "")) as batches:
        for batch in batches:
            for place, name in enumerate(texts):
                known, arriving = batch.column(place), batch.column(len(texts) + place)
                differs = pc.index(pc.not_equal(known, arriving), True).as_py()
                if differs >= 0:
                    raise _error(table, name, known[differs].as_py(), arriving[differs].as_py())


def _error(table: TableName, column: str, known: str, arriving: str) -> FatalConnectorError:
    return FatalConnectorError(
        f"{table} treats the keys {known!r} and {arriving!r} (column {column!r}) as equal, so a merge would keep "
        "one record of both: give the column, and the database by default, a collation that distinguishes them, "
        "or use write_disposition append; if the source has only changed a key's spelling, run once with "
        "`--full-refresh`",
        connector="sqlalchemy",
    )


__all__ = ["refuse_colliding_keys"]
