"""Limits of a role that may end a run."""

from __future__ import annotations

from ..sql.identifiers import Naming
from ..sql.session import Sessions

# Superusers open more connections than the limits say.
_LIMITS = """select r.rolname::text, d.datname::text,
  case when r.rolsuper then -1 else r.rolconnlimit end, case when r.rolsuper then -1 else d.datconnlimit end,
  pg_catalog.current_setting('statement_timeout')
from pg_catalog.pg_roles r, pg_catalog.pg_database d
where r.rolname = session_user and d.datname = pg_catalog.current_database()"""


def limit_warnings(sessions: Sessions, naming: Naming, connections: int) -> list[str]:
    """Say which limits may end a run that opens so many connections, and how an administrator lifts them."""
    with sessions.lease() as lease:
        lease.begin()
        ((role, database, of_role, of_database, timeout),) = lease.session.query(_LIMITS)
    texts = []
    for kind, name, limit in (("role", role, of_role), ("database", database, of_database)):
        if 0 <= limit < connections:
            texts.append(
                f"{kind} {name!r} may have {limit} connections at a time, and a run opens up to {connections} "
                "connections: say a lower `concurrency`, or an administrator runs "
                f"`alter {kind} {naming.quote(name)} connection limit {connections}`"
            )
    if timeout != "0":
        texts.append(
            f"each statement of role {role!r} ends after {timeout} (`statement_timeout`), and the read or the load "
            f"of a whole table is one statement: an administrator runs `alter role {naming.quote(role)} set "
            "statement_timeout = 0`"
        )
    return texts


__all__ = ["limit_warnings"]
