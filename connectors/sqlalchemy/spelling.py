"""Names as SQLAlchemy spells them, always quoted: no list of reserved words is complete."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import quoted_name

from ..sql.identifiers import TableName, checked

_PLAIN = re.compile(r"[a-z][a-z0-9_$]*")
_FOLDED = re.compile(r"[A-Z][A-Z0-9_$]*")


class Names:
    """Spells names for one dialect.

    Where a system folds plain names to upper case, a plain name in lower case means that one, as in all of SQLAlchemy,
    reserved or not (whose lists of such words change with the server); any other name means itself.

    Attributes:
        is_folding: whether the system is such a one.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.is_folding = bool(dialect.requires_name_normalize)

    def spell(self, name: str, *, is_exact: bool = False) -> quoted_name:
        """Return a name as the system has it, to be quoted; exact: in lower case although that looks plain."""
        is_plain = self.is_folding and not is_exact and _PLAIN.fullmatch(name)
        return quoted_name(checked(name.upper() if is_plain else name), True)

    def shown(self, name: str) -> str:
        """Return a name of the catalog as streams and tables show it."""
        name = str(name)
        return name.lower() if self.is_folding and _FOLDED.fullmatch(name) else name

    def is_exact(self, name: str) -> bool:
        """Tell whether a name as SQLAlchemy's inspector gives it is in lower case in the system, too."""
        return self.is_folding and isinstance(name, quoted_name) and bool(name.quote and _PLAIN.fullmatch(str(name)))

    def quote(self, name: str) -> str:
        """Quote a name by the dialect's own rules, for a statement without parameters to fill in."""
        text = self._dialect.identifier_preparer.quote(self.spell(name))
        return text.replace("%%", "%") if self.doubles_percents else text

    @property
    def doubles_percents(self) -> bool:
        """Tell whether SQLAlchemy's compilers write `%%`, for a driver that formats parameters."""
        return self._dialect.paramstyle in ("format", "pyformat")

    def table(self, name: TableName, columns: Sequence[Any], *, is_exact: bool = False) -> Any:
        """Return a table of SQLAlchemy's with these columns of SQLAlchemy's."""
        schema = self.spell(name.schema) if name.schema else None
        return sa.table(self.spell(name.name, is_exact=is_exact), *columns, schema=schema)


__all__ = ["Names"]
