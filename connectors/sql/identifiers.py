"""Names of tables and columns: any text is allowed, so every name is quoted here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from ..errors import FatalConnectorError

#: Prefix of all tables of the framework; sources never offer such tables.
OWN_PREFIX = "_syncblocks"

#: Table of the ledger, in the schema of the destination tables.
LEDGER_TABLE = "_syncblocks_ledger"

#: Prefix of every staging table's name; the token (or its hash) follows.
STAGING_PREFIX = "_syncblocks_stg_"

#: Suffix of a staging table with records to delete: keys, values, or the bounds of a range.
REMOVED = "_d"

#: Suffix of a staging table that replaces one with other types.
CONVERTED_SUFFIX = "_c"

#: Begin of the suffixes of working tables, in which a load computes new versions.
HISTORY_SUFFIX = "_h"

#: Column that numbers staged records in order of arrival: the last record of a key wins.
SEQUENCE = "_syncblocks_seq"

#: Column with a staged record's rank among the records of its key; the last record is 1.
RANK = "_syncblocks_rank"

#: Quote character of each dialect that does not use the standard double quote.
_QUOTES = {"mysql": "`", "mariadb": "`"}


@lru_cache(maxsize=4096)
def quote(name: str, dialect: str = "") -> str:
    """Quote one name for a dialect; the only such function, besides SQLAlchemy's own (`sqlalchemy/names.py`).

    Raises:
        FatalConnectorError: no database can have that name (empty, NUL, a lone surrogate).
    """
    mark = _QUOTES.get(dialect, '"')
    return f"{mark}{checked(name).replace(mark, mark * 2)}{mark}"


def checked(name: str) -> str:
    """Return a name that some database can have.

    Raises:
        FatalConnectorError: none can (empty, NUL, a lone surrogate).
    """
    fault = _fault(name)
    if fault:
        raise FatalConnectorError(f"the name {name!r} {fault}; rename it" if name else f"{fault}; rename it")
    return name


def _fault(name: str) -> str:
    """Return why no database can have a name; empty: some can."""
    if not name:
        return "a name of a table or column is empty"
    if "\0" in name:
        return "contains a NUL, which no database accepts"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode (a lone surrogate)"
    return ""


def literal(text: str) -> str:
    """Quote one string constant, for statements that take no parameters.

    Raises:
        FatalConnectorError: it contains a NUL or a lone surrogate.
    """
    if "\0" in text:
        raise FatalConnectorError(f"the text {text!r} contains a NUL, which no database accepts")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FatalConnectorError(f"the text {text!r} is not valid Unicode (a lone surrogate)") from error
    return "'" + text.replace("'", "''") + "'"


def shorten(name: str, max_bytes: int | None) -> str:
    """Return the name if it fits, else its beginning and a hash of the full name, which stays unique."""
    size = len(name) if name.isascii() else len(name.encode("utf-8", "surrogatepass"))
    if max_bytes is None or size <= max_bytes:
        return name
    return tell_apart(name, max_bytes)


def tell_apart(name: str, max_bytes: int | None) -> str:
    """Return the name with a hash of the full name, shortened if needed: the same result in every run."""
    encoded = name.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    end = len(encoded) if max_bytes is None else max_bytes - len(digest) - 1
    return f"{encoded[:end].decode('utf-8', 'ignore')}_{digest}"


def staging_name(token: str) -> str:
    """Return the staging table's name for a token; it fits every dialect."""
    is_plain = token.isascii() and token.isalnum() and token == token.lower() and len(token) <= 40
    return STAGING_PREFIX + (token if is_plain else hashlib.sha256(token.encode()).hexdigest()[:32])


