"""What a user lacks to write tables and their ledgers, as the GRANTs that give it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ..sql.identifiers import Naming, TableName
from ..sql.session import Session
from ..write_spec import WriteDisposition

_RECORDS = ("select", "insert", "update", "delete")
#: For tables that are made, swapped or swept; a privilege on a whole database only.
_TABLES = ("create", "drop", "alter")
_NAME = r"(?:`((?:[^`]|``)*)`|(\*))"
_GRANT = re.compile(rf"GRANT (.+?) ON (?:TABLE )?{_NAME}\.{_NAME} TO ", re.DOTALL)


def missing_privileges(
    session: Session,
    naming: Naming,
    tables: Mapping[TableName, WriteDisposition],
    ledgers: Collection[TableName],
    existing: Collection[TableName],
) -> list[str]:
    """Return the statements that grant what is missing; `existing` are those of the tables that are there."""
    ((account,),) = session.query("select current_user()")
    user, _, host = str(account).rpartition("@")
    to = f"to {naming.quote(user)}@{naming.quote(host)}"
    grants = [found for (text,) in session.query("show grants") if (found := _GRANT.match(str(text)))]
    texts = []
    for schema in sorted({name.schema for name in ledgers}):
        own = {name for name in {*tables, *ledgers} if name.schema == schema}
        makes = any(name not in existing or tables.get(name) is WriteDisposition.REPLACE for name in own)
        wanted = (*_RECORDS, *(_TABLES if makes else ()), "create temporary tables")
        held = {name: _held(grants, name) for name in own}
        anywhere = _held(grants, TableName(schema, ""))
        lacking = [
            word
            for word in wanted
            if word not in anywhere and not (word in _RECORDS and all(word in held[name] for name in own))
        ]
        if lacking:
            # Unescaped they would stand for databases of other names, too.
            alone = schema.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
            texts.append(f"grant {', '.join(lacking)} on {naming.quote(alone)}.* {to}")
    return texts


def _held(grants: Collection[re.Match[str]], name: TableName) -> set[str]:
    """Return the privileges on a table; without a name, those on its whole database."""
    found = set[str]()
    for grant in grants:
        words, schema, any_schema, table, any_table = grant.groups()
        is_there = any_schema or (_is_like(schema, name.schema) if any_table else _plain(schema) == name.schema)
        if is_there and (any_table or _plain(table) == name.name):
            found.update(word.strip().lower() for word in re.sub(r" ?\([^)]*\)", "", words).split(","))
    return {*found, *_RECORDS, *_TABLES, "create temporary tables"} if found & {"all", "all privileges"} else found


def _is_like(pattern: str, schema: str) -> bool:
    """Tell whether a database is of those that a GRANT means, in which `_` and `%` stand for others."""
    words = {"_": ".", "%": ".*"}
    parts = re.findall(r"\\.|.", _plain(pattern), re.DOTALL)
    expression = "".join(words.get(part) or re.escape(part[-1]) for part in parts)
    return re.fullmatch(expression, schema, re.DOTALL) is not None


def _plain(name: str) -> str:
    return name.replace("``", "`")


__all__ = ["missing_privileges"]
