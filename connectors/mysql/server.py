"""What differs between servers of MySQL and MariaDB."""

from __future__ import annotations

from msgspec import Struct

from .session import MySQLSession


class Server(Struct):
    """Known from the first connection on; shared by the parts of one dialect."""

    is_mariadb: bool = True
    #: Names of tables that differ in case only are the same.
    folds_names: bool = False
    #: Texts differ if one character does, be it in case or a space at the end.
    collation: str = "utf8mb4_bin"

    def adapt(self, session: MySQLSession) -> None:
        """Take over what a connection has read from its server."""
        self.is_mariadb, self.folds_names = session.is_mariadb, session.folds_names
        if session.is_mariadb:
            self.collation = "utf8mb4_nopad_bin" if session.version >= (10, 2) else "utf8mb4_bin"
        else:
            self.collation = "utf8mb4_0900_bin" if session.version >= (8, 0, 17) else "utf8mb4_bin"


__all__ = ["Server"]