class TableName(Struct, frozen=True):
    """A table in a schema; `schema` is empty if the system has none."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str, default_schema: str) -> TableName:
        """Read a `destination_table`: `table`, `schema.table`, and parts with dots in double quotes."""
        first, rest = _part(text)
        if not rest:
            return cls(default_schema, first)
        second, more = _part(rest[1:])
        # An unquoted name may contain more dots: they belong to the table's name.
        return cls(first, second if not more else rest[1:])

    def __str__(self) -> str:
        """Return a text that `parse` can read."""
        parts = [self.schema, self.name] if self.schema else [self.name]
        return ".".join(quote(part) if '"' in part or "." in part else part for part in parts)


def spellings(name: TableName) -> set[str]:
    """Return every spelling of this table, apart from the case of its letters."""
    names = {name.name, quote(name.name)}
    first, dot, rest = name.name.partition(".")
    if dot and first and rest:
        names.add(f"{quote(first)}.{quote(rest)}")  # for systems without schemas
    schemas = {name.schema, quote(name.schema)} if name.schema else {"main"}
    return names | {f"{schema}.{each}" for schema in schemas for each in names}


def _part(text: str) -> tuple[str, str]:
    """Split off the first part; the rest keeps its leading dot."""
    if text.startswith('"'):
        end = 1
        while end < len(text):
            if text[end] == '"':
                if text[end + 1 : end + 2] != '"':
                    break
                end += 1
            end += 1
        if end < len(text) and text[end + 1 : end + 2] in ("", "."):
            return text[1:end].replace('""', '"'), text[end + 1 :]
    head, dot, tail = text.partition(".")
    if not dot or not head or not tail:
        return text, ""
    return head, dot + tail


class Naming:
    """How one SQL system spells names, and which spellings mean the same name."""

    name: str
    default_schema: str = ""
    #: The system's word for a schema.
    schema_word: str = "schema"
    #: Maximum length of a name in bytes; None: no limit.
    max_identifier_bytes: int | None = None
    #: Names that no column may have, folded.
    reserved_columns: frozenset[str] = frozenset()

    def quote(self, name: str) -> str:
        """Quote one name."""
        return quote(name, self.name)

    def table(self, name: TableName) -> str:
        """Quote a table's full name."""
        return f"{self.quote(name.schema)}.{self.quote(name.name)}" if name.schema else self.quote(name.name)

    def schema(self, name: str) -> str:
        """Quote a schema's full name."""
        return self.quote(name)

    def fold(self, name: str) -> str:
        """Return the same text for all spellings of one name."""
        return name

    def fold_table(self, name: str) -> str:
        """Return the same text for all spellings of one table (or schema); default: as for columns."""
        return self.fold(name)

    def table_name(self, destination_table: str, default_schema: str) -> TableName:
        """Read a `destination_table`; shorten long parts."""
        name = TableName.parse(destination_table, default_schema or self.default_schema)
        limit = self.max_identifier_bytes
        return TableName(shorten(name.schema, limit), shorten(name.name, limit))

    def plain(self, name: str) -> str:
        """Return the name of a stream's column in the table, different from all other columns."""
        return shorten(name, self.max_identifier_bytes)

    def marked(self, name: str) -> str:
        """Return the column's name with a hash of it: the same in every run, and different for every column."""
        return tell_apart(name, self.max_identifier_bytes)

    def column_names(
        self, names: Sequence[str], held: Sequence[str] = (), known: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Map a stream's column names to the table's: shortened, and made distinct if the system ignores case.

        Names reserved by the system or by staging are changed as well. The order of the names decides only between two
        names that are both new to the table.

        Args:
            names: columns of the stream.
            held: columns of the existing table.
            known: names from earlier loads, as `remembered` returned them; may include columns that do not arrive now.

        Raises:
            FatalConnectorError: no database can have one of the names.
        """
        for name in names:
            if not name:
                raise FatalConnectorError(
                    "the name of a column is empty: give it a name, or select the other columns in `columns: "
                    "{include: [...]}`"
                )
            if fault := _fault(name):
                way_out = name.replace("\0", "?")
                raise FatalConnectorError(
                    f"column {name!r} {fault}: rename it, or exclude it with `columns: {{exclude: [{way_out!r}]}}`"
                )
        known = known or {}
        spelled = {self.fold(column): column for column in held}
        told_apart, owned = self._told_apart(known), {self.fold(column) for column in known.values()}
        taken = {*self.reserved_columns, self.fold(SEQUENCE), self.fold(RANK)}
        found: dict[str, str] = {}

        def claim(name: str, column: str, others: Collection[str] = ()) -> None:
            is_others = self.fold(name) in told_apart and self.fold(column) in others
            if self.fold(column) not in taken and not is_others:
                taken.add(self.fold(column))
                found[name] = spelled.get(self.fold(column), column)

        for name in names:
            if name in known:
                claim(name, known[name])
        for name in names:
            for spell in (self.plain, self.marked):
                # Only the exact spelling: a column in another spelling may belong to another name.
                if name not in found and spelled.get(self.fold(column := spell(name))) == column:
                    claim(name, column, owned)
        others = {*owned, *spelled}
        for name in names:
            # Another spelling of one name, unless the stream has both spellings as columns.
            if name not in found:
                claim(name, self.plain(name), others)
            if name not in found:
                claim(name, self.marked(name))
        return {name: found[name] if name in found else self.marked(name) for name in names}

    def remembered(self, found: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
        """Return the names that the next load must know."""
        taken = {self.fold(column) for column in found.values()}
        kept = {name: column for name, column in known.items() if name not in found and self.fold(column) not in taken}
        known = kept | {name: column for name, column in found.items() if column != self.plain(name)}
        told_apart = self._told_apart(known)
        return known | {name: column for name, column in found.items() if self.fold(name) in told_apart}

    def _told_apart(self, known: Mapping[str, str]) -> set[str]:
        """Return the folded names that several columns of the stream share."""
        return {self.fold(name) for name, column in known.items() if column == self.marked(name)}

    def names(self, names: Sequence[str], prefix: str = "") -> str:
        """Quote names for a list, each with a prefix (`s.`)."""
        return ", ".join(prefix + self.quote(name) for name in names)
