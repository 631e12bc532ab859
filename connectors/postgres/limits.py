"""Limits of a role that can end a run."""

from __future__ import annotations

from ..sql.identifiers import Naming
from ..sql.session import Sessions

# Superusers are not bound by the limits.
_LIMITS = """select r.rolname::text, d.datname::text,
  case when r.rolsuper then -1 else r.rolconnlimit end, case when r.rolsuper then -1 else d.datconnlimit end,
  pg_catalog.current_setting('statement_timeout')
from pg_catalog.pg_roles r, pg_catalog.pg_database d
where r.rolname = session_user and d.datname = pg_catalog.current_database()"""


def limit_warnings(sessions: Sessions, naming: Naming, connections: int) -> list[str]:
    """Return the limits that can end a run with this many connections, and how an administrator lifts them."""
    with sessions.lease() as lease:
        lease.begin()
        ((role, database, of_role, of_database, timeout),) = lease.session.query(_LIMITS)
    texts = []
    for kind, name, limit in (("role", role, of_role), ("database", database, of_database)):
        if 0 <= limit < connections:
            texts.append(
                f"{kind} {name!r} may have {limit} connections at a time, but a run opens up to {connections} "
                f"connections: set a lower `concurrency`, or let an administrator run `alter {kind} "
                f"{naming.quote(name)} connection limit {connections}`"
            )
    if timeout != "0":
        texts.append(
            f"each statement of role {role!r} ends after {timeout} (`statement_timeout`), but reading or loading a "
            f"whole table is one statement: an administrator can run `alter role {naming.quote(role)} set "
            "statement_timeout = 0`"
        )
    return texts


__all__ = ["limit_warnings"]
