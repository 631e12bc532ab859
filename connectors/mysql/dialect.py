"""MySQL's and MariaDB's dialect."""

from __future__ import annotations

from ..sql.dialect.dialect import Dialect
from ..sql.dialect.facts import Facts
from .catalog import MySQLCatalog
from .naming import MySQLNaming
from .server import Server
from .tables import MySQLTables
from .types import MySQLTypes
from .write_statements import MySQLWrites

_FACTS = Facts(
    has_hash_comments=True,
    has_savepoints=True,
    timestamp_type="datetime(6)",
    now="utc_timestamp(6)",
    text_type="longtext",
    # An ALTER on the way would commit what was appended before it.
    appends_directly=False,
    adopts_staging=False,
    alters_at_once=True,
    max_columns=1016,
)


def dialect(server: Server, database: str, lock_timeout_s: int) -> Dialect:
    """Put the parts together; what differs between servers is in `server` from the first connection on."""
    naming = MySQLNaming(database, server)
    return Dialect(
        naming=naming,
        facts=_FACTS,
        types=MySQLTypes(server),
        catalog=MySQLCatalog(naming, server),
        tables=MySQLTables(naming, server, lock_timeout_s),
        writes=MySQLWrites(naming, _FACTS, server),
    )


__all__ = ["dialect"]
