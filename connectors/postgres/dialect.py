"""PostgreSQL's dialect."""

from __future__ import annotations

from ..sql.dialect.dialect import Dialect
from ..sql.dialect.facts import Facts
from ..sql.identifiers import Naming
from .catalog import PostgresCatalog
from .tables import PostgresTables
from .types import PostgresTypes
from .write_statements import PostgresWrites

_FACTS = Facts(
    has_savepoints=True,
    check_now="set constraints all immediate",
    spelled='(cast({} as text) collate pg_catalog."C")',
    arrival="ctid",
    keeps_spelling=False,
    refill_bytes=1 << 20,
    joins_statements=True,
    commits_alone=True,
    max_columns=1599,
)


class PostgresNaming(Naming):
    """Identifiers have 63 bytes: the server silently cuts longer column names."""

    name = "postgres"
    default_schema = "public"
    max_identifier_bytes = 63
    reserved_columns = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})


def dialect() -> Dialect:
    """Build the PostgreSQL dialect."""
    naming, types = PostgresNaming(), PostgresTypes()
    return Dialect(
        naming=naming,
        facts=_FACTS,
        types=types,
        catalog=PostgresCatalog(naming, types),
        tables=PostgresTables(naming),
        writes=PostgresWrites(naming, _FACTS),
    )


__all__ = ["dialect"]
