"""Driver errors, sorted by what the caller does; messages contain no credentials and no SQL."""

from __future__ import annotations

import re

from ..errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
    StatementRefused,
    UniqueViolated,
)
from ..network import speaks_mysql
from ..sql.address import NO_PASSWORD
from ..sql.clear_text import REFUSED
from .settings import PostgresAddress

#: SQLSTATEs, or their classes, of temporary errors.
_RETRIABLE = (
    "08",  # connection
    "40",  # serialization failure, deadlock
    "53200",  # out of memory
    "53300",  # too many connections
    "55006",  # object in use
    "55P03",  # lock timeout
    "57014",  # cancelled by a timeout or an administrator
    "57P",  # shutdown, restart, dropped backend
    "25P03",  # idle in transaction for too long
    "58000",
    "58030",
)
#: Wrong credentials, database, or missing privileges to connect.
_CONFIG = ("28", "3D000")

#: libpq's message if `require_auth` forbids to send the password in clear text.
_ASKED = "server requested a cleartext password"

#: libpq's message about a connection that can never succeed; it has no SQLSTATE.
_CONFIG_TEXTS = (
    "password",
    "authentication",
    "pg_hba.conf",
    "does not exist",
    "invalid",
    "unexpected spaces",
    "permission denied",
    "not permitted to log in",
    "certificate",
    "server does not support SSL",
    "rejected SSL upgrade",  # asyncpg's text
)

#: A name in a message, such as a host name, may contain any of these texts.
_QUOTED = re.compile("'[^']*'|\"[^\"]*\"")

#: An unresolved host cannot be reached, like one that refuses; but an immediate retry cannot help.
_UNKNOWN_HOST = ("could not translate host name", "Name or service not known")

#: Drivers' messages about a login without a password, and about an answer from another kind of server.
NO_LOGIN = re.compile("no password supplied|password authentication failed")
_STRANGE = re.compile("SSL negotiation|SSL upgrade|expected authentication request|protocol|unexpected connection_lost")

#: SQLSTATE -> the server's message about a text with a NUL, and about its JSON escape in jsonb.
_NUL = {"22021": "0x00", "22P05": "\\u0000"}

#: SQLSTATE -> remedy.
_WAYS_OUT = {
    "42501": "; `syncblocks check` prints the missing privileges of a destination's user; a source's user needs "
    "`select` on each column that is read",
    "25006": "; `default_transaction_read_only` is on for this user or database, or the server is a standby",
}

#: The server's message about a date or time before its minimum in a COPY, with the column.
_TOO_EARLY = re.compile(r"(date|timestamp) out of range CONTEXT: +COPY .*, line \d+, column (.+)")

#: The server's message about a record that does not fit one of its pages.
_TOO_BIG = re.compile(r"row is too big: size (\d+), maximum size (\d+)")

#: The server's message about a file of its catalog. The message lacks the cause, which is most often a full disk.
_NO_CATALOG_FILE = "could not write init file"
_FULL_DISK = "; the server's disk is probably full"

#: Error classes caused by a record's values: data, constraints, CHECK OPTION of a view, RAISE of a trigger, and values
#: that are too large or unknown for a type.
_OF_A_RECORD = ("22", "23", "44", "P0", "54", "0A")

#: A unique index or constraint refuses a record.
_UNIQUE = "23505"

#: The server's text for a statement of a DO block.
_SQL = re.compile(r'(CONTEXT:\s*)?SQL statement ".*', re.DOTALL)

#: The server's text for the function in which it happened.
_NAME = r'(?:"(?:[^"]|"")*"|[^\s"(.]+)'
_FUNCTION = re.compile(rf"PL/\w+ function (?:{_NAME}\.)?({_NAME})")


