"""What the driver raised, sorted by what the caller does about it; messages carry no credentials and no SQL."""

from __future__ import annotations

import re
import socket
import struct

from ..errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    NoSuchTable,
    RetriableError,
    StatementRefused,
    UniqueViolated,
)
from ..sql.address import NO_PASSWORD
from .settings import MySQLAddress

#: Errors that go away by themselves.
RETRIABLE = {
    1020,  # record has changed since last read
    1040,  # too many connections
    1041,  # out of memory
    1053,  # shutdown in progress
    1077,
    1078,
    1079,
    1080,
    1152,  # aborted connection
    1158,  # network read and write errors and timeouts
    1159,
    1160,
    1161,
    1184,
    1203,  # user has too many connections
    1205,  # lock wait timeout
    1213,  # deadlock
    1226,  # user's resource limit
    1290,  # read-only server (while it changes roles)
    1412,  # table definition has changed
    1614,
    1637,
    1836,  # read-only mode
    1927,  # connection was killed
    2002,
    2003,
    2006,  # server has gone away
    2013,  # lost connection
    2055,
    3024,  # statement took too long
    4031,  # disconnected because of inactivity
}

#: What only code within the database raises; a load calls none but a table's triggers.
_OF_A_TRIGGER = {1442, 1644}

#: Privileges on a table, a column or the server that the user lacks.
_DENIED = {1142, 1143, 1227}

#: Wrong credentials, database or privileges to connect.
_CONFIG = {
    _NO_PRIVILEGE := 1044,  # on the database
    _REFUSED_LOGIN := 1045,
    1049,
    1130,
    1251,
    1698,
    1820,
    1862,
    2026,
    2054,
    2059,
    3118,  # account locked
    3955,  # blocked after failed logins
    4150,  # the same of MariaDB
    4151,  # account locked, of MariaDB
}

#: What the server says of a user without any privilege on the database.
_DATABASE_DENIED = re.compile(r"user ('.*'@'.*') to database '(.*)'")

#: A unique index refuses a record.
_UNIQUE = {
    1022,
    1062,
    1169,
    1586,
}

#: MySQL names the table, MariaDB the index alone.
_NAMED_KEY = re.compile(r"for key '([^']+)\.[^'.]+'$")

#: What a record's values cause; of other errors no record is at fault.
_OF_A_RECORD = {
    1048,  # NULL in a column that takes none
    1062,  # duplicate key
    1216,  # foreign keys
    1217,
    1451,
    1452,
    1261,  # warnings of LOAD DATA
    1262,
    1263,
    1264,  # out of range
    1265,  # truncated
    1292,
    1300,  # invalid text
    1364,  # no default
    1365,  # division by zero
    1366,  # incorrect value
    1367,
    1369,  # CHECK OPTION of a view
    1406,  # too long
    1411,
    1416,  # no geometry
    1526,  # no partition
    1644,  # SIGNAL of a trigger
    1690,  # out of range in an expression
    1906,  # value of a generated column
    3140,  # invalid JSON
    3141,
    3819,  # CHECK
    4025,  # CHECK of MariaDB
    4038,  # invalid JSON of MariaDB
}

_INTERRUPTED = {1317}
NO_SUCH_TABLE = {1051, 1146}
#: A table that a foreign key points at is not dropped.
REFERENCED = {1217, 1451, 3730}
_TOO_LARGE = {1153, 1301}

#: A full disk, and a full table or tablespace. InnoDB reports the latter for a full disk, too.
_NO_ROOM = {1021, 1114}
_NO_ROOM_TEXT = "errno: 135"


class BrokenAnswer(FatalConnectorError):
    """An answer that breaks the protocol, or that only a hostile server gives."""


def broken_answer(reason: str, address: MySQLAddress | None = None) -> BrokenAnswer:
    """Return the error for it; nothing of the answer itself is in its message."""
    place = f"{address.shown}: " if address else ""
    return BrokenAnswer(f"{place}the server's answer breaks the MySQL protocol: {reason}", connector="mysql")


def is_broken(error: BaseException) -> bool:
    """Tell whether an answer could not be read: what the driver raises then is no error of its own."""
    import pymysql

    if isinstance(error, (ConnectorError, pymysql.MySQLError, OSError, EOFError, struct.error)):
        return isinstance(error, BrokenAnswer)
    # The server causes neither of these.
    return isinstance(error, Exception) and not isinstance(error, (MemoryError, UnicodeEncodeError))


