"""Errors of dialects and drivers, sorted by what the caller does about them; messages hold no credentials, no SQL.

Drivers agree on few classes of errors: where these say nothing, the words do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
    StatementRefused,
    UniqueViolated,
)
from .settings import scrub

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import DBAPIError

_CONFLICT = re.compile(
    r"\b(dead)?lock(s|ed|ing)?\b|conflict|serializ|concurrent|could not obtain|resource busy|timed? ?out", re.I
)
_LOST = re.compile(r"connection|network|socket|broken pipe|server closed|gone away|shutdown|communication", re.I)
_CONFIG = re.compile(
    r"password|passwd|log ?[io]n|authenti|credential|denied|not found|no such|does not exist|unknown (host|database)"
    r"|cannot open|can't open|unable to open|not a valid|not a database|unavailable database|name or service",
    re.I,
)
#: Classes of SQLSTATEs that a record's values cause: data, triggers, constraints, checks of views, raised errors.
_OF_A_RECORD = ("22", "23", "27", "38", "44", "45", "P0")

#: How databases say that a unique index refuses a record: drivers have no class of errors for it.
_UNIQUE = re.compile(r"duplicate|unique", re.I)

#: Number of Firebird's error for an exception of a trigger; the SQLSTATE does not tell.
_RAISED = 335544517

_CANCELLED = re.compile(r"interrupt|cancell?ed|cancell?ation", re.I)


def words(error: BaseException, url: URL) -> str:
    """Return the driver's own words in one line, without credentials."""
    original = getattr(error, "orig", None) or error
    text = " ".join(str(original).split()) or type(original).__name__
    return scrub(text, url)[:1000]


def connect_failure(error: BaseException, url: URL, place: str) -> ConnectorError:
    """Sort an error of connecting."""
    text = words(error, url)
    message = f"cannot connect to {place}: {text}"
    if _CONFIG.search(text):
        return ConnectorConfigError(message, connector="sqlalchemy", key="url")
    return RetriableError(message, connector="sqlalchemy", key="url")


def failure(error: BaseException, url: URL, place: str) -> ConnectorError:
    """Sort an error of a statement."""
    import sqlalchemy.exc as exc

    if isinstance(error, ConnectorError):
        return error
    text = words(error, url)
    message = f"{place}: {text}"
    if _CANCELLED.search(text):
        return Interrupted("the statement was interrupted", connector="sqlalchemy")
    if isinstance(error, exc.DBAPIError):
        is_of_record = _is_of_record(error)
        is_refusal = is_of_record or isinstance(error, exc.ProgrammingError)
        if error.connection_invalidated or (not is_refusal and (_CONFLICT.search(text) or _LOST.search(text))):
            return RetriableError(message, connector="sqlalchemy")
        sorted_as = FatalConnectorError if is_of_record else StatementRefused
        is_unique = isinstance(error, exc.IntegrityError) and _UNIQUE.search(text)
        return (UniqueViolated if is_unique else sorted_as)(message, connector="sqlalchemy")
    if isinstance(error, OSError):
        return RetriableError(message, connector="sqlalchemy")
    return FatalConnectorError(message, connector="sqlalchemy")


def _is_of_record(error: DBAPIError) -> bool:
    """Tell whether a record's values are at fault, and not the statement."""
    import sqlalchemy.exc as exc

    if isinstance(error, (exc.IntegrityError, exc.DataError)):
        return True
    own: Any = error.orig
    first = own.args[0] if getattr(own, "args", ()) else ""
    # What psycopg, psycopg2 and ODBC call it.
    found = getattr(own, "sqlstate", None) or getattr(own, "pgcode", None) or first
    is_known = isinstance(found, str) and len(found) == 5 and found.startswith(_OF_A_RECORD)
    return is_known or _RAISED in (getattr(own, "gds_codes", None) or ())


__all__ = ["connect_failure", "failure", "words"]