def connect_failure(error: Exception, address: PostgresAddress) -> ConnectorError:
    """Sort an error of a connection attempt."""
    sqlstate = getattr(error, "sqlstate", None) or ""
    text = _text(error, address)
    if _ASKED in text:
        text = REFUSED.format(settings="sslmode=verify-full")
    if not address.password and NO_LOGIN.search(text):
        text += f"; {NO_PASSWORD}, or give it by PGPASSWORD or ~/.pgpass"
    if _NO_CATALOG_FILE in text:
        text += _FULL_DISK
    place = address.shown
    if not sqlstate and any(part in text for part in _UNKNOWN_HOST):
        return FatalConnectorError(f"cannot connect to {place}: {text}", connector="postgres", key="url")
    port = int(address.port) if address.port.isdigit() else 5432  # it may be a list
    if not sqlstate and _STRANGE.search(text) and speaks_mysql(address.host or "localhost", port):
        text = "this port speaks MySQL, not PostgreSQL: use PostgreSQL's port, or the connector `mysql` or `mariadb`"
        return ConnectorConfigError(f"cannot connect to {place}: {text}", connector="postgres", key="url")
    if is_misconfigured(sqlstate, text):
        return ConnectorConfigError(f"cannot connect to {place}: {text}", connector="postgres", key="url")
    return RetriableError(f"cannot connect to {place}: {text}", connector="postgres", key="url")


def is_misconfigured(sqlstate: str, text: str) -> bool:
    """Return whether a connection was refused because of its settings; a retry cannot help."""
    if sqlstate:
        return sqlstate.startswith((*_CONFIG, "42501"))
    said = _QUOTED.sub("", text)
    return any(part in said for part in _CONFIG_TEXTS) and "starting up" not in said


def failure(error: Exception, address: PostgresAddress, *, is_lost: bool = False) -> ConnectorError:
    """Sort an error of a statement; `is_lost`: the connection is lost."""
    if isinstance(error, ConnectorError):
        return error
    sqlstate = getattr(error, "sqlstate", None) or ""
    text = _text(error, address)
    if sqlstate == "22008" and (early := _TOO_EARLY.fullmatch(text)):
        kind, column = early.groups()
        text = (
            f"column {column!r}: a {kind} before 4713 BC, the first year of PostgreSQL: `on_rejected: keep` sets "
            "such records aside; or exclude the column with `columns`"
        )
    if sqlstate == "54000" and (big := _TOO_BIG.match(text)):
        size, most = big.groups()
        text = (
            f"a record takes {size} bytes in its row, and PostgreSQL allows {most}. Exclude columns with `columns`, or "
            "read the others as a second stream with a `query`"
        )
    if sqlstate:
        text += f" (SQLSTATE {sqlstate})"
    if sqlstate in _NUL and _NUL[sqlstate] in text:
        text += "; PostgreSQL cannot store NUL in texts: `on_rejected: keep` sets such records aside"
    text += _FULL_DISK if _NO_CATALOG_FILE in text else _WAYS_OUT.get(sqlstate, "")
    if is_lost or sqlstate.startswith(_RETRIABLE):
        return RetriableError(f"{address.shown}: {text}", connector="postgres")
    if sqlstate.startswith(_CONFIG):
        return ConnectorConfigError(f"{address.shown}: {text}", connector="postgres")
    is_of_record = not sqlstate or sqlstate.startswith(_OF_A_RECORD)
    sorted_as = FatalConnectorError if is_of_record else StatementRefused
    if sqlstate == _UNIQUE:
        sorted_as = UniqueViolated
    result = sorted_as(f"{address.shown}: {text}", connector="postgres")
    # Follows a statement of the function; the message leaves it out.
    result.raised_in = tuple(_functions(f"{error} {getattr(error, 'context', '')}"))
    return result


def interrupted(error: Exception) -> Interrupted:
    """Report that we cancelled a statement."""
    result = Interrupted("interrupted", connector="postgres")
    result.__cause__ = error
    return result


def _functions(text: str) -> list[str]:
    """Return the names of the functions, without schemas, in which the error happened."""
    return [name.strip('"').replace('""', '"') for name in _FUNCTION.findall(text)]


def _text(error: Exception, address: PostgresAddress) -> str:
    """Return the server's message, detail, hint and context, without the statement."""
    text = str(error)
    for name in ("detail", "hint", "context"):
        more = getattr(error, name, None)
        if more and str(more) not in text:
            text += f" {name.upper()}: {more}"
    text = _SQL.sub("", text.partition("Query was:")[0])
    start = text.find("ERROR:")
    if start < 0:
        start = text.find("FATAL:")
    text = text[start + 7 :] if start >= 0 else text
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("LINE ", "^", ". SQLSTATE"))]
    return address.scrub(" ".join(kept).strip())


__all__ = ["connect_failure", "failure", "interrupted", "is_misconfigured"]
