"""Foreign keys that refuse the deletion of records that the source no longer has."""

from __future__ import annotations

import re
from contextlib import suppress

from ...errors import ConnectorError, FatalConnectorError
from .context import LoadContext

#: Error texts of databases about records that other tables refer to.
_IS_REFERRED_TO = re.compile(r"foreign key|referenc|child record|SQLSTATE 23(503|001)", re.IGNORECASE)


def explain_refusal(context: LoadContext, error: FatalConnectorError) -> None:
    """Roll back, and add the foreign keys and a remedy to a database's refusal."""
    if not _IS_REFERRED_TO.search(str(error)):
        return
    session, name = context.session, context.target.name
    session.rollback()
    keys: list[str] = []
    with suppress(ConnectorError):
        session.begin()
        if (table := context.target.reflect()) is not None:
            keys = [each for each in context.dialect.catalog.dependents(session, table) if "foreign key" in each]
        session.rollback()
    named = f" ({', '.join(keys)})" if keys else ""
    error.args = (
        f"{str(error).rstrip('. ')}; other records refer to records of {name} that the source no longer "
        f"has{named}: if both streams have `deletes: hard`, a run with both of them deletes children first; or "
        "mark the records by `deletes: soft`",
    )


__all__ = ["explain_refusal"]