def errno(error: BaseException) -> int:
    """Return the server's or the client library's number; 0: there is none."""
    arguments: tuple[object, ...] = getattr(error, "args", ())
    number = arguments[0] if arguments else 0
    return number if isinstance(number, int) else 0


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection is gone."""
    import pymysql

    if isinstance(error, (OSError, EOFError, struct.error, pymysql.err.InterfaceError)):
        return True
    return isinstance(error, pymysql.err.OperationalError) and errno(error) in (2003, 2006, 2013, 2055, 4031, 1927, 0)


def connect_failure(error: Exception, address: MySQLAddress) -> ConnectorError:
    """Sort an error of connecting."""
    number, text = errno(error), _text(error, address)
    place = address.shown
    if isinstance(getattr(error, "original_exception", None), socket.gaierror):
        # The host has no address: it cannot be reached, like one that refuses; but another try at once cannot help.
        return FatalConnectorError(f"cannot connect to {place}: {text}", connector="mysql", key="url")
    is_config = number in _CONFIG
    if isinstance(error, RuntimeError) and "cryptography" in text:
        is_config = True
    elif is_broken(error):
        return _as_broken(error, address)
    if number == _NO_PRIVILEGE and (denied := _DATABASE_DENIED.search(text)):
        text += f"; an administrator must run at least: grant select on `{denied[2]}`.* to {denied[1]}"
    if number == _REFUSED_LOGIN and not address.password:
        text += f"; {NO_PASSWORD}"
    if is_config:
        return ConnectorConfigError(f"cannot connect to {place}: {text}", connector="mysql", key="url")
    return RetriableError(f"cannot connect to {place}: {text}", connector="mysql", key="url")


def failure(error: BaseException, address: MySQLAddress) -> ConnectorError:
    """Sort an error of a statement."""
    if isinstance(error, ConnectorError):
        return error
    if is_broken(error):
        return _as_broken(error, address)
    number, text = errno(error), _text(error, address)
    message = f"{address.shown}: {text}{f' (error {number})' if number else ''}"
    if number in _INTERRUPTED:
        return Interrupted("the statement was interrupted", connector="mysql")
    if is_lost(error) or number in RETRIABLE:
        return RetriableError(message, connector="mysql")
    if number in _CONFIG:
        return ConnectorConfigError(message, connector="mysql")
    if number in _TOO_LARGE:
        message += "; raise the server's max_allowed_packet"
        return FatalConnectorError(message, connector="mysql")
    if text.startswith("Incorrect string value"):
        message += (
            "; the column's character set lacks such letters: `alter table ... convert to character set utf8mb4` "
            "of the table allows all letters"
        )
    if number in _NO_ROOM or _NO_ROOM_TEXT in text:
        message += "; the server's disk or the table's space is full"
    if number in _DENIED:
        message += "; `syncblocks check` prints the missing privileges of a destination's user"
    if number in NO_SUCH_TABLE:
        return NoSuchTable(message, connector="mysql")
    is_of_record = not number or number in _OF_A_RECORD
    sorted_as = FatalConnectorError if is_of_record else StatementRefused
    result = (UniqueViolated if number in _UNIQUE else sorted_as)(message, connector="mysql")
    if isinstance(result, UniqueViolated) and (named := _NAMED_KEY.search(text)):
        result.table = named[1]
    if number in _OF_A_TRIGGER:
        result.raised_in = ("*",)
    return result


def _as_broken(error: BaseException, address: MySQLAddress) -> BrokenAnswer:
    if isinstance(error, RuntimeError) and "LOAD_LOCAL" in str(error):
        return broken_answer("it asks for a file of this machine, which is refused", address)
    return broken_answer(f"{type(error).__name__}: {_text(error, address)}"[:300], address)


def _text(error: BaseException, address: MySQLAddress) -> str:
    """Return the server's own words."""
    arguments: tuple[object, ...] = getattr(error, "args", ())
    text = str(arguments[1] if len(arguments) > 1 and errno(error) else error) or type(error).__name__
    text = text.replace("MySQL server", "server")  # the client says so of any
    return address.scrub(" ".join(text.split()))


__all__ = [
    "NO_SUCH_TABLE",
    "REFERENCED",
    "RETRIABLE",
    "BrokenAnswer",
    "broken_answer",
    "connect_failure",
    "errno",
    "failure",
    "is_broken",
    "is_lost",
]
