"""How MySQL and MariaDB spell names."""

from __future__ import annotations

from ..sql.identifiers import Naming, TableName, tell_apart
from .server import Server

#: Longest identifier, in characters.
MAX_CHARACTERS = 64


class MySQLNaming(Naming):
    """Names of columns are the same in any case; names of tables are, where the server says so."""

    name = "mysql"
    schema_word = "database"

    def __init__(self, database: str, server: Server) -> None:
        self.default_schema = database
        self._server = server

    def fold(self, name: str) -> str:
        """Column names are the same without regard to case: the server compares their capital letters, one by one."""
        if name.isascii():
            return name.lower()
        return "".join(capital if len(capital := char.upper()) == 1 else char for char in name).lower()

    def fold_table(self, name: str) -> str:
        """Names of tables are files on most servers, which tell case apart; others say that they do not."""
        return name.lower() if self._server.folds_names else name

    def table_name(self, destination_table: str, default_schema: str) -> TableName:
        """Read a `destination_table`; parts that no identifier can be are changed, told apart by a hash."""
        name = TableName.parse(destination_table, default_schema or self.default_schema)
        return TableName(_fit(name.schema), _fit(name.name))

    def plain(self, name: str) -> str:
        """Return the name, or for one that is no identifier here one told apart by a hash."""
        return _fit(name)

    def marked(self, name: str) -> str:
        """Return the name with a hash."""
        return _marked(name)


def _fit(name: str) -> str:
    """Return the name, or for one that is no identifier here one told apart by a hash.

    Identifiers have at most 64 characters, none past U+FFFF, and no white space at their end.
    """
    is_fine = (
        len(name) <= MAX_CHARACTERS and name == name.rstrip(" \t\n\v\f\r") and all(ord(char) <= 0xFFFF for char in name)
    )
    return name if is_fine else _marked(name)


def _marked(name: str) -> str:
    digest = tell_apart(name, None)[-17:]
    plain = "".join(char if ord(char) <= 0xFFFF else "_" for char in name)
    return plain[: MAX_CHARACTERS - len(digest)] + digest


__all__ = ["MySQLNaming"]
